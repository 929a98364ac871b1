"""``python -m cope_local up|down|demo|restore|upgrade-data``: the whole service on this machine."""

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from cope_local.errors import CannotStart
from cope_local.moves import restore_local, upgrade_data
from cope_local.stack import Stack, running_supervisor

_DOWN_TELL_AFTER_S = 10.0
_DETACH_TIMEOUT_S = 150.0


def main() -> None:
    """Parse the command line. Exit codes: 0 done, 1 the demo found a fault, 2 it could not start."""
    parser = argparse.ArgumentParser(prog="run", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start the stack and keep it running")
    up.add_argument("--data-dir", type=Path, default=Path(".cope/stack"))
    up.add_argument("--port", type=int, help="the API's port (default 8000, then as before)")
    up.add_argument("--detach", action="store_true", help="return once it is ready")
    down = commands.add_parser("down", help="stop a stack")
    down.add_argument("--data-dir", type=Path, default=Path(".cope/stack"))
    move = commands.add_parser("upgrade-data", help="move a stack's data into a newer Postgres; the old ones are kept")
    move.add_argument("--data-dir", type=Path, default=Path(".cope/stack"))
    back = commands.add_parser("restore", help="bring back what `cope backup` made, as a stack in a new directory")
    back.add_argument("backup", type=Path)
    back.add_argument("--data-dir", type=Path, required=True)
    demo = commands.add_parser("demo", help="solve a sample batch, show the table, stop")
    demo.add_argument("--problems", type=int, help="how many of the sample problems (default all 64)")
    arguments = parser.parse_args()
    try:
        if arguments.command == "up":
            _up(arguments.data_dir, arguments.port, detach=arguments.detach)
        elif arguments.command == "down":
            _down(arguments.data_dir)
        elif arguments.command == "upgrade-data":
            kept = upgrade_data(arguments.data_dir, tell=_tell)
            print("The data are of this version already." if kept is None else f"Done. The old data are in {kept}.")
        elif arguments.command == "restore":
            restore_local(arguments.backup, arguments.data_dir, tell=_tell)
            print(
                f"Restored. Start it with ./run up --data-dir {arguments.data_dir}. Every project is paused until"
                " the books are reconciled: cope restored says what is missing."
            )
        else:
            from cope_local.demo import run_demo

            raise SystemExit(run_demo(arguments.problems))
    except CannotStart as wrong:
        sys.stderr.write(f"run: {wrong}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _tell(what: str) -> None:
    print(f"  {what}", file=sys.stderr, flush=True)


def _up(data_dir: Path, port: int | None, *, detach: bool) -> None:
    if detach:
        _detach(data_dir)
    stopping = False

    def on_signal(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, on_signal)
    stack = Stack(data_dir, port=port, tell=_tell)
    stack.start()
    signal.signal(signal.SIGINT, on_signal)
    print(f"COPE is ready at {stack.base_url}; keys and addresses are in {stack.data_dir / 'stack.json'}", flush=True)
    try:
        stack.run_until(lambda: stopping)
    finally:
        stack.stop()


def _detach(data_dir: Path) -> None:
    """Fork: the child goes on as the supervisor in a session of its own; the parent waits until it is ready."""
    running = running_supervisor(data_dir.resolve())
    if running is not None:
        raise CannotStart(f"A stack runs in {data_dir.resolve()} already (process {running}): ./run down stops it.")
    pid = os.fork()
    if pid == 0:
        os.setsid()
        data_dir.mkdir(parents=True, exist_ok=True)
        log = os.open(data_dir / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        return
    deadline = time.monotonic() + _DETACH_TIMEOUT_S
    while time.monotonic() < deadline:
        if _is_ready(data_dir, pid):
            print(f"COPE is ready; keys and addresses are in {(data_dir / 'stack.json').resolve()}")
            raise SystemExit(0)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            words = (data_dir / "supervisor.log").read_text(errors="replace").strip().splitlines()
            sys.stderr.write((words[-1] if words else "run: the stack did not start") + "\n")
            raise SystemExit(os.waitstatus_to_exitcode(status) or 2)
        time.sleep(0.1)
    raise CannotStart(f"The stack was not ready within {_DETACH_TIMEOUT_S:.0f} s: see {data_dir / 'supervisor.log'}.")


def _is_ready(data_dir: Path, pid: int) -> bool:
    """Whether that very supervisor has written `stack.json`: one killed with -9 leaves its own behind."""
    try:
        return bool(json.loads((data_dir / "stack.json").read_text())["pid"] == pid)
    except (OSError, ValueError, KeyError):
        return False


def _down(data_dir: Path) -> None:
    pid = running_supervisor(data_dir.resolve())
    if pid is None:
        print(f"No stack runs in {data_dir.resolve()}.")
        return
    os.kill(pid, signal.SIGTERM)
    tell_at = time.monotonic() + _DOWN_TELL_AFTER_S
    while running_supervisor(data_dir.resolve()) == pid:
        if time.monotonic() > tell_at:
            tell_at = float("inf")
            print("Waiting for paid calls under way to end: they are not cut. Ctrl-C leaves them to it.", flush=True)
        time.sleep(0.1)
    print("Stopped.")


if __name__ == "__main__":
    main()
