"""Webhooks out of real Postgres: nobody starves, no endpoint gets more at once than it takes, nothing is lost."""

import asyncio
import contextlib
import ipaddress
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import psycopg
import pytest
from cryptography.fernet import Fernet

from cope.adapters.http_webhooks import HttpWebhookSender
from cope.adapters.postgres import PostgresApiStore, PostgresWorkerStore
from cope.adapters.system import SystemClock, SystemIds
from cope.core.deliveries import DeliveryFilter, DeliveryState
from cope.core.records import Delivery, Project, WebhookEndpoint
from cope.core.webhook_lanes import LaneClass, LaneRoom
from cope.usecases.deliver_webhooks import Courier
from tests.faults.webhook_sink import Plan, Sink
from tests.postgres.conftest import Place, _empty
from tests.support import make_endpoint, make_project

pytestmark = pytest.mark.integration
SECRET = "whsec_dGVzdHMtc2lnbi10aGVpci13ZWJob29rcw=="
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@dataclass
class Two:
    """Two processes' stores over one database."""

    api: PostgresApiStore
    workers: tuple[PostgresWorkerStore, PostgresWorkerStore]
    place: Place

    async def project(self, url: str, *, endpoints: int = 1) -> tuple[Project, list[WebhookEndpoint]]:
        """With endpoints at this address."""
        project = await self.api.create_project(make_project(), SECRET)
        made = [
            await self.api.create_endpoint(make_endpoint(project.id, url=url, secret=SECRET)) for _ in range(endpoints)
        ]
        return project, made

    def messages(self, project: Project, endpoints: Sequence[WebhookEndpoint], each: int) -> None:
        """So many for each endpoint, due since a while, those of the first endpoints for longest."""
        with psycopg.connect(self.place.superuser) as conn:
            conn.execute(
                """
                INSERT INTO deliveries (id, project_id, event_id, endpoint_id, url, body, due_at)
                SELECT 'whd_' || e.id || lpad(n::text, 7, '0'), %s, 'evt_' || e.id || n, e.id, e.url,
                  '{"id":"evt_' || e.id || n || '","type":"batch.completed"}', now() - interval '1 hour' + e.place
                FROM (SELECT id, url, row_number() OVER (ORDER BY id) * interval '1 ms' AS place FROM webhook_endpoints
                      WHERE id = ANY (%s)) e CROSS JOIN generate_series(1, %s) n
                """,
                [project.id, [one.id for one in endpoints], each],
            )


@pytest.fixture
async def two(place: Place) -> AsyncIterator[Two]:
    _empty(place)
    secret_key = Fernet.generate_key().decode()
    api = PostgresApiStore(place.api, secret_key=secret_key)
    first, second = (PostgresWorkerStore(place.worker, secret_key=secret_key) for _ in range(2))
    async with contextlib.AsyncExitStack() as stack:
        for store in (api, first, second):
            stack.push_async_callback(store.aclose)
            await store.open()
        yield Two(api, (first, second), place)


async def test_behind_a_backlog_of_one_endpoint_everybody_else_is_served_at_once(two: Two) -> None:
    project, endpoints = await two.project("https://a.example.com/", endpoints=41)
    two.messages(project, endpoints[:1], 3_000)
    two.messages(project, endpoints[1:], 1)
    worker, served = two.workers[0], Counter[str]()

    for _ in range(3):
        served.update(one.lane for one in await worker.claim_deliveries(limit=30, lease_s=60))

    assert {one.id for one in endpoints} == set(served)
    assert served[endpoints[0].id] <= 16


async def test_lanes_that_are_full_or_left_alone_do_not_hide_the_others(two: Two) -> None:
    project, endpoints = await two.project("https://a.example.com/", endpoints=40)
    two.messages(project, endpoints, 20)
    room = LaneRoom({LaneClass.NEW: 1000})
    with psycopg.connect(two.place.superuser) as conn:
        conn.execute("UPDATE webhook_endpoints SET concurrency = 1")
        conn.execute(
            "INSERT INTO webhook_troubles SELECT id, project_id, 1, now(), now(), now() + interval '1 hour'"
            " FROM webhook_endpoints WHERE id = ANY (%s)",
            [[one.id for one in endpoints[10:20]]],
        )
    full = await two.workers[0].claim_deliveries(limit=10, lease_s=60, room=room)

    rest = [one for _ in range(5) for one in await two.workers[0].claim_deliveries(limit=10, lease_s=60, room=room)]

    assert {one.lane for one in full} == {one.id for one in endpoints[:10]}
    assert sorted(one.lane for one in rest) == sorted(one.id for one in endpoints[20:])


