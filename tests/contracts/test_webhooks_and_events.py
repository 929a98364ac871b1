"""What is told, to whom, how often, and in which order."""

import json
from datetime import timedelta

import pytest

from cope.core.ids import BatchId, EventId
from cope.core.records import LineError
from cope.ports.store import WebhookOutcome
from tests.contracts.world import LEASE_S, SECRET, World, done
from tests.support import make_endpoint

ENDPOINT_SECRET = "whsec_dGVzdHMtc2lnbi10aGVpci13ZWJob29rcw=="


async def test_a_finished_batch_is_told_once_to_each_endpoint_that_asked_and_to_its_own_address(world: World) -> None:
    project, other = await world.project(), await world.project()
    asked = await world.api.create_endpoint(make_endpoint(project.id, url="https://a.example.com/1"))
    await world.api.create_endpoint(make_endpoint(project.id, event_types=("batch.failed",)))
    await world.api.create_endpoint(make_endpoint(other.id))

    batch = await world.finish_all(project, webhook_url="https://b.example.com/2")

    deliveries = {delivery.url: delivery for delivery in await world.deliveries()}
    assert set(deliveries) == {"https://a.example.com/1", "https://b.example.com/2"}
    to_endpoint, to_batch = deliveries["https://a.example.com/1"], deliveries["https://b.example.com/2"]
    assert (to_endpoint.endpoint_id, to_endpoint.secret) == (asked.id, ENDPOINT_SECRET)
    assert (to_batch.endpoint_id, to_batch.secret) == (None, SECRET)
    assert to_endpoint.message_id == to_batch.message_id
    body = json.loads(to_endpoint.body)
    assert (body["id"], body["object"], body["type"]) == (to_endpoint.message_id, "event", "batch.completed")
    assert body["data"]["id"] == batch.id
    assert isinstance(body["created_at"], int)


async def test_a_batch_without_any_address_makes_no_delivery(world: World) -> None:
    await world.finish_all(await world.project())

    assert await world.deliveries() == []


@pytest.mark.parametrize("ending", ["failed", "cancelled", "expired"])
async def test_other_endings_are_told_too(world: World, ending: str) -> None:
    project = await world.project()
    await world.api.create_endpoint(make_endpoint(project.id, event_types=(f"batch.{ending}",)))
    if ending == "failed":
        await world.submit(project)
        job = await world.worker.claim_validation(lease_s=LEASE_S)
        assert job is not None
        await world.worker.fail_validation(job, [LineError("invalid_json", "Not JSON.", None, 1)])
    else:
        batch = await world.batch(project, expires_in_s=60)
        if ending == "cancelled":
            await world.api.cancel_batch(project.id, batch.id)
        await world.advance(61)
        await world.sweep()
        await world.finish(batch)

    (delivery,) = await world.deliveries()

    assert json.loads(delivery.body)["type"] == f"batch.{ending}"


async def test_a_claimed_delivery_is_not_claimed_again_while_its_lease_lasts(world: World) -> None:
    await world.finish_all(await world.project(), webhook_url="https://b.example.com/2")
    (first,) = await world.deliveries()

    assert await world.deliveries() == []
    await world.advance(LEASE_S + 1)

    (again,) = await world.deliveries()
    assert (again.id, again.message_id, again.body) == (first.id, first.message_id, first.body)


def outcome(
    delivery_id: str, *, delivered: bool, retry_in_s: float | None = None, gone: bool = False
) -> WebhookOutcome:
    return WebhookOutcome(
        delivery_id=delivery_id,  # type: ignore[arg-type]
        delivered=delivered,
        retry_in_s=retry_in_s,
        status=200 if delivered else 410 if gone else 500,
        error=None,
        excerpt="",
        disable_endpoint=gone,
    )


async def test_a_delivered_message_is_never_sent_again(world: World) -> None:
    await world.finish_all(await world.project(), webhook_url="https://b.example.com/2")
    (delivery,) = await world.deliveries()

    await world.worker.finish_deliveries([outcome(delivery.id, delivered=True)])
    await world.advance(1_000_000)

    assert await world.deliveries() == []


async def test_a_failed_message_is_due_again_when_its_schedule_says(world: World) -> None:
    await world.finish_all(await world.project(), webhook_url="https://b.example.com/2")
    (first,) = await world.deliveries()

    await world.worker.finish_deliveries([outcome(first.id, delivered=False, retry_in_s=300)])

    await world.advance(290)
    assert await world.deliveries() == []
    await world.advance(11)
    (second,) = await world.deliveries()
    assert (second.id, second.message_id) == (first.id, first.message_id)
    assert second.attempt == first.attempt + 1


async def test_a_message_that_is_given_up_is_dead(world: World) -> None:
    await world.finish_all(await world.project(), webhook_url="https://b.example.com/2")
    (delivery,) = await world.deliveries()

    await world.worker.finish_deliveries([outcome(delivery.id, delivered=False)])
    await world.advance(1_000_000)

    assert await world.deliveries() == []


