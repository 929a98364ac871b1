"""One run, watched from outside: a locked-down child, a verdict that only the harness can have written, an end to all.

A monitor is a process of its own for each run. What it learns of one program is gone when the next one comes, so that
no program finds another's text in memory it was forked from.
"""

import contextlib
import json
import os
import resource
import select
import signal
import time
from typing import Any, NamedTuple, NoReturn

from cope_sandbox import harness, kernel

UNPRIVILEGED_ID = 59_871
"""The user and group of a run started by root: nobody's, so that a process of somebody is never its neighbour."""

_MAX_OPEN_FILES = 64
_READ_BYTES = 65_536
_NOT_LOCKED = 111


STARVED = 10
"""A program that waits for nothing but the processor gets so many times its `wall_s`."""


class Limits(NamedTuple):
    """`cpu_s`: processor seconds, at least 1. `wall_s`: by the clock, generous. The rest in bytes."""

    cpu_s: int
    wall_s: float
    memory_bytes: int
    output_bytes: int


class Fence(NamedTuple):
    """What holds every run: the paths it may read and the filter over its system calls."""

    readable: tuple[str, ...]
    instructions: bytes


class _Pipes(NamedTuple):
    secrets: tuple[int, int]
    reports: tuple[int, int]
    output: tuple[int, int]


def watch(line: bytes, fence: Fence) -> bytes:
    """The reply to one request, both one line of JSON (see `cope.adapters.sandbox_runner.messages`)."""
    asked = json.loads(line)
    limits = Limits(asked["cpu_s"], asked["wall_s"], asked["memory_bytes"], asked["output_bytes"])
    job = harness.Job(asked["program"], asked["setup"], asked["tests"], asked["entry_point"], asked["probes"])
    return json.dumps(verdict(job, limits, fence)).encode() + b"\n"


def verdict(job: harness.Job, limits: Limits, fence: Fence) -> dict[str, Any]:
    """Run `job` in a child that `fence` holds, and end whatever is left of it."""
    kernel.adopt_orphans()
    statements = 1 + len(job.tests) + bool(job.probes)
    secrets = [os.urandom(harness.SECRET_BYTES) for _ in range(statements)]
    pipes = _Pipes(os.pipe(), os.pipe(), os.pipe())
    os.write(pipes.secrets[1], b"".join(secrets))
    child = os.fork()
    if child == 0:
        _become_the_run(job, limits, fence, pipes)
    for descriptor in (*pipes.secrets, pipes.reports[1], pipes.output[1]):
        os.close(descriptor)
    told = _listen(child, pipes, limits, most=statements * (harness.HEAD.size + harness.MAX_MESSAGE_BYTES))
    status = _end(child)
    return _judged(job, limits, secrets, told, status)


# ---- the run ---------------------------------------------------------------------------------------------------------


def _become_the_run(job: harness.Job, limits: Limits, fence: Fence, pipes: _Pipes) -> NoReturn:
    try:
        os.setsid()
        _only_pipes(pipes)
        lock_down(limits, fence)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(_NOT_LOCKED)
    harness.run(job)
    os._exit(0)


def _only_pipes(pipes: _Pipes) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    # Through high numbers first: a pipe's own number may be one of those wanted.
    moved = [os.dup2(one, 200 + i) for i, one in enumerate((nowhere, pipes.output[1], nowhere))]
    moved += [os.dup2(one, 210 + i) for i, one in enumerate((pipes.secrets[0], pipes.reports[1]))]
    for wanted, one in zip((0, 1, 2, harness.SECRETS_FD, harness.REPORTS_FD), moved, strict=True):
        os.dup2(one, wanted)
    os.closerange(5, os.sysconf("SC_OPEN_MAX"))


