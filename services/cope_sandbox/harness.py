"""Inside the sandbox: load the program, run its tests, and say of each whether it passed.

What it says is believed only with the right secret. The secrets wait in a pipe, one for each statement, and are read
just before it: so neither printed text nor an early end can pass for a verdict. A program that takes this very harness
apart by name could read them; it would deceive itself about its *visible* tests, and gain nothing outside.
"""

import os
import struct
import sys
from collections.abc import Callable
from hashlib import sha256
from types import ModuleType
from typing import Any, NamedTuple

SECRETS_FD, REPORTS_FD = 3, 4
SECRET_BYTES = 16
HEAD = struct.Struct(f"={SECRET_BYTES}sHBH")
MAX_MESSAGE_BYTES = 400
FAILED, PASSED = 0, 1
_MAX_REPR_CHARS = 100_000


class Job(NamedTuple):
    """What to run. `tests` are statements, each its own test; `probes` are expressions whose values are compared with
    those of other programs by a digest."""

    program: str
    setup: str
    tests: list[str]
    entry_point: str | None
    probes: list[str]


def run(job: Job) -> None:
    """Statement 0 is the program itself; 1 to n are the tests; n + 1 the probes' digest, where there are any.

    The setup runs after the program, whose classes it may use (MBPP's task 367 does), and is tried before it too, for
    what it defines may be used by the program as it loads: only its second failing counts.
    """
    say, flush = _reporter(os.read, os.write), sys.stdout.flush
    names = _module("solution" if job.tests or job.probes else "__main__")
    error = _load(job, names)
    say(0, error)
    if error is None:
        for index, test in enumerate(job.tests, start=1):
            say(index, _attempt(test, f"<test {index}>", names))
        if job.probes:
            say(len(job.tests) + 1, None, _digest(job.probes, names))
    try:
        flush()
    finally:
        os._exit(0)


def _module(name: str) -> dict[str, Any]:
    """The names of a module that can be looked up as such: `dataclasses` and `typing` do. With tests, a program is
    imported, and its `if __name__ == "__main__"` stays unused; without, it is a script."""
    made = ModuleType(name)
    sys.modules[name] = made
    return made.__dict__


def _reporter(read: Callable[[int, int], bytes], write: Callable[[int, bytes], int]) -> Callable[..., None]:
    def say(index: int, error: str | None, note: str = "") -> None:
        message = (error or note).encode("utf-8", "replace")[:MAX_MESSAGE_BYTES]
        state = PASSED if error is None else FAILED
        write(REPORTS_FD, HEAD.pack(read(SECRETS_FD, SECRET_BYTES), index, state, len(message)) + message)

    return say


def _load(job: Job, names: dict[str, Any]) -> str | None:
    if job.setup:
        _attempt(job.setup, "<setup>", names)
    error = _attempt(job.program, "<program>", names)
    if error is None and job.setup:
        error = _attempt(job.setup, "<setup>", names)
    if error is None and job.entry_point is not None and not callable(names.get(job.entry_point)):
        error = f"the program defines no function {job.entry_point}"
    return error


def _attempt(code: str, name: str, names: dict[str, Any]) -> str | None:
    """None where it ran to its end; else what ended it. An exit is a failure too: the tests after it did not run."""
    try:
        exec(compile(code, name, "exec"), names)  # noqa: S102 - what this process is for
    except BaseException as error:
        return _described(error, name)
    return None


def _described(error: BaseException, where: str) -> str:
    try:
        return f"{where}: {type(error).__name__}: {error}"[:MAX_MESSAGE_BYTES]
    except BaseException:  # its own __str__ is the program's
        return f"{where}: an error that can't be described"


def _digest(probes: list[str], names: dict[str, Any]) -> str:
    seen = sha256()
    for probe in probes:
        seen.update(_value(probe, names).encode("utf-8", "replace") + b"\0")
    return seen.hexdigest()


def _value(probe: str, names: dict[str, Any]) -> str:
    try:
        return repr(eval(compile(probe, "<probe>", "eval"), names))[:_MAX_REPR_CHARS]  # noqa: S307 - as above
    except BaseException as error:
        return f"! {type(error).__name__}"
