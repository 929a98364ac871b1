"""The start-up self-test finds a layer that is missing, and then no program is run."""

import asyncio
import os
import subprocess
import sys

import pytest

from cope.adapters.sandbox_runner import SandboxPool
from cope.core.errors import SandboxUnavailable
from cope.core.programs import ProgramRun
from cope_sandbox import kernel, start
from cope_sandbox.home import Place

HERE = Place("/opt/python/bin/python3", "/opt/cope", None)


_WEAKENED = """
import os, sys
from cope_sandbox import kernel, monitor, selftest
exec(sys.argv[1])
readable = tuple(path for path in sys.path if os.path.isdir(path))
monitor.UNPRIVILEGED_ID = os.geteuid()  # Python itself may lie where only this user can look
print(*selftest.what_fails(monitor.Fence(readable, kernel.compute_only_filter(kernel.machine()))), sep="\\n")
"""


def what_fails(weakened: str = "") -> set[str]:
    """The self-test in a process of its own, with a layer taken away; all else is the sandbox's own code."""
    told = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ran = subprocess.run(
        [sys.executable, "-c", _WEAKENED, weakened], env=told, capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split("\n")) - {""}


def test_with_every_layer_nothing_fails() -> None:
    assert what_fails() == set()


def test_without_seccomp_sockets_are_found_open() -> None:
    assert {"UDP", "a unix socket"} <= what_fails("kernel.allow_computing_only = lambda instructions: None")


def test_without_landlock_files_are_found_open() -> None:
    assert {"reading a secret", "reading /etc/passwd"} <= what_fails("kernel.allow_reading_only = lambda paths: None")


async def test_where_the_self_test_fails_no_program_is_run_and_the_refusal_says_what_is_missing() -> None:
    says = """import json; print(json.dumps({"state": "refused", "why": ["TCP", "writing"]}))"""
    pool = SandboxPool(1, command=(sys.executable, "-c", says))
    with pytest.raises(SandboxUnavailable, match=r"TCP, writing.*cope_sandbox check"):
        await pool.run(ProgramRun("x = 1", ("assert x",)))
    with pytest.raises(SandboxUnavailable, match="TCP"):  # remembered for a minute, not tried for every program
        await pool.run(ProgramRun("x = 1", ("assert x",)))
    await pool.aclose()


async def test_a_run_that_nobody_waits_for_any_more_leaves_its_sandbox_to_the_next() -> None:
    pool = SandboxPool(1)
    short = ProgramRun("x = 1", ("assert True",))
    assert (await pool.run(short)).passes
    (before,) = pool._idle
    abandoned = asyncio.create_task(pool.run(ProgramRun("import time\ntime.sleep(0.2)", ("assert True",))))
    while not pool._busy:
        await asyncio.sleep(0.01)
    abandoned.cancel()
    assert (await pool.run(short)).passes
    assert list(pool._idle) == [before]
    await pool.aclose()
    with pytest.raises(SandboxUnavailable, match="closed"):
        await pool.run(short)


@pytest.mark.parametrize("command", [("/no/such/file",), (sys.executable, "-c", "raise SystemExit('no Landlock')")])
async def test_a_sandbox_that_does_not_start_is_an_outage_and_nobody_s_failed_program(command: tuple[str, ...]) -> None:
    pool = SandboxPool(1, command=command)
    with pytest.raises(SandboxUnavailable):
        await pool.run(ProgramRun("x = 1", ("assert x",)))
    await pool.aclose()


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(kernel.NotSound, match="riscv64"):
        kernel.compute_only_filter("riscv64")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_starts_with_the_architecture_and_ends_with_a_refusal(machine: str) -> None:
    instructions = kernel.compute_only_filter(machine)
    assert len(instructions) % 8 == 0
    assert instructions[:8] == b"\x20\x00\x00\x00\x04\x00\x00\x00"
    assert instructions[-8:-4] == b"\x06\x00\x00\x00"


def test_bubblewrap_shows_the_zygote_nothing_that_can_be_written() -> None:
    command = start.wrapped_command("/usr/bin/bwrap", HERE, "serve")
    assert command[:2] == ["/usr/bin/bwrap", "--unshare-all"]
    assert "--bind" not in command
    assert command[command.index("--") + 1] == HERE.python
    assert command[-2:] == ["serve", "bubblewrap"]


def test_the_zygote_is_told_nothing_of_the_worker_s_environment() -> None:
    assert set(start.environment(HERE)) == {"PYTHONHASHSEED", "LC_ALL", "HOME", "PATH"}
