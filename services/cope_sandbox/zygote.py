"""The process that every run is forked from: a clean interpreter that has imported what programs import most.

Started as a program of its own with an empty environment (see `start`). It reads no request: each is read by the
monitor forked for it, so this process never holds any text of anybody's. One request at a time; whoever wants more in
parallel starts more of these.
"""

import gc
import importlib
import os
import select
import signal
import sys

from cope_sandbox import kernel, monitor

REQUESTS_FD, REPLIES_FD = 0, 1

_OFTEN_IMPORTED = (
    "abc", "array", "ast", "base64", "bisect", "calendar", "cmath", "collections.abc", "contextlib", "copy", "csv",
    "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "hashlib", "heapq", "inspect", "io",
    "itertools", "json", "math", "numbers", "operator", "pprint", "queue", "random", "re", "secrets", "statistics",
    "string", "struct", "textwrap", "time", "traceback", "types", "typing", "unicodedata", "uuid", "zlib",
)  # fmt: skip


def warm_up(package_parent: str) -> tuple[str, ...]:
    """Import what most programs import, forget our own import path; the folders a run may read: the standard library's.

    What needs shared libraries from elsewhere is imported here or never: a run can't read `/usr/lib`.
    """
    for name in _OFTEN_IMPORTED:
        importlib.import_module(name)
    sys.path[:] = [path for path in sys.path if path != package_parent]
    sys.argv[:] = ["solution"]
    return tuple(path for path in sys.path if os.path.isdir(path))


def serve(readable: tuple[str, ...]) -> None:
    """Answer requests until standard input ends."""
    fence = monitor.Fence(readable, kernel.compute_only_filter(kernel.machine()))
    gc.collect()
    gc.freeze()  # pages that the collector does not touch stay shared with every run
    incoming = select.poll()
    incoming.register(REQUESTS_FD, select.POLLIN)
    while incoming.poll()[0][1] & select.POLLIN:
        child = os.fork()
        if child == 0:
            _answer_one(fence)
        _, status = os.waitpid(child, 0)
        if status != 0:
            os._exit(1)  # the request was lost half-way: whoever waits for its reply sees the pipe end


def _answer_one(fence: monitor.Fence) -> None:
    kernel.die_with_parent(signal.SIGKILL)  # who kills the zygote means the run as well
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(REQUESTS_FD, 1 << 20)
        if not part:
            os._exit(0)
        line += part
    try:
        reply = monitor.watch(line, fence)
        while reply:
            reply = reply[os.write(REPLIES_FD, reply) :]
    except BaseException as error:
        os.write(2, f"cope_sandbox: {type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)
