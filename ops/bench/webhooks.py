"""Webhooks a second beside a bare loop to the same sink: ``python ops/bench/webhooks.py [--rounds 5]``.

Each round sends as many messages of one endpoint to a sink in a process of its own that fails, stalls and heals
(`tests/faults/webhook_sink.py`: after a fifth of them a fifth is refused with 500, then 32 stall until the sender gives
up), and again to one that is well: by our courier out of Postgres, and by a bare loop, in turns. The loop holds its
messages in memory, keeps no books, and does otherwise what any sender must that checks every address it connects to:
signs each message, looks the name up and makes a connection for each, has the endpoint's 16 under way, waits as the
schedule says. ``keep`` is the same loop with connections kept open, which such a sender can't have.

Retries come after 0.25, 1, 2, 4 … seconds instead of the published ones, the time-out is 1 s. The clock runs from the
commit of the messages to the moment when the last is recorded as delivered. Prints JSON.
"""

import argparse
import asyncio
import contextlib
import ipaddress
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
from cryptography.fernet import Fernet

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults.webhook_sink import Plan

from cope.adapters.http_webhooks import HttpWebhookSender
from cope.adapters.postgres import PostgresApiStore, PostgresWorkerStore
from cope.adapters.postgres.migrate import API, OWNER, WORKER, create_roles, upgrade
from cope.adapters.public_addresses import OwnThreads
from cope.adapters.system import SystemClock, SystemIds
from cope.core.ids import DELIVERY, ENDPOINT, EVENT, PROJECT, EndpointId, ProjectId
from cope.core.records import Project, WebhookEndpoint
from cope.core.webhooks import make_secret, message_body, retry_in_s, signed_headers
from cope.usecases.deliver_webhooks import Courier
from cope_local.postgres import EmbeddedPostgres

PASSWORD = "only-here"
TIMEOUT_S = 1.0
CONCURRENCY = 16
SCHEDULE = (0.25, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
IDS = SystemIds()


@dataclass(frozen=True)
class Parts:
    store: PostgresWorkerStore
    webhooks: HttpWebhookSender
    clock: SystemClock
    ids: SystemIds


@dataclass(frozen=True)
class Message:
    id: str
    body: str


def messages(count: int) -> list[Message]:
    """As the end of a batch makes them."""
    made = []
    for _ in range(count):
        event = IDS.new(EVENT)
        body = message_body(event_id=event, type_="batch.completed", created_at=1, about=f"batch_{event}", data={})
        made.append(Message(event, body))
    return made


# ---- the bare loop -------------------------------------------------------------------------------------------------


async def bare(url: str, secret: str, todo: list[Message], *, keep: bool) -> float:
    """Seconds until all are taken."""
    waiting: asyncio.Queue[tuple[Message, int]] = asyncio.Queue()
    left, done = len(todo), asyncio.Event()
    loop = asyncio.get_running_loop()
    connector = aiohttp.TCPConnector(force_close=not keep, use_dns_cache=keep)
    session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))

    async def worker() -> None:
        nonlocal left
        while True:
            message, attempt = await waiting.get()
            body = message.body.encode()
            headers = signed_headers((secret,), message_id=message.id, timestamp=int(time.time()), body=body)
            status = 0
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with session.post(url, data=body, headers=dict(headers), allow_redirects=False) as reply:
                    await reply.content.read(1024)
                    status = reply.status
            if 200 <= status < 300:
                left -= 1
                if not left:
                    done.set()
                continue
            wait_s = retry_in_s(attempt, retry_after_s=None, jitter=IDS.jitter(), schedule=SCHEDULE)
            assert wait_s is not None, "the schedule is over"
            loop.call_later(wait_s, waiting.put_nowait, (message, attempt + 1))

    began = time.perf_counter()
    for message in todo:
        waiting.put_nowait((message, 1))
    workers = [asyncio.create_task(worker()) for _ in range(CONCURRENCY)]
    await done.wait()
    took_s = time.perf_counter() - began
    for one in workers:
        one.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    await session.close()
    return took_s


# ---- ours ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    api: PostgresApiStore
    worker: PostgresWorkerStore
    superuser: str


