"""Where runs happen: a whole local stack whose servers and models are reached through links that can go wrong.

Postgres, the broker, the small model and the paid provider are processes of ours, so each can be killed, taken away
and brought back; the stack itself is the product's own, and starts its dead children again as it always does.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg
from openai import OpenAI
from ops.bench.faults.plan import LEASE_S, SWEEP_S
from ops.bench.faults.proxy import Proxies
from ops.bench.faults.rabbit import RabbitMQ
from tests.paid_api.process import PaidApi

from cope.adapters.postgres.migrate import create_roles
from cope_local.children import free_port, kill, spawn
from cope_local.layout import Secrets
from cope_local.postgres import EmbeddedPostgres
from cope_local.redis import EmbeddedRedis
from cope_local.stack import Child, Stack

_ROOT = Path(__file__).resolve().parents[3]
LARGE_TIMEOUT_S = 3.0
LARGE_CONCURRENCY = 12
WORKERS = ("worker-small", "worker-large", "worker-upkeep")
_MODELS = """
[[model]]
name = "campaign-small"
base_url = "http://127.0.0.1:{small}/v1"
tier = "small"
context_length = 32768
timeout_s = 4.0

[[model]]
name = "campaign-large"
base_url = "http://127.0.0.1:{large}/v1"
tier = "paid"
context_length = 32768
timeout_s = {timeout_s}
concurrency = {concurrency}
price_id = "gpt-4o-2024-08-06"
"""

_SHIFT = """
CREATE SCHEMA faults;
CREATE TABLE faults.shift (months int NOT NULL);
INSERT INTO faults.shift VALUES (0);
CREATE FUNCTION faults.to_char(timestamp, text) RETURNS text LANGUAGE sql STABLE AS
  $$ SELECT pg_catalog.to_char($1 + (SELECT months FROM faults.shift) * interval '1 month', $2) $$;
