"""Starting the zygote: which interpreter, which environment, with bubblewrap around it or without."""

import os
import shutil
import sys
from collections.abc import Sequence

from cope_sandbox import monitor
from cope_sandbox.home import Place

# Isolated from the user's site, the environment and the current folder, as `-I` is; spelled out because `-I` would also
# ignore PYTHONHASHSEED, and a set's order must not decide whether a program passes.
_FLAGS = ("-P", "-s", "-S", "-B")
_MAIN = "import sys; sys.path.append(sys.argv[1]); from cope_sandbox.inner import main; main()"


def environment(place: Place) -> dict[str, str]:
    """All that a zygote is told. None of it is a secret: every run inherits it."""
    told = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", "PATH": "/usr/bin:/bin"}
    return told if place.python_home is None else {**told, "PYTHONHOME": place.python_home}


def bare_command(place: Place, mode: str) -> list[str]:
    """The zygote without bubblewrap. `mode` is `serve` or `check`."""
    return [place.python, *_FLAGS, "-c", _MAIN, place.package_parent, mode]


def wrapped_command(bubblewrap: str, place: Place, mode: str) -> list[str]:
    """The zygote in namespaces of its own, where nothing is mounted but what an interpreter needs, all of it
    read-only. The whole zygote is wrapped, so that a run costs nothing more."""
    shown = [place.python_home] if place.python_home else [sys.base_prefix, sys.prefix, place.package_parent]
    mounts: list[str] = []
    for path in dict.fromkeys(shown):
        if not path.startswith("/usr/"):
            mounts += ["--ro-bind", path, path]
    return [
        bubblewrap, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL",
        "--ro-bind", "/usr", "/usr", "--ro-bind-try", "/lib", "/lib", "--ro-bind-try", "/lib64", "/lib64",
        "--ro-bind-try", "/bin", "/bin", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", *mounts,  # noqa: S108
        "--", *bare_command(place, mode), "bubblewrap",
    ]  # fmt: skip


def find_bubblewrap() -> str | None:
    """The program, where it is installed."""
    return shutil.which("bwrap")


def drop_root() -> None:
    """Before bubblewrap: as root it would keep root inside, without the right to give it up."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(monitor.UNPRIVILEGED_ID, monitor.UNPRIVILEGED_ID, monitor.UNPRIVILEGED_ID)
        os.setresuid(monitor.UNPRIVILEGED_ID, monitor.UNPRIVILEGED_ID, monitor.UNPRIVILEGED_ID)


def become(command: Sequence[str], place: Place) -> None:
    """Replace this process. Only standard input, output and error go along."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.execve(command[0], list(command), environment(place))  # noqa: S606
