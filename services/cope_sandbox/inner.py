"""What runs in the zygote's process: test the layers, then serve or say what was found. See `start` for its flags."""

import json
import os
import sys

from cope_sandbox import kernel, monitor, selftest, zygote


def main() -> None:
    """`serve`: the self-test, one line about it, then requests until input ends. `check`: the self-test alone."""
    parent, mode, outer = sys.argv[1], sys.argv[2], sys.argv[3:]
    readable = zygote.warm_up(parent)
    try:
        fence = monitor.Fence(readable, kernel.compute_only_filter(kernel.machine()))
        broken = selftest.what_fails(fence)
    except (kernel.NotSound, OSError) as error:
        broken = [f"{type(error).__name__}: {error}"]
    state = {"state": "refused", "why": broken} if broken else {"state": "ready", "layers": layers(outer)}
    os.write(zygote.REPLIES_FD, json.dumps(state).encode() + b"\n")
    if broken:
        os._exit(1)
    if mode == "serve":
        zygote.serve(readable)
    os._exit(0)


def layers(outer: list[str]) -> list[str]:
    """The layers that hold a run, for people; `outer` are those put around this process."""
    held = [f"Landlock {kernel.landlock_version()}", "seccomp", "resource limits", *outer]
    return [*held, "another user"] if os.geteuid() == 0 else held
