"""Readers of the event log, the API and a worker (sequencer and relay in it) killed at random: nothing is missed.

The long form, over a whole stack with its models, Redis and database, is `python -m ops.campaigns.events`.
"""

import asyncio
import contextlib
import os
import random
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from cryptography.fernet import Fernet
from ops.campaigns.event_check import Comparison, MockKafka, Readers, Seen, all_read

from cope.adapters.postgres import PostgresApiStore
from cope.adapters.postgres.migrate import upgrade
from cope.core.ids import FileId, ProjectId
from cope.ports.store import NewBatch
from cope_local.children import free_port
from cope_local.postgres import EmbeddedPostgres
from tests.postgres.conftest import Place, drop_place, make_place
from tests.support import make_batch, make_file

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

_KEY, _TOPIC = "cope-sk-of-the-event-faults", "cope.events"


class Servers:
    """The API and a worker, as processes that are started again when they are killed."""

    def __init__(self, place: Place, kafka: str, seen: Seen, logs: Path) -> None:
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self.secret_key = Fernet.generate_key().decode()
        self.seen, self.logs = seen, logs
        kept = {name: value for name, value in os.environ.items() if not name.startswith("COPE_")}
        models = {
            f"COPE_{side}_{name}": value
            for side in ("SMALL", "LARGE")
            for name, value in (("BASE_URL", "http://127.0.0.1:9/v1"), ("MODEL", side.lower()), ("API_KEY", "none"))
        }
        self.environment = kept | models | {
            "COPE_LARGE_PRICE": "gpt-4o-2024-08-06",
            "COPE_API_DATABASE_URL": place.api,
            "COPE_WORKER_DATABASE_URL": place.worker,
            "COPE_SECRET_KEY": self.secret_key,
            "COPE_BOOTSTRAP_API_KEY": _KEY,
            "COPE_DEFAULT_CAP_USD": "unlimited",
            "COPE_API_PORT": str(self.port),
            "COPE_KAFKA_BOOTSTRAP": kafka,
            "COPE_KAFKA_TOPIC": _TOPIC,
        }  # fmt: skip
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.watch()

    def watch(self) -> None:
        for name, module in (("api", "cope_api"), ("worker", "tests.faults.event_worker")):
            process = self.running.get(name)
            if process is None or process.poll() is not None:
                with (self.logs / f"{name}.log").open("ab") as log:
                    self.running[name] = subprocess.Popen(
                        [sys.executable, "-m", module], env=self.environment, stdout=log, stderr=log
                    )

    def kill(self, name: str) -> None:
        self.running[name].kill()
        self.running[name].wait()
        self.seen.kills[name] += 1

    def close(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()

    def answers(self, method: str = "GET", path: str = "/events?limit=1") -> bool:
        request = urllib.request.Request(self.base_url + path, method=method)
        request.add_header("authorization", f"Bearer {_KEY}")
        with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(request, timeout=5):
            return True
        return False


@pytest.fixture
def place(postgres_cluster: EmbeddedPostgres) -> Iterator[Place]:
    made = make_place(postgres_cluster, "cope_event_faults")
    upgrade(made.owner)
    yield made
    drop_place(postgres_cluster, "cope_event_faults")


def submit(place: Place, secret_key: str, *counts: int) -> list[str]:
    """Batches of so many lines in the one project there is."""

    async def create() -> list[str]:
        store = PostgresApiStore(place.api, secret_key=secret_key)
        await store.open()
        with psycopg.connect(place.superuser) as conn:
            (project_id,) = conn.execute("SELECT id FROM projects").fetchone() or ("",)
        made = []
        for count in counts:
            named = make_file(ProjectId(project_id))
            file = await store.create_file(replace(named, id=FileId(f"{named.id}-{count}")))
            batch = make_batch(ProjectId(project_id), file.id, created_at=file.created_at)
            made.append((await store.create_batch(NewBatch(batch, batch.id.encode(), None, retry=0))).id)
        await store.aclose()
        return made

    return asyncio.run(create())


def until(what: str, so: Callable[[], bool], servers: Servers, readers: Readers | None, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s until {what}"
        servers.watch()
        if readers is not None:
            readers.watch()
        time.sleep(0.05)


def at_rest(place: Place, batches: int) -> bool:
    with psycopg.connect(place.superuser) as conn:
        states = [status for (status,) in conn.execute("SELECT status FROM batches").fetchall()]
    return len(states) == batches and set(states) <= {"completed", "cancelled"}


def test_under_kills_every_reader_and_kafka_see_each_event_in_its_turn_and_the_log_tells_what_the_tables_hold(
    place: Place, scratch: Path
) -> None:
    folder = scratch / "event-faults"
    folder.mkdir()
    rng, seen, kafka = random.Random(11), Seen(11), MockKafka()
    servers = Servers(place, kafka.bootstrap, seen, folder)
    readers = Readers(folder, servers.base_url, _KEY, seen, rng)

    def read_on(goal: int) -> None:
        """Both readers have come so far. There is always work."""

        def so() -> bool:
            if all_read(place.superuser, readers):
                batches.extend(submit(place, servers.secret_key, 30))
            return min(readers.read().values()) >= goal

        until(f"both have read up to {goal}", so, servers, readers)

    try:
        until("the API answers", servers.answers, servers, None)
        batches = submit(place, servers.secret_key, 20, 60)
        victims = ["group", "stream"] * 3 + ["worker", "group", "api", "stream", "group", "stream"]
        for number, victim in enumerate(victims):
            read_on(max(readers.read().values()) + rng.randint(5, 40))
            if number == 4:
                batches += submit(place, servers.secret_key, 200)
                cancel = f"/batches/{batches[-1]}/cancel"
                until("it is cancelled", lambda cancel=cancel: servers.answers("POST", cancel), servers, readers)
            (servers if victim in servers.running else readers).kill(victim)
        until("all have ended", lambda: at_rest(place, len(batches)), servers, readers)
        until("all is read", lambda: all_read(place.superuser, readers), servers, readers)
        Comparison(seen, place.superuser, folder).run(kafka=kafka.bootstrap, topic=_TOPIC)
    finally:
        readers.close()
        servers.close()
        kafka.close()

    assert seen.problems == []
    assert (seen.kills["worker"], seen.kills["api"]) == (1, 1)
    assert (seen.kills["group"], seen.kills["stream"]) == (5, 5)
    assert seen.events > 400
    assert seen.by_group == seen.by_stream == seen.by_kafka == seen.events