async def test_an_endpoint_that_is_gone_is_disabled_and_told_nothing_more(world: World) -> None:
    project = await world.project()
    endpoint = await world.api.create_endpoint(make_endpoint(project.id))
    await world.finish_all(project)
    (delivery,) = await world.deliveries()

    await world.worker.finish_deliveries([outcome(delivery.id, delivered=False, gone=True)])
    await world.finish_all(project)

    seen = await world.api.get_endpoint(project.id, endpoint.id)
    assert seen is not None
    assert seen.disabled_at is not None
    assert await world.deliveries() == []


async def test_claiming_deliveries_gives_at_most_as_many_as_asked(world: World) -> None:
    project = await world.project()
    for _ in range(3):
        await world.finish_all(project, webhook_url="https://b.example.com/2")

    assert len(await world.worker.claim_deliveries(limit=2, lease_s=30)) == 2
    assert len(await world.worker.claim_deliveries(limit=2, lease_s=30)) == 1


async def test_endpoints_are_made_listed_shown_and_deleted(world: World) -> None:
    project = await world.project()
    made = [await world.api.create_endpoint(make_endpoint(project.id, url=f"https://h.example.com/{n}")) for n in "123"]

    first = await world.api.list_endpoints(project.id, after=None, limit=2)
    rest = await world.api.list_endpoints(project.id, after=first.items[-1].id, limit=2)

    assert {endpoint.id for endpoint in (*first.items, *rest.items)} == {endpoint.id for endpoint in made}
    assert (first.has_more, rest.has_more) == (True, False)
    shown = await world.api.get_endpoint(project.id, made[0].id)
    assert shown is not None
    assert (shown.url, shown.event_types, shown.secret) == (
        "https://h.example.com/1",
        ("batch.completed",),
        ENDPOINT_SECRET,
    )
    assert await world.api.delete_endpoint(project.id, made[0].id)
    assert not await world.api.delete_endpoint(project.id, made[0].id)
    assert await world.api.get_endpoint(project.id, made[0].id) is None


async def test_a_deleted_endpoint_is_told_nothing_more(world: World) -> None:
    project = await world.project()
    endpoint = await world.api.create_endpoint(make_endpoint(project.id))
    await world.finish_all(project)

    await world.api.delete_endpoint(project.id, endpoint.id)
    await world.finish_all(project)

    assert await world.deliveries() == []


async def test_events_are_numbered_without_a_gap_in_the_order_they_happened(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 3)
    first = await world.events(project)
    await world.commit(*[done(task) for task in await world.claim(limit=3)])
    await world.finish(batch)
    events = await world.events(project)

    offsets = [event.offset for event in events]
    assert offsets == list(range(offsets[0] or 0, (offsets[0] or 0) + len(offsets)))
    assert events[: len(first)] == first
    assert len({event.id for event in events}) == len(events)
    types = [event.type for event in events]
    assert types[-1] == "batch.completed"
    assert types.index("batch.in_progress") < types.index("batch.completed")


async def test_an_event_has_no_offset_and_is_not_listed_before_it_is_sequenced(world: World) -> None:
    project = await world.project()
    await world.batch(project)
    await world.sweep()
    before = await world.api.list_events(project.id, after=0, limit=100, batch_id=None)

    await world.commit(done(await world.claim_one()))

    assert await world.api.list_events(project.id, after=0, limit=100, batch_id=None) == before
    assert (await world.sweep()).sequenced >= 1
    assert (await world.sweep()).sequenced == 0


async def test_every_task_of_a_batch_has_one_event_of_its_end(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 4)
    tasks = await world.claim(limit=4)
    await world.commit(*[done(task) for task in tasks])

    events = [event for event in await world.events(project) if event.type == "task.done"]

    assert sorted(event.task_id or "" for event in events) == sorted(task.task_id for task in tasks)
    assert {event.batch_id for event in events} == {batch.id}


async def test_events_are_read_on_from_an_offset_and_by_batch(world: World) -> None:
    project = await world.project()
    one, two = await world.finish_all(project), await world.finish_all(project)
    events = await world.events(project)

    async def read(after: int, limit: int = 1000, batch_id: BatchId | None = None) -> list[EventId]:
        found = await world.api.list_events(project.id, after=after, limit=limit, batch_id=batch_id)
        return [event.id for event in found]

    third = events[2].offset or 0
    assert await read(third) == [event.id for event in events[3:]]
    assert await read(third, limit=2) == [event.id for event in events[3:5]]
    assert await read(0, batch_id=one.id) == [event.id for event in events if event.batch_id == one.id]
    assert await read(0, batch_id=two.id) == [event.id for event in events if event.batch_id == two.id]
    assert await read(events[-1].offset or 0) == []


async def test_an_events_time_is_the_stores_and_its_data_is_json(world: World) -> None:
    project = await world.project()
    await world.finish_all(project)

    for event in await world.events(project):
        assert abs(event.at - world.now()) < timedelta(minutes=5)
        assert isinstance(json.loads(event.data), dict)
