"""A Python that an unprivileged user can read.

Runs started by root give up root. If Python lies where only root may look (under /root, as version managers put it),
they could import nothing: then what they need is copied, once for each Python and machine, to a place of its own.
"""

import os
import shutil
import stat
import sys
import sysconfig
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

_LEFT_OUT = ("site-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "config-*")


class Place(NamedTuple):
    """What a zygote is started with. `python_home` is None where the interpreter finds its own library."""

    python: str
    package_parent: str
    python_home: str | None


def place() -> Place:
    """The interpreter, this package and the library, where an unprivileged user finds them."""
    library, package = Path(sysconfig.get_path("stdlib")), Path(__file__).resolve().parent
    if os.geteuid() != 0 or (_open_to_all(library / "os.py") and _open_to_all(package / "home.py")):
        return Place(sys.executable, str(package.parent), None)
    said = [f"{library}:{sys.version}:{library.stat().st_mtime_ns}".encode()]
    said += [source.read_bytes() for source in sorted(package.glob("*.py"))]
    copy = Path(tempfile.gettempdir()) / f"cope-sandbox-{sha256(b'|'.join(said)).hexdigest()[:12]}"
    if not _is_ours(copy):
        _copy(library, package, copy)
    return Place(str(copy / "python"), str(copy), str(copy))


def _open_to_all(file: Path) -> bool:
    folders = all(folder.stat().st_mode & stat.S_IXOTH for folder in file.parents)
    return folders and bool(file.stat().st_mode & stat.S_IROTH)


def _is_ours(home: Path) -> bool:
    """In a folder that everybody may write to, a name proves nothing."""
    try:
        found = home.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _copy(library: Path, package: Path, copy: Path) -> None:
    made = Path(tempfile.mkdtemp(prefix="cope-sandbox-new-", dir=copy.parent))
    try:
        leave_out = shutil.ignore_patterns(*_LEFT_OUT)
        shutil.copytree(library, made / "lib" / library.name, ignore=leave_out, copy_function=shutil.copyfile)
        shutil.copytree(package, made / package.name, copy_function=shutil.copyfile)
        for folder, _, files in os.walk(made):
            Path(folder).chmod(0o755)
            for name in files:
                os.chmod(os.path.join(folder, name), 0o644)
        shutil.copyfile(Path(sys.executable).resolve(), made / "python")
        (made / "python").chmod(0o755)
        try:
            made.rename(copy)
        except OSError:
            if not _is_ours(copy):  # else another process was quicker
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
