"""``python -m cope_sandbox``: `serve` (for a worker, over standard input and output) or `check` (for people)."""

import argparse
import json
import subprocess
import sys

from cope_sandbox import start
from cope_sandbox.home import Place, place

_TRIAL_S = 60.0


def main() -> None:
    """Test the layers, with bubblewrap where it works; then become the process that serves."""
    parser = argparse.ArgumentParser(prog="cope_sandbox", description=__doc__)
    parser.add_argument("mode", choices=("serve", "check"))
    parser.add_argument("--bubblewrap", choices=("auto", "off"), default="auto", help="the second layer (default auto)")
    arguments = parser.parse_args()
    here = place()
    bubblewrap = start.find_bubblewrap() if arguments.bubblewrap == "auto" else None
    if bubblewrap is not None and not _works(start.wrapped_command(bubblewrap, here, "check"), here):
        bubblewrap = None
    if arguments.mode == "check":
        raise SystemExit(_check(here, wrapped=bubblewrap is not None))
    if bubblewrap is None:
        start.become(start.bare_command(here, "serve"), here)
    else:
        start.drop_root()
        start.become(start.wrapped_command(bubblewrap, here, "serve"), here)


def _works(command: list[str], here: Place) -> bool:
    """Whether the whole self-test passes with it: bubblewrap is often there and not allowed, as in a container."""
    try:
        tried = subprocess.run(
            command,
            env=start.environment(here),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            preexec_fn=start.drop_root,
            timeout=_TRIAL_S,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return tried.returncode == 0


def _check(here: Place, *, wrapped: bool) -> int:
    found = subprocess.run(
        start.bare_command(here, "check"),
        env=start.environment(here),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=_TRIAL_S,
    )
    said = found.stdout.decode(errors="replace").strip()
    if found.returncode != 0:
        why = said or found.stderr.decode(errors="replace").strip()
        sys.stderr.write(f"No program that a model wrote may run here: {why}\n")
        return 1
    layers = json.loads(said)["layers"] + (["bubblewrap"] if wrapped else [])
    sys.stdout.write(f"Sound: {', '.join(layers)}.\n")
    return 0


if __name__ == "__main__":
    main()