async def ours(place: Place, url: str, secret: str, todo: list[Message]) -> float:
    """Seconds from the commit of the messages until the last is recorded."""
    project = Project(ProjectId(IDS.new(PROJECT)), "bench", SystemClock().now(), "UTC", None, "math", paused=False)
    await place.api.create_project(project, secret)
    now = SystemClock().now()
    endpoint = WebhookEndpoint(
        EndpointId(IDS.new(ENDPOINT)), project.id, "bench", url, ("batch.completed",), now, now, secret
    )
    await place.api.create_endpoint(endpoint)
    networks = (ipaddress.ip_network("127.0.0.0/8"),)
    names = OwnThreads()
    sender = HttpWebhookSender(networks=networks, timeout_s=TIMEOUT_S, look_up=names)
    parts = Parts(place.worker, sender, SystemClock(), IDS)
    courier = Courier(parts, timeout_s=TIMEOUT_S, schedule=SCHEDULE)  # type: ignore[arg-type]
    stop = False
    running = asyncio.create_task(courier.run(lambda: stop))
    async with await psycopg.AsyncConnection.connect(place.superuser, autocommit=True) as conn:
        rows = [(IDS.new(DELIVERY), project.id, one.id, endpoint.id, url, one.body) for one in todo]
        columns = [list(column) for column in zip(*rows, strict=True)]
        began = time.perf_counter()
        await conn.execute(
            "INSERT INTO deliveries (id, project_id, event_id, endpoint_id, url, body)"
            " SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])",
            columns,
        )
        courier.poke()
        waiting = "SELECT EXISTS (SELECT FROM deliveries WHERE lane = %s AND state = 'pending')"
        while True:
            found = await (await conn.execute(waiting, [endpoint.id])).fetchone()
            if found is None or not found[0]:
                break
            await asyncio.sleep(0.02)
        took_s = time.perf_counter() - began
    stop = True
    await running
    await sender.aclose()
    names.close()
    return took_s


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[Place]:
    """A database with its usual durability."""
    with tempfile.TemporaryDirectory(prefix="cope-bench-") as folder:
        os.chmod(folder, 0o755)  # the server runs as somebody else
        with EmbeddedPostgres(Path(folder) / "postgres", password=PASSWORD) as server:
            create_roles(
                server.url(), owner_password=PASSWORD, api_password=PASSWORD, worker_password=PASSWORD, database="cope"
            )
            upgrade(server.url("cope", OWNER, PASSWORD))
            key = Fernet.generate_key().decode()
            api = PostgresApiStore(server.url("cope", API, PASSWORD), secret_key=key)
            worker = PostgresWorkerStore(server.url("cope", WORKER, PASSWORD), secret_key=key)
            await api.open()
            await worker.open()
            yield Place(api, worker, server.url("cope"))
            await worker.aclose()
            await api.aclose()


async def books(url: str) -> dict[str, Any]:
    """The sink's."""
    async with aiohttp.ClientSession() as session, session.get(url) as reply:
        found: dict[str, Any] = json.loads(await reply.read())
        return found


async def begin(url: str, plan: Plan) -> None:
    """New books."""
    async with aiohttp.ClientSession() as session, session.post(url.replace("/hook", "/plan"), json=asdict(plan)):
        pass


async def main() -> None:
    """Rounds in turns, in an order drawn anew each time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stalls", type=int, default=32)
    told = parser.parse_args()
    drawn, secret = random.Random(told.seed), make_secret(bytes(32))
    sink = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
        [sys.executable, "-m", "tests.faults.webhook_sink"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert sink.stdout is not None
    url = sink.stdout.readline().strip()
    fifth = told.messages // 5
    plans = {"sick": Plan(well=fifth, fails=fifth, stalls=told.stalls, takes_s=0.005), "well": Plan(takes_s=0.005)}
    rounds: list[dict[str, Any]] = []
    load = [os.getloadavg()[0]]
    async with opened() as place:
        for nth in range(told.rounds):
            for name, plan in plans.items():
                order = ["ours", "bare", "keep"]
                drawn.shuffle(order)
                one: dict[str, Any] = {"round": nth, "sink": name}
                for how in order:
                    await begin(url, plan)
                    todo = messages(told.messages)
                    took_s = (
                        await ours(place, url, secret, todo)
                        if how == "ours"
                        else await bare(url, secret, todo, keep=how == "keep")
                    )
                    seen = await books(url)
                    assert seen["taken"] == told.messages, seen
                    assert not seen["odd"], seen
                    one[how] = {"s": round(took_s, 3), "per_s": round(told.messages / took_s, 1), **seen}
                one["ratio"] = round(one["bare"]["s"] / one["ours"]["s"], 3)
                rounds.append(one)
                load.append(os.getloadavg()[0])
    assert sink.stdin is not None
    sink.stdin.close()
    sink.wait(10)
    summary = {}
    for name in plans:
        mine = [one for one in rounds if one["sink"] == name]
        summary[name] = {
            **{
                f"{how}_per_s": statistics.median(one[how]["per_s"] for one in mine) for how in ("ours", "bare", "keep")
            },
            "ratio": statistics.median(one["ratio"] for one in mine),
            "ratios": sorted(one["ratio"] for one in mine),
            "taken_again": sum(one["ours"]["taken_again"] for one in mine),
            "most_under_way": max(one["ours"]["most_under_way"] for one in mine),
        }
    print(json.dumps({"messages": told.messages, "load": [min(load), max(load)], "median": summary, "rounds": rounds}))


if __name__ == "__main__":
    asyncio.run(main())
