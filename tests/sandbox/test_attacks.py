"""Model-written code can compute and nothing else: every attack fails, whoever started the sandbox."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cope.adapters.sandbox_runner import SandboxPool
from cope.core.programs import Ending, ProgramRun, RunLimits
from tests.sandbox.attacks import Targets, attacks
from tests.sandbox.conftest import USERS

pytestmark = pytest.mark.asyncio(loop_scope="module")
HURRIED = RunLimits(cpu_s=1, wall_s=10.0)


@pytest.fixture(scope="module")
def targets(scratch: Path) -> Iterator[Targets]:
    folder = scratch / "sandbox-attacks"
    folder.mkdir()
    folder.chmod(0o777)
    secret = folder / "secret"
    secret.write_text("hunter2")
    secret.chmod(0o666)
    victim = subprocess.Popen(
        [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"],
        env={"HUNTER": "2"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert victim.stdout is not None
    assert victim.stdout.readline() == b"up\n"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        udp.bind(("127.0.0.1", 0))
        unix.bind(str(folder / "unix"))
        (folder / "unix").chmod(0o777)
        unix.listen()
        for server in (tcp, udp, unix):
            server.setblocking(False)
        yield Targets(tcp.getsockname()[1], udp.getsockname()[1], folder / "unix", secret, folder, victim.pid)
    victim.kill()  # the control's ptrace left it stopped: it would not hear of the end of its input
    victim.communicate()


def leftovers(at: Targets) -> list[Path]:
    places = (at.folder / "written", at.folder / "big", Path(f"/tmp/cope-attack-{at.victim}"))
    return [one for one in (*places, Path(f"/dev/shm/cope-attack-{at.victim}")) if one.exists()]


def runs_of_the_sandbox() -> list[str]:
    """Processes of a run that are still there: each carries its program's name in no place but its parent's."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if "\nSeccomp:\t2\n" in text and "\nUid:\t59871\t" in text:
            found.append(text)
    return found


@pytest.mark.parametrize("user", USERS)
async def test_every_attack_fails_and_leaves_nothing_behind(
    user: str, targets: Targets, sandboxes: Callable[[str], SandboxPool]
) -> None:
    pool = sandboxes(user)
    worked = []
    for attack in attacks(targets):
        run = ProgramRun(attack.program, ("assert attack() is True",))
        verdict = await pool.run(run, HURRIED)
        assert verdict.loaded, (attack.name, verdict.errors)
        if verdict.passes or verdict.passed:
            worked.append(attack.name)
    assert worked == []
    assert leftovers(targets) == []
    assert runs_of_the_sandbox() == []
    assert (await pool.run(ProgramRun("x = 1", ("assert x == 1",)))).passes, "the sandbox itself is unharmed"


async def test_every_attack_works_where_there_is_no_sandbox(targets: Targets) -> None:
    """So it is the sandbox that withstands them. Those that would harm the machine are left out."""
    harmless = [attack for attack in attacks(targets) if attack.harmless]
    code = "".join(f"exec({attack.program!r})\nprint(attack() is True)\n" for attack in harmless)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    for one in leftovers(targets):
        one.unlink()
    failed = [attack.name for attack, said in zip(harmless, ran.stdout.split(), strict=False) if said != "True"]
    assert failed == [], ran.stderr
    assert len(ran.stdout.split()) == len(harmless), ran.stderr
    if os.geteuid() == 0:
        assert len(harmless) >= 15


FORGERIES = {
    "printed text": "print('passed'); print('{\"passed\": 1}')\ndef f(): return 0",
    "os._exit(0)": "import os\nos._exit(0)",
    "os._exit(0) in a test": "import os\ndef f(): os._exit(0)",
    "SystemExit": "raise SystemExit(0)",
    "SystemExit in a test": "import sys\ndef f(): sys.exit(0)",
    "a report of its own": "import os\nfor fd in 1, 2, 4, 5:\n  try: os.write(fd, bytes(84))\n  except OSError: pass",
    "closed pipes": "import os\nos.closerange(0, 64)\ndef f(): return 0",
    "a report and an exit": "import os\nos.write(4, bytes(16) + b'\\0\\0\\1\\0\\0')\nos._exit(0)",
    "its own AssertionError": "import builtins\nbuiltins.AssertionError = None\ndef f(): return 0",
    "KeyboardInterrupt": "def f(): raise KeyboardInterrupt",
    "an error that can't be told": "class E(Exception):\n  def __str__(self): raise E\ndef f(): raise E",
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_verdict_can_t_be_forged(forgery: str, shared: SandboxPool) -> None:
    verdict = await shared.run(ProgramRun(FORGERIES[forgery], ("assert f() == 1",), entry_point="f"), HURRIED)
    assert (verdict.passes, verdict.passed) == (False, 0)


async def test_a_report_of_its_own_is_told_apart_from_an_error(shared: SandboxPool) -> None:
    verdict = await shared.run(ProgramRun(FORGERIES["a report of its own"], ("assert True",)), HURRIED)
    assert verdict.ending is Ending.FORGED


async def test_a_program_that_sleeps_is_ended_by_the_clock_and_one_that_computes_by_its_processor_time(
    shared: SandboxPool,
) -> None:
    slept = await shared.run(ProgramRun("import time\ntime.sleep(100)", ("assert True",)), RunLimits(1, wall_s=0.3))
    computed = await shared.run(ProgramRun("while True: pass", ("assert True",)), RunLimits(1, wall_s=60))
    assert (slept.ending, computed.ending) == (Ending.WALL, Ending.CPU)


async def test_a_program_that_outlives_the_first_signal_does_not_outlive_the_second(shared: SandboxPool) -> None:
    stubborn = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    assert (await shared.run(ProgramRun(stubborn, ("assert True",)), HURRIED)).ending is Ending.CPU


async def test_what_one_run_changes_no_other_sees(shared: SandboxPool) -> None:
    spoiled = await shared.run(ProgramRun("import math\nmath.pi = 3\nmath.floor = None", ("assert math.pi == 3",)))
    assert spoiled.passes
    assert (await shared.run(ProgramRun("import math", ("assert math.floor(math.pi * 100) == 314",)))).passes


async def test_a_run_knows_nothing_of_this_process_and_finds_no_request_but_its_own(shared: SandboxPool) -> None:
    marker = f"only-in-the-first-request-{time.time_ns()}"
    assert (await shared.run(ProgramRun(f"x = {marker!r}", ("assert x",)))).passes
    looks = (
        "import os, gc, sys\nassert set(os.environ) <= {'PYTHONHASHSEED', 'PYTHONHOME', 'LC_ALL', 'HOME', 'PATH'}\n"
        "assert not any('site-packages' in p for p in sys.path)\n"
        f"half = {marker[:24]!r}\nend = {marker[24:]!r}\n"
        "seen = [o for o in gc.get_objects() if isinstance(o, dict) and any(v == half + end for v in o.values())]"
    )
    verdict = await shared.run(ProgramRun(looks, ("assert seen == []", "assert len(sys.argv) == 1")))
    assert verdict.passes, verdict.errors
