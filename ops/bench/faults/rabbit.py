"""A RabbitMQ of our own, where the machine has one (Debian: apt install rabbitmq-server). Never needed in CI."""

import os
import socket
import subprocess
import time
from pathlib import Path

from cope_local.children import free_port, kill, spawn, stop

_START_S = 90.0


def find_rabbitmq() -> Path | None:
    """The server's program, None where there is none. (The one on PATH would change to a user of its own.)"""
    program = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    return program if program.exists() else None


class RabbitMQ:
    """One node over one folder, on loopback. As the bundled Redis: start, stop, kill9, and its address."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.port = free_port()
        self._distribution = free_port()
        self._names = free_port()  # a name server of its own, which can be ended without harm to anybody's
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """An ``amqp://`` address."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def running(self) -> bool:
        """Whether it is alive."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Returns when it takes connections. Raises `RuntimeError`."""
        program = find_rabbitmq()
        if program is None:
            raise RuntimeError("RabbitMQ is not installed here: apt install rabbitmq-server, or --broker redis")
        config = self._folder / "rabbitmq.conf"
        config.write_text(f"listeners.tcp.local = 127.0.0.1:{self.port}\nloopback_users.guest = true\n")
        environment = {
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            "HOME": str(self._folder),
            "RABBITMQ_NODENAME": f"faults{self.port}@localhost",
            "RABBITMQ_CONFIG_FILE": str(config.with_suffix("")),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._names),
        }
        self._process = spawn([str(program)], log=self._folder / "rabbitmq.log", env=environment)
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"RabbitMQ ended at once: see {self._folder}")
            if self._greets():
                return
            time.sleep(0.1)
        raise RuntimeError(f"RabbitMQ did not answer within {_START_S:.0f} s: see {self._folder}")

    def _greets(self) -> bool:
        """Whether it answers the protocol's first bytes: an open port alone comes too early."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                probe.sendall(b"AMQP\x00\x00\x09\x01")
                return probe.recv(1) == b"\x01"
        except OSError:
            return False

    def stop(self) -> None:
        """In order."""
        if self._process is not None:
            stop(self._process, 15, 30)
            self._process = None
        self._end_names()

    def kill9(self) -> None:
        """As a crash would."""
        if self._process is not None:
            kill(self._process)
            self._process = None
        self._end_names()

    def _end_names(self) -> None:
        """Erlang's name server is a daemon that outlives its node."""
        for program in sorted(Path("/usr/lib/erlang").glob("erts-*/bin/epmd")):
            command = [str(program), "-port", str(self._names), "-kill"]
            subprocess.run(command, check=False, capture_output=True, timeout=10)
