"""The courier: what it sends, what it makes of the answers, and whom it keeps waiting."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from standardwebhooks import Webhook

from cope.adapters.memory import MemoryStore, RecordingWebhookSender, SequentialIds
from cope.adapters.system import SystemClock
from cope.core.deliveries import DeliveryFilter, DeliveryRecord, DeliveryState
from cope.core.errors import StoreUnavailable
from cope.core.records import Project
from cope.ports.store import NewBatch, WebhookOutcome
from cope.ports.support import WebhookReply, WebhookRequest
from cope.usecases.deliver_webhooks import Courier
from tests.support import make_batch, make_endpoint, make_file, make_project

SECRET = "whsec_dGVzdHMtc2lnbi10aGVpci13ZWJob29rcw=="
QUICK = (0.01, 0.01, 0.01)


@dataclass(frozen=True)
class Parts:
    store: MemoryStore
    clock: SystemClock
    ids: SequentialIds
    webhooks: object


def reply(status: int | None, *, retry_after_s: float | None = None) -> WebhookReply:
    return WebhookReply(status, None if status else "no answer", "said", retry_after_s, 5)


async def told(store: MemoryStore, project: Project, *, times: int = 1, url: str | None = None) -> None:
    """Batches that fail at once, each of which is a message."""
    for n in range(times):
        file = await store.create_file(make_file(project.id))
        batch = make_batch(project.id, file.id, webhook_url=url)
        await store.create_batch(NewBatch(batch, f"{batch.id}{n}".encode(), None, retry=0))
        job = await store.claim_validation(lease_s=30)
        assert job is not None
        await store.fail_validation(job, [])


async def a_project(store: MemoryStore) -> Project:
    project = make_project()
    await store.create_project(project, SECRET)
    return project


async def settle(parts: Parts, until: Callable[[], bool], *, schedule: Sequence[float] = QUICK) -> None:
    """Let the courier work until this holds."""
    courier = Courier(parts, timeout_s=5, schedule=schedule)  # type: ignore[arg-type]
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        stop = False
        group.create_task(courier.run(lambda: stop))
        while not until():
            courier.poke()
            await asyncio.sleep(0.005)
        stop = True


async def records(store: MemoryStore, project: Project) -> tuple[DeliveryRecord, ...]:
    return await store.list_deliveries(project.id, DeliveryFilter(), after=None, limit=100)


async def run_until_over(answer: Callable[[WebhookRequest], WebhookReply], **options: object) -> DeliveryRecord:
    """One message, from its event until it is over."""
    store = MemoryStore(SystemClock())
    project = await a_project(store)
    await store.create_endpoint(make_endpoint(project.id, event_types=("batch.failed",), secret=SECRET))
    await told(store, project)
    parts = Parts(store, SystemClock(), SequentialIds(), RecordingWebhookSender(answer))
    (row,) = store._db.deliveries.values()
    await settle(parts, lambda: row.over, **options)  # type: ignore[arg-type]
    (record,) = await records(store, project)
    return record


async def test_a_message_is_signed_and_keeps_its_id_over_all_of_its_attempts():
    sent: list[WebhookRequest] = []

    def answer(request: WebhookRequest) -> WebhookReply:
        sent.append(request)
        return reply(200 if len(sent) == 3 else 500)

    record = await run_until_over(answer)

    assert record.state is DeliveryState.DELIVERED
    assert [attempt.status for attempt in record.attempts] == [500, 500, 200]
    assert {dict(request.headers)["webhook-id"] for request in sent} == {record.event_id}
    for request in sent:
        Webhook(SECRET).verify(request.body, dict(request.headers))


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 500, 503, None])
async def test_whatever_is_no_success_is_tried_again_until_the_schedule_ends(status: int | None):
    record = await run_until_over(lambda _: reply(status))

    assert record.state is DeliveryState.DEAD
    assert [attempt.status for attempt in record.attempts] == [status] * 4


async def test_410_ends_a_message_at_once():
    record = await run_until_over(lambda _: reply(410))

    assert (record.state, len(record.attempts)) == (DeliveryState.DEAD, 1)


async def test_a_sender_that_breaks_costs_one_attempt_and_not_the_courier(caplog: pytest.LogCaptureFixture):
    calls = 0

    def answer(_: WebhookRequest) -> WebhookReply:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("unforeseen")
        return reply(204)

    record = await run_until_over(answer)

    assert [attempt.error for attempt in record.attempts] == ["not sent: RuntimeError", None]
    assert "could not be sent" in caplog.text


class Stalling:
    """Holds every message to `stalls` in hand until it is let go, and takes all others at once."""

    def __init__(self, stalls: str) -> None:
        self.sent: list[str] = []
        self.held = 0
        self.most_held = 0
        self.go = asyncio.Event()
        self._stalls = stalls

    async def send(self, request: WebhookRequest) -> WebhookReply:
        self.sent.append(request.url)
        if self._stalls in request.url:
            self.held += 1
            self.most_held = max(self.most_held, self.held)
            await self.go.wait()
            self.held -= 1
        return reply(200)


async def test_one_that_stalls_keeps_nobody_else_waiting_and_has_a_few_messages_under_way_only():
    store, sender = MemoryStore(SystemClock()), Stalling("stalls")
    ill, well = await a_project(store), await a_project(store)
    for project, host in ((ill, "stalls"), (well, "well")):
        url = f"https://{host}.example.com/"
        await store.create_endpoint(make_endpoint(project.id, url=url, event_types=("batch.failed",), secret=SECRET))
    await told(store, ill, times=100)
    await told(store, well, times=60)
    mine = [row for row in store._db.deliveries.values() if row.project_id == well.id]
    courier = Courier(Parts(store, SystemClock(), SequentialIds(), sender), timeout_s=5)  # type: ignore[arg-type]
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        stop = False
        group.create_task(courier.run(lambda: stop))
        while not all(row.over for row in mine):
            await asyncio.sleep(0.005)
        assert not sender.go.is_set()
        assert sender.most_held == 16  # the endpoint's concurrency
        stop = True
        sender.go.set()

    assert sender.held == 0


async def test_what_ended_while_the_database_was_away_is_recorded_later_and_not_sent_again(
    caplog: pytest.LogCaptureFixture,
):
    class Away(MemoryStore):
        left = 3

        async def finish_deliveries(self, outcomes: Sequence[WebhookOutcome]) -> None:
            """Also what a claim records first."""
            if outcomes and self.left:
                self.left -= 1
                raise StoreUnavailable("away")
            await super().finish_deliveries(outcomes)

    store, sender = Away(SystemClock()), RecordingWebhookSender()
    project = await a_project(store)
    await told(store, project, url="https://b.example.com/")
    (row,) = store._db.deliveries.values()
    await settle(Parts(store, SystemClock(), SequentialIds(), sender), lambda: row.over)

    assert (row.delivered, len(sender.sent)) == (True, 1)
    assert "trying again" in caplog.text


async def test_a_stop_waits_for_what_is_under_way_and_records_it():
    store, sender = MemoryStore(SystemClock()), Stalling("b.example")
    project = await a_project(store)
    await told(store, project, url="https://b.example.com/")
    (row,) = store._db.deliveries.values()
    courier = Courier(Parts(store, SystemClock(), SequentialIds(), sender), timeout_s=5)  # type: ignore[arg-type]
    stop = False
    running = asyncio.create_task(courier.run(lambda: stop))
    while not sender.held:
        await asyncio.sleep(0.005)
    stop = True
    await asyncio.sleep(0.05)
    assert not running.done()
    sender.go.set()
    await asyncio.wait_for(running, 10)

    assert row.delivered