def lock_down(limits: Limits, fence: Fence) -> None:
    """Give up, for good and in this order, every right but to compute. Raises `kernel.NotSound` or `OSError`."""
    kernel.die_with_parent(signal.SIGKILL)
    os.chdir("/")
    ceilings = {
        resource.RLIMIT_CPU: (limits.cpu_s, limits.cpu_s + 1),  # a program may catch the first signal, not the second
        resource.RLIMIT_AS: (limits.memory_bytes,) * 2,
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NOFILE: (_MAX_OPEN_FILES,) * 2,
        resource.RLIMIT_NPROC: (0, 0),
        resource.RLIMIT_MEMLOCK: (0, 0),
        resource.RLIMIT_MSGQUEUE: (0, 0),
    }
    for what, ceiling in ceilings.items():
        resource.setrlimit(what, ceiling)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(UNPRIVILEGED_ID, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
        os.setresuid(UNPRIVILEGED_ID, UNPRIVILEGED_ID, UNPRIVILEGED_ID)  # and with it every capability
        kernel.die_with_parent(signal.SIGKILL)  # the change of user took it away
    kernel.show_nothing_of_memory()
    kernel.gain_no_privileges()
    kernel.allow_reading_only(fence.readable)
    kernel.allow_computing_only(fence.instructions)


# ---- from outside ----------------------------------------------------------------------------------------------------


class _Told(NamedTuple):
    reports: bytes
    output: bytes
    ending: str  # "closed", "wall" or "output"


def _listen(child: int, pipes: _Pipes, limits: Limits, *, most: int) -> _Told:
    """All it reports until it closes the pipe (by ending, as a rule), has written too much, or its time is up."""
    began = time.monotonic()
    deadline = began + limits.wall_s
    heard = {pipes.reports[0]: b"", pipes.output[0]: b""}
    poll = select.poll()
    for one in heard:
        poll.register(one, select.POLLIN)
    open_ones, ending = set(heard), "closed"
    while pipes.reports[0] in open_ones:
        ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ready:
            if _wants_the_processor(child) and time.monotonic() < began + STARVED * limits.wall_s:
                deadline += limits.wall_s  # the machine is busy: that makes no program wrong
                continue
            ending = "wall"
            break
        for one, _ in ready:
            part = os.read(one, _READ_BYTES)
            heard[one] += part
            if not part:
                poll.unregister(one)
                open_ones.discard(one)
        if len(heard[pipes.output[0]]) > limits.output_bytes or len(heard[pipes.reports[0]]) > most:
            ending = "output"
            break
    if ending == "closed" and pipes.output[0] in open_ones:
        os.kill(child, signal.SIGKILL)  # it has said all that counts; now the output has an end too
        os.set_blocking(pipes.output[0], False)
        heard[pipes.output[0]] += _rest(pipes.output[0], limits.output_bytes)
    return _Told(heard[pipes.reports[0]], heard[pipes.output[0]][: limits.output_bytes], ending)


def _wants_the_processor(child: int) -> bool:
    """Whether it is running, or would if it were let: a program that sleeps or waits is not."""
    try:
        with open(f"/proc/{child}/stat", encoding="ascii", errors="replace") as told:
            return told.read().rpartition(")")[2].split()[0] == "R"
    except (OSError, IndexError):
        return False


def _rest(descriptor: int, most: int) -> bytes:
    parts = b""
    try:
        while len(parts) <= most and (part := os.read(descriptor, _READ_BYTES)):
            parts += part
    except BlockingIOError:
        pass
    return parts


def _end(child: int) -> int:
    """Kill the run's whole session and reap it; its wait status. There is nothing else to kill, unless a layer failed:
    then what it left behind is this process's child by now."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    try:
        while True:
            left, _ = os.waitpid(-1, os.WNOHANG)
            if left == 0:
                for one in _children():
                    os.kill(one, signal.SIGKILL)
                os.waitpid(-1, 0)
    except ChildProcessError:
        pass
    return status


def _signal(status: int) -> int:
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as listed:
        return [int(one) for one in listed.read().split()]


def _judged(job: harness.Job, limits: Limits, secrets: list[bytes], told: _Told, status: int) -> dict[str, Any]:
    """Count what was said with the right secrets, in order. Anything else ends the counting: as if not said."""
    at, passed, loaded, errors, behaviour, said = 0, 0, False, [], None, 0
    forged = False
    for index, secret in enumerate(secrets):
        if len(told.reports) < at + harness.HEAD.size:
            break
        given, number, state, length = harness.HEAD.unpack_from(told.reports, at)
        at += harness.HEAD.size
        message = told.reports[at : at + length].decode("utf-8", "replace")
        at += length
        if given != secret or number != index:
            forged = True
            break
        said += 1
        if index == 0:
            loaded = state == harness.PASSED
        elif index <= len(job.tests):
            passed += state == harness.PASSED
        else:
            behaviour = message
        if state != harness.PASSED:
            errors.append(message)
    finished = loaded and said == len(secrets)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_spent = used.ru_utime + used.ru_stime >= limits.cpu_s or _signal(status) == signal.SIGXCPU
    if forged:
        ending = "forged"
    elif finished or (said > 0 and not loaded):
        ending = "finished"
    elif told.ending != "closed":
        ending = told.ending
    elif cpu_spent:
        ending = "cpu"
    elif not said and os.WIFEXITED(status) and os.WEXITSTATUS(status) == _NOT_LOCKED:
        ending = "not_locked"
    else:
        ending = "died"
    return {
        "passed": passed,
        "loaded": loaded,
        "ending": ending,
        "errors": errors[:8],
        "output": told.output.decode("utf-8", "replace"),
        "behaviour": behaviour,
    }
