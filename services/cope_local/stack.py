"""The whole service on one machine: servers, API, workers and Flower as children of this process.

Order up: Postgres, Redis, schema, reference models, API, workers, Flower; down in reverse. A child that dies is started
again on its old port. Everything is a child with the kernel's promise to end with us, so nothing is left behind even by
kill -9.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from cope.settings import Settings
from cope_local.children import spawn, stop
from cope_local.errors import CannotStart
from cope_local.layout import Ports, Secrets, load_ports, load_secrets, prepare, write_private
from cope_local.postgres import EmbeddedPostgres
from cope_local.postgres import find_binaries as find_postgres
from cope_local.redis import EmbeddedRedis
from cope_local.redis import find_binary as find_redis

REFERENCE_SMALL, REFERENCE_LARGE = "cope-reference-small", "cope-reference-large"
_READY_TIMEOUT_S = 90.0
_WORKER_GRACE_S = 20.0
_GRACE_S = 10.0
_CHECK_S = 0.25
_QUICK_DEATH_S = 5.0
_LONGEST_BACKOFF_S = 10.0


class _Server(Protocol):
    @property
    def running(self) -> bool: ...
    @property
    def pid(self) -> int | None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


class Child:
    """One Python process of the stack."""

    def __init__(self, name: str, module: list[str], env: Mapping[str, str], log: Path, *, grace_s: float) -> None:
        self.name = name
        self._command = [sys.executable, "-m", *module]
        self._env = dict(env)
        self._log = log
        self._grace_s = grace_s
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Its process id."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it; a worker's children of its own die with it too."""
        self._process = spawn(self._command, log=self._log, env=self._env, death_signal=signal.SIGTERM)

    def stop(self) -> None:
        """Ask it to end, and wait."""
        if self._process is not None:
            stop(self._process, signal.SIGTERM, self._grace_s)
            self._process = None

    def last_words(self) -> str:
        """The last line it wrote."""
        lines = self._log.read_text(errors="replace").strip().splitlines() if self._log.exists() else []
        return lines[-1] if lines else "no message"


