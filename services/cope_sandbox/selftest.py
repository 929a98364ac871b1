"""Attacks that must fail before any foreign code is run, each in the very sandbox that will hold it.

An attack is a test that passes if the attack succeeds. Programs that must pass are among them: a sandbox in which
nothing runs would withstand everything.
"""

import os
import secrets
import socket
import tempfile
from typing import NamedTuple

from cope_sandbox import monitor
from cope_sandbox.harness import Job

LIMITS = monitor.Limits(cpu_s=5, wall_s=30.0, memory_bytes=512 * 2**20, output_bytes=65_536)


class Trial(NamedTuple):
    """`must_pass` is False for an attack."""

    name: str
    program: str
    must_pass: bool = False
    test: str = "assert attack()"


def what_fails(fence: monitor.Fence) -> list[str]:
    """The names of the trials that ended otherwise than they must; empty where the sandbox is sound."""
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as tcp:
        secret = os.path.join(folder, "secret")
        with open(secret, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(8))
        # Open to everybody, so that it is the sandbox that keeps an attack out and not the file's owner.
        os.chmod(folder, 0o777)  # noqa: S103
        os.chmod(secret, 0o666)  # noqa: S103
        trials = _trials(port=tcp.getsockname()[1], secret=secret, pid=os.getpid())
        return [trial.name for trial in trials if _passes(trial, fence) is not trial.must_pass]


def _passes(trial: Trial, fence: monitor.Fence) -> bool:
    job = Job(trial.program, "", [trial.test], None, [])
    # A monitor of its own, as in service: what it does to its process must not stay in this one.
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 2
        try:
            found = monitor.verdict(job, LIMITS, fence)
            code = 0 if found["ending"] == "finished" and found["passed"] == 1 else 1
            if found["ending"] == "not_locked":
                code = 2
        finally:
            os._exit(code)
    os.close(read)
    os.close(write)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in {0, 1}:
        raise OSError(f"the sandbox could not be closed around {trial.name!r}")
    return code == 0


def _trials(*, port: int, secret: str, pid: int) -> tuple[Trial, ...]:
    needed = "import os, socket, ctypes, resource, math, collections, json, re, random\n"
    return (
        Trial("computing", needed + "def attack(): return sum(range(10)) == 45", must_pass=True),
        Trial("a wrong answer", "def attack(): return False"),
        Trial("os._exit(0)", "import os\nos._exit(0)"),
        Trial("SystemExit", "raise SystemExit(0)"),
        Trial("a printed verdict", "print('passed')\ndef attack(): return False"),
        Trial(
            "TCP",
            f"import socket\ndef attack():\n    socket.create_connection(('127.0.0.1', {port}), 2)\n    return True",
        ),
        Trial("UDP", "import socket\ndef attack(): return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"),
        Trial("a unix socket", "import socket\ndef attack(): return socket.socket(socket.AF_UNIX)"),
        Trial("reading a secret", f"def attack(): return open({secret!r}).read()"),
        Trial("reading /etc/passwd", "def attack(): return open('/etc/passwd').read()"),
        Trial("writing", f"def attack():\n    open({secret!r}, 'w').write('x')\n    return True"),
        Trial("making a process", "import os\ndef attack():\n    if os.fork() == 0: os._exit(0)\n    return True"),
        Trial("a program of its own", "import os\ndef attack(): os.execv('/bin/true', ['true'])"),
        Trial("a signal", f"import os\ndef attack():\n    os.kill({pid}, 0)\n    return True"),
        Trial("another process's environment", f"def attack(): return open('/proc/{pid}/environ').read() or True"),
        Trial(
            "a higher limit",
            "import resource\ndef attack():\n    resource.setrlimit(resource.RLIMIT_NOFILE, (9, 9))\n    return True",
        ),
        Trial(
            "ptrace",
            f"import ctypes\ndef attack(): return ctypes.CDLL(None, use_errno=True).ptrace(16, {pid}, 0, 0) == 0",
        ),
    )