GRANT USAGE ON SCHEMA faults TO cope_api, cope_worker;
GRANT SELECT ON faults.shift TO cope_api, cope_worker;
ALTER ROLE cope_api IN DATABASE cope SET search_path = faults, public, pg_catalog;
ALTER ROLE cope_worker IN DATABASE cope SET search_path = faults, public, pg_catalog;
"""


class SmallModel:
    """The stand-in small model as a process."""

    def __init__(self, folder: Path, latency_s: str) -> None:
        self._log = folder / "small.log"
        self._latency_s = latency_s
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def start(self) -> None:
        """Returns when it serves."""
        command = [sys.executable, "-m", "ops.bench.faults.small_model", "--port", str(self.port)]
        command += ["--latency-s", self._latency_s]
        self._process = spawn(command, log=self._log, env=dict(os.environ), cwd=_ROOT)
        deadline = time.monotonic() + 30
        while b'{"port"' not in self._log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the small model did not start: {self._log.read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """At once."""
        if self._process is not None:
            kill(self._process)
            self._process = None


class Place:
    """Started whole, or not at all; `close` ends all of it. `broker` is redis, rabbitmq or none."""

    def __init__(self, folder: Path, broker: str, *, small_s: str = "0.05:0.25", large_s: str = "0.2:0.8") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        self.folder, self.broker = folder, broker
        self.points = folder / "points"
        self.points.write_text("")
        self.proxies = Proxies()
        self.provider = PaidApi(folder / "provider", latency_s=large_s, default_max_tokens=64)
        self.small = SmallModel(folder, small_s)
        self.postgres = EmbeddedPostgres(folder / "postgres", password="only-here")
        self.redis: EmbeddedRedis | RabbitMQ | None = None
        self.stack: Stack | None = None
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        self.postgres.start()
        self.small.start()
        self.provider.start()
        links = {"postgres": self.postgres.port, "small": self.small.port, "large": self.provider.port}
        if self.broker == "redis":
            self.redis = EmbeddedRedis(self.folder / "redis", password="only-here")
        elif self.broker == "rabbitmq":
            self.redis = RabbitMQ(self.folder / "rabbitmq")
        if self.redis is not None:
            self.redis.start()
            links["redis"] = self.redis.port
        ports = {name: self.proxies.add(name, port) for name, port in links.items()}
        models = self.folder / "models.toml"
        models.write_text(
            _MODELS.format(
                small=ports["small"], large=ports["large"], timeout_s=LARGE_TIMEOUT_S, concurrency=LARGE_CONCURRENCY
            )
        )
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COPE_")}
        environment |= {
            "DATABASE_URL": self.postgres.url().replace(f":{self.postgres.port}/", f":{ports['postgres']}/"),
            "COPE_BROKER_URL": self._broker_url(ports),
            "COPE_MODELS_FILE": str(models),
            "COPE_LARGE_CONCURRENCY": str(LARGE_CONCURRENCY),
            "COPE_LARGE_PROCESSES": "2",
            "COPE_LARGE_TIMEOUT_S": str(LARGE_TIMEOUT_S),
            "COPE_LEASE_S": str(LEASE_S),
            "COPE_SWEEP_S": str(SWEEP_S),
            "COPE_TESTING": "1",
            "COPE_FAULT_POINT": f"@{self.points}",
        }
        self.stack = Stack(self.folder / "stack", port=free_port(), environment=environment)
        self._let_months_be_shifted(self.stack.secrets)
        self.stack.start()

    def _let_months_be_shifted(self, secrets: Secrets) -> None:
        """Months are the database clock's: for its two roles `to_char` answers with another month when told to."""
        create_roles(
            self.postgres.url(),
            owner_password=secrets.owner,
            api_password=secrets.api,
            worker_password=secrets.worker,
        )
        with self.connect() as conn:
            conn.execute(_SHIFT)

    def _broker_url(self, ports: Mapping[str, int]) -> str:
        if self.redis is None:
            return f"redis://127.0.0.1:{free_port()}/0"  # where nobody listens
        return self.redis.url.replace(f":{self.redis.port}/", f":{ports['redis']}/")

    def close(self) -> None:
        """Everything down, without the courtesies that a real stop takes seconds for: nothing is needed any more."""
        if self.stack is not None:
            for name in ("flower", "api", *WORKERS):
                with contextlib.suppress(ProcessLookupError, KeyError):
                    pid = self.parent(name)
                    os.killpg(pid, signal.SIGKILL) if pid > 1 else None
            self.stack.stop()
        if self.redis is not None:
            self.redis.stop()
        self.postgres.stop()
        self.provider.stop()
        self.small.stop()
        self.proxies.close()

    # ---- looking after it ------------------------------------------------------------------------------------------

    @property
    def api_url(self) -> str:
        """The API's address for the openai client."""
        assert self.stack is not None
        return self.stack.base_url

    @property
    def database_url(self) -> str:
        """The database as its superuser, past the link."""
        return self.postgres.url("cope")

    def watch(self) -> None:
        """Start again what died by itself, as supervisors do; what a fault took away stays away until it ends."""
        assert self.stack is not None
        self.stack.watch()

    def children(self, name: str) -> list[int]:
        """The process ids below a worker's parent."""
        parent = self.parent(name)
        try:
            return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
        except OSError:
            return []

    def parent(self, name: str) -> int:
        """The process id of a part of the stack; 0 while it has none."""
        child = self.child(name)
        return child.pid or 0 if child.running else 0

    def child(self, name: str) -> Child:
        """A part of the stack: api, worker-small, worker-large, worker-upkeep."""
        assert self.stack is not None
        found = dict(self.stack._servers)[name]  # noqa: SLF001
        assert isinstance(found, Child)
        return found

    def set_environment(self, name: str, **values: str | None) -> None:
        """What the next start of that part gets; None removes."""
        environment = self.child(name)._env  # noqa: SLF001
        for key, value in values.items():
            if value is None:
                environment.pop(key, None)
            else:
                environment[key] = value

    def whole(self) -> bool:
        """Whether every part of it runs and each worker has all its children."""
        wanted = {"worker-small": 1, "worker-large": 2, "worker-upkeep": 1}
        return all(len(self.children(name)) >= count for name, count in wanted.items()) and self.answers()

    def answers(self) -> bool:
        """Whether the API is ready."""
        try:
            with urllib.request.urlopen(self.api_url.removesuffix("/v1") + "/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def until(self, so: Callable[[], bool], seconds: float) -> bool:
        """Look after everything until it is so; False after so long."""
        deadline = time.monotonic() + seconds
        while not so():
            if time.monotonic() > deadline:
                return False
            self.watch()
            time.sleep(0.05)
        return True

    # ---- orders ----------------------------------------------------------------------------------------------------

    def order_points(self, words: str) -> None:
        """What every process of the stack fails at from now on (`cope.adapters.fault_points`)."""
        part = self.points.with_suffix(".part")
        part.write_text(words)
        part.replace(self.points)

    def fired(self) -> list[tuple[str, int, float]]:
        """Each firing of a point: name, process, Unix time."""
        log = self.points.with_name(f"{self.points.name}.fired")
        lines = log.read_text().splitlines() if log.exists() else []
        return [(name, int(pid), float(at)) for name, pid, at in (line.split() for line in lines)]

    def admin(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> dict[str, Any]:
        """An operator's request. Raises `urllib.error.HTTPError` or `OSError`."""
        assert self.stack is not None
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {self.stack.secrets.admin_key}", "content-type": kind}
        request = urllib.request.Request(self.api_url + path, data=data, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def new_project(self, name: str) -> tuple[str, OpenAI]:
        """A project with a key of its own: its id, and a patient client."""
        project = self.admin("POST", "/organization/projects", {"name": name})
        key = self.admin("POST", f"/organization/projects/{project['id']}/service_accounts", {"name": "runner"})
        secret = key["api_key"]["value"]
        return project["id"], OpenAI(base_url=self.api_url, api_key=secret, max_retries=12, timeout=30)

    def connect(self) -> "psycopg.Connection[Any]":
        """A connection of the runner's own. Raises `psycopg.Error` while the server is away."""
        return psycopg.connect(self.database_url, autocommit=True, connect_timeout=2)