class Stack:
    """Start with `start`, then call `watch` until it is time to `stop`."""

    def __init__(
        self, data_dir: Path, *, port: int | None = None, environment: Mapping[str, str] | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.data_dir = data_dir.resolve()
        self._environment = dict(os.environ if environment is None else environment)
        self._tell = tell
        prepare(self.data_dir)
        self._lock: int | None = None
        self._claim_directory()
        self.secrets: Secrets = load_secrets(self.data_dir)
        self.ports: Ports = load_ports(self.data_dir, port)
        self._servers: list[tuple[str, _Server]] = []
        self._started: dict[str, float] = {}
        self._deaths: dict[str, int] = {}
        self._due: dict[str, float] = {}

    # ---- addresses -------------------------------------------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """The API's address, as the openai client wants it."""
        return f"http://127.0.0.1:{self.ports.api}/v1"

    def description(self) -> dict[str, object]:
        """What `stack.json` says."""
        return {
            "base_url": self.base_url,
            "api_key": self.secrets.api_key,
            "admin_key": self.secrets.admin_key,
            "webhook_secret": self.secrets.webhook_secret,
            "flower_url": f"http://cope:{self.secrets.flower}@127.0.0.1:{self.ports.flower}",
            "postgres_url": self._owner_url(),
            "superuser_url": self._superuser_url(),
            "pid": os.getpid(),
            "started_at": process_start(os.getpid()),
            "pids": {name: server.pid for name, server in self._servers},
            "ports": asdict(self.ports),
        }

    # ---- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Everything up and ready, `stack.json` written. Raises `CannotStart`; then nothing is left running."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        env = self._settings()
        self._start_databases(env)
        self._tell("schema")
        self._migrate(env)
        logs = self.data_dir / "logs"
        if self._uses_reference():
            for name, served, port in (
                ("reference-small", REFERENCE_SMALL, self.ports.small),
                ("reference-large", REFERENCE_LARGE, self.ports.large),
            ):
                folder = weights_folder() / name.removeprefix("reference-")
                module = ["cope_reference", "--model", f"{served}={folder}", "--port", str(port)]
                self._add(name, module, env, logs)
        self._add("api", ["cope_api"], env, logs)
        for name, queues in (("small", "small"), ("large", "large"), ("upkeep", "upkeep,webhooks")):
            processes = env.get("COPE_LARGE_PROCESSES", "1") if name == "large" else "1"
            module = ["cope_worker", "--queues", queues, "--processes", processes]
            self._add(f"worker-{name}", module, env, logs, grace_s=_worker_grace_s(env))
        flower = [
            "celery", "-A", "cope_worker.app", "flower", "--address=127.0.0.1", f"--port={self.ports.flower}",
            "--logging=warning",
        ]  # fmt: skip
        self._add("flower", flower, {**env, "FLOWER_BASIC_AUTH": f"cope:{self.secrets.flower}"}, logs)
        if self._uses_reference():
            self._await(f"http://127.0.0.1:{self.ports.small}/health", "reference-small")
            self._await(f"http://127.0.0.1:{self.ports.large}/health", "reference-large")
        self._await(f"http://127.0.0.1:{self.ports.api}/ready", "api")
        write_private(self.data_dir / "stack.json", self.description())

    def _start_databases(self, env: dict[str, str]) -> None:
        embedded_only = self._environment.get("COPE_EMBEDDED_ONLY") == "1"
        if "DATABASE_URL" not in self._environment:
            self._tell("postgres")
            server = EmbeddedPostgres(
                self.data_dir / "postgres",
                password=self.secrets.postgres,
                port=self.ports.postgres,
                binaries=find_postgres(embedded_only=embedded_only),
            )
            server.start()
            self._servers.append(("postgres", server))
            env["_COPE_SUPERUSER_URL"] = server.url()
        if "COPE_BROKER_URL" not in self._environment:
            self._tell("redis")
            redis = EmbeddedRedis(
                self.data_dir / "redis",
                password=self.secrets.redis,
                port=self.ports.redis,
                binary=find_redis(embedded_only=embedded_only),
            )
            redis.start()
            self._servers.append(("redis", redis))

    def _migrate(self, env: dict[str, str]) -> None:
        from cope.adapters.postgres.migrate import create_roles, upgrade

        superuser = env.pop("_COPE_SUPERUSER_URL", None) or self._environment["DATABASE_URL"]
        try:
            create_roles(
                superuser,
                owner_password=self.secrets.owner,
                api_password=self.secrets.api,
                worker_password=self.secrets.worker,
            )
            upgrade(self._owner_url())
        except Exception as wrong:
            raise CannotStart(f"The schema can't be made: {str(wrong).strip().splitlines()[0]}") from wrong

    def _add(
        self, name: str, module: list[str], env: Mapping[str, str], logs: Path, *, grace_s: float = _GRACE_S
    ) -> None:
        self._tell(name)
        child = Child(name, module, env, logs / f"{name}.log", grace_s=grace_s)
        child.start()
        self._started[name] = time.monotonic()
        self._servers.append((name, child))

    def _await(self, url: str, name: str) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        child = dict(self._servers)[name]
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own http address
                if answer.status == 200:
                    return
            if not child.running:
                words = child.last_words() if isinstance(child, Child) else ""
                raise CannotStart(f"{name} ended at once: {words}")
            time.sleep(0.1)
        raise CannotStart(f"{name} was not ready within {_READY_TIMEOUT_S:.0f} s: see {self.data_dir / 'logs'}.")

    def watch(self) -> None:
        """Look once after every child: one that died is started again, sooner the longer it had lived."""
        now = time.monotonic()
        for name, server in self._servers:
            if server.running:
                continue
            if name not in self._due:
                lived = now - self._started.get(name, 0.0)
                self._deaths[name] = self._deaths.get(name, 0) + 1 if lived < _QUICK_DEATH_S else 0
                self._due[name] = now + min(_LONGEST_BACKOFF_S, 0.25 * 2 ** self._deaths[name])
                self._tell(f"{name} died: starting it again")
            if now >= self._due[name]:
                del self._due[name]
                self._started[name] = now
                with contextlib.suppress(CannotStart):
                    server.start()
                write_private(self.data_dir / "stack.json", self.description())

    def run_until(self, stopping: Callable[[], bool]) -> None:
        """Watch until `stopping()` is true."""
        while not stopping():
            self.watch()
            time.sleep(_CHECK_S)

    def stop(self) -> None:
        """Everything down, in reverse: workers finish their paid calls, Postgres last."""
        for _, server in reversed(self._servers):
            server.stop()
        self._servers.clear()
        (self.data_dir / "stack.json").unlink(missing_ok=True)
        (self.data_dir / "supervisor.json").unlink(missing_ok=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # ---- settings --------------------------------------------------------------------------------------------------

    def _uses_reference(self) -> bool:
        given = self._environment
        if given.get("COPE_MODELS_FILE"):
            return False
        small, large = given.get("COPE_SMALL_BASE_URL"), given.get("COPE_LARGE_BASE_URL")
        if bool(small) != bool(large) and given.get("COPE_ALLOW_REFERENCE") != "1":
            missing = "COPE_LARGE_BASE_URL" if small else "COPE_SMALL_BASE_URL"
            raise CannotStart(
                f"{missing} is not set: set it, or COPE_ALLOW_REFERENCE=1 to let a toy model take that place."
            )
        return not (small and large)

    def _settings(self) -> dict[str, str]:
        s, p, given = self.secrets, self.ports, self._environment
        env = {
            **given,
            "COPE_API_DATABASE_URL": self._database_url("cope_api", s.api),
            "COPE_WORKER_DATABASE_URL": self._database_url("cope_worker", s.worker),
            "COPE_BROKER_URL": given.get("COPE_BROKER_URL", f"redis://:{s.redis}@127.0.0.1:{p.redis}/0"),
            "COPE_SECRET_KEY": s.secret_key,
            "COPE_DATA_DIR": str(self.data_dir / "files"),
            "COPE_API_HOST": "127.0.0.1",
            "COPE_API_PORT": str(p.api),
            "COPE_ADMIN_KEY": s.admin_key,
            "COPE_BOOTSTRAP_API_KEY": s.api_key,
            "COPE_BOOTSTRAP_WEBHOOK_SECRET": s.webhook_secret,
            "COPE_WEBHOOK_ALLOW": given.get("COPE_WEBHOOK_ALLOW", "127.0.0.0/8,localhost"),
            "PYTHONUNBUFFERED": "1",
        }
        if self._uses_reference():
            for side, name, port in (("SMALL", REFERENCE_SMALL, p.small), ("LARGE", REFERENCE_LARGE, p.large)):
                if given.get(f"COPE_{side}_BASE_URL"):
                    continue
                env |= {
                    f"COPE_{side}_BASE_URL": f"http://127.0.0.1:{port}/v1",
                    f"COPE_{side}_MODEL": name,
                    f"COPE_{side}_API_KEY": "none",
                    f"COPE_{side}_PROMPT_SET": "reference",
                    f"COPE_{side}_CONTEXT": "1024",
                }
            env.setdefault("COPE_LARGE_PRICE", "gpt-4o-2024-08-06")
            env.setdefault("COPE_SMALL_ABORT", "rid")
            env.setdefault("COPE_SMALL_LOGPROBS", "original")
        return env

    def _superuser_url(self) -> str:
        given = self._environment.get("DATABASE_URL")
        return given or f"postgresql://postgres:{self.secrets.postgres}@127.0.0.1:{self.ports.postgres}/postgres"

    def _owner_url(self) -> str:
        return self._database_url("cope_owner", self.secrets.owner)

    def _database_url(self, role: str, password: str) -> str:
        given = self._environment.get("DATABASE_URL")
        if given is None:
            return f"postgresql://{role}:{password}@127.0.0.1:{self.ports.postgres}/cope"
        from urllib.parse import urlsplit, urlunsplit

        parts = urlsplit(given)
        host = f"{parts.hostname}:{parts.port or 5432}"
        return urlunsplit(("postgresql", f"{role}:{password}@{host}", "/cope", parts.query, ""))

    def _claim_directory(self) -> None:
        # The lock decides between two that start at once and ends with this process; the file tells `down` whom to ask.
        lock = os.open(self.data_dir / "supervisor.lock", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            running = running_supervisor(self.data_dir) or "starting"
            raise CannotStart(
                f"A stack runs in {self.data_dir} already (process {running}): ./run down stops it."
            ) from None
        self._lock = lock
        write_private(self.data_dir / "supervisor.json", {"pid": os.getpid(), "started_at": process_start(os.getpid())})


def _worker_grace_s(env: Mapping[str, str]) -> float:
    """How long a worker may take to end: a paid call under way is finished, not cut."""
    try:
        return (
            float(env.get("COPE_LARGE_TIMEOUT_S") or Settings.model_fields["large_timeout_s"].default) + _WORKER_GRACE_S
        )
    except ValueError:
        return _WORKER_GRACE_S


def weights_folder() -> Path:
    """Where the reference pair's weights lie: in the repository."""
    return Path(__file__).resolve().parents[2] / "ops" / "reference_pair" / "weights"


def process_start(pid: int) -> str:
    """When a process started, in the kernel's own units: with its id it names one process for good."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def running_supervisor(data_dir: Path) -> int | None:
    """The process that runs the stack of this directory, or None. A recycled process id does not count."""
    import json

    try:
        noted = json.loads((data_dir / "supervisor.json").read_text())
    except (OSError, ValueError):
        return None
    started = process_start(int(noted["pid"]))
    return int(noted["pid"]) if started and started == noted["started_at"] else None