async def test_an_endpoints_concurrency_holds_over_all_processes_at_once(two: Two) -> None:
    project, endpoints = await two.project("https://a.example.com/", endpoints=3)
    two.messages(project, endpoints, 100)

    claims = await asyncio.gather(*(two.workers[n % 2].claim_deliveries(limit=100, lease_s=60) for n in range(12)))
    claims += [await two.workers[0].claim_deliveries(limit=100, lease_s=60)]

    under_way: list[Delivery] = [one for claim in claims for one in claim]
    assert Counter(one.lane for one in under_way) == {one.id: 16 for one in endpoints}
    assert len({one.id for one in under_way}) == len(under_way)


async def test_a_lane_of_which_one_process_has_something_in_hand_is_left_to_it(two: Two) -> None:
    project, (endpoint,) = await two.project("https://a.example.com/")
    two.messages(project, [endpoint], 50)
    good = LaneRoom({LaneClass.GOOD: 100}, {endpoint.id: True})

    mine = await two.workers[0].claim_deliveries(limit=20, lease_s=60, room=good)
    theirs = await two.workers[1].claim_deliveries(limit=20, lease_s=60, room=good)
    more = await two.workers[0].claim_deliveries(limit=20, lease_s=60, room=good)

    assert (len(mine), theirs, len(more)) == (20, [], 20)
    assert {one.concurrency for one in mine} == {16}


async def test_a_secret_that_can_not_be_opened_keeps_nobody_elses_messages(
    two: Two, caplog: pytest.LogCaptureFixture
) -> None:
    project, (broken, well) = await two.project("https://a.example.com/", endpoints=2)
    two.messages(project, [broken, well], 1)
    with psycopg.connect(two.place.superuser) as conn:
        conn.execute("UPDATE webhook_endpoints SET secret = 'x' WHERE id = %s", [broken.id])

    claimed = await two.workers[0].claim_deliveries(limit=10, lease_s=60)

    assert {one.lane: one.secret for one in claimed} == {broken.id: "", well.id: SECRET}
    assert "can't be signed" in caplog.text


@dataclass(frozen=True)
class Parts:
    store: PostgresWorkerStore
    webhooks: HttpWebhookSender
    clock: SystemClock
    ids: SystemIds


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_sink_that_fails_stalls_and_heals_gets_every_message_under_one_id_from_two_couriers(
    two: Two, seed: int
) -> None:
    drawn = random.Random(seed)
    sink = Sink(Plan(well=drawn.randint(10, 60), fails=drawn.randint(20, 80), stalls=drawn.randint(5, 30)))
    project, (endpoint,) = await two.project(await sink.start())
    two.messages(project, [endpoint], 200)
    sender = HttpWebhookSender(networks=LOOPBACK, timeout_s=2)
    stop = False
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for worker in two.workers:
            parts = Parts(worker, sender, SystemClock(), SystemIds())
            courier = Courier(parts, timeout_s=2, schedule=(0.05, 0.1, 0.2) + (0.5,) * 20)  # type: ignore[arg-type]
            group.create_task(courier.run(lambda: stop))
        while len(sink.taken) < 200 or await undelivered(two, project):
            await asyncio.sleep(0.1)
        stop = True
    await sender.aclose()
    await sink.close()

    assert (sink.failed, sink.stalled) == (sink.plan.fails, sink.plan.stalls)
    assert set(sink.taken.values()) == {1}
    assert sink.odd == []
    assert sink.most_under_way <= endpoint.concurrency
    records = await two.api.list_deliveries(project.id, DeliveryFilter(), after=None, limit=200)
    assert sum(len(record.attempts) for record in records) == 200 + sink.failed + sink.stalled


async def undelivered(two: Two, project: Project) -> bool:
    waiting = DeliveryFilter(state=DeliveryState.PENDING)
    return bool(await two.api.list_deliveries(project.id, waiting, after=None, limit=1))
