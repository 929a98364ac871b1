"""Webhook messages that were given up, and what the log says of webhooks."""

import json

from cope.core.ids import DeliveryId
from cope.core.records import Project
from cope.ports.store import WebhookOutcome
from tests.contracts.world import World
from tests.support import make_endpoint


def outcome(delivery_id: DeliveryId, *, status: int, retry_in_s: float | None = None) -> WebhookOutcome:
    ok = status < 300
    return WebhookOutcome(delivery_id, ok, retry_in_s, status, None if ok else "no", "sorry", status == 410)


async def dead_letter(world: World, project: Project) -> DeliveryId:
    """A message to a batch's own address that was given up."""
    await world.submit(project, webhook_url="https://b.example.com/dead")
    job = await world.worker.claim_validation(lease_s=30)
    assert job is not None
    await world.worker.fail_validation(job, [])
    (delivery,) = [one for one in await world.deliveries() if one.url == "https://b.example.com/dead"]
    await world.worker.finish_deliveries([outcome(delivery.id, status=500)])
    return delivery.id


async def test_a_message_that_was_given_up_is_listed_with_why(world: World) -> None:
    project = await world.project()
    dead_id = await dead_letter(world, project)

    (letter,) = await world.api.list_dead_letters(project.id, endpoint_id=None, after=None, limit=10)

    assert letter.id == dead_id
    assert (letter.status, letter.error, letter.excerpt, letter.attempts) == (500, "no", "sorry", 1)
    assert json.loads(letter.body)["id"] == letter.event_id
    assert letter.finished_at is not None
    assert await world.api.get_dead_letter(project.id, dead_id) == letter
    assert await world.api.list_dead_letters(project.id, endpoint_id=None, after=dead_id, limit=10) == ()


async def test_a_replayed_message_is_due_at_once_under_its_old_id_with_a_whole_schedule(world: World) -> None:
    project = await world.project()
    dead_id = await dead_letter(world, project)
    before = await world.api.get_dead_letter(project.id, dead_id)
    assert before is not None

    assert await world.api.replay_dead_letters(project.id, ids=[dead_id], endpoint_id=None) == (dead_id,)

    (again,) = await world.deliveries()
    assert (again.id, again.message_id, again.body, again.attempt) == (dead_id, before.event_id, before.body, 1)
    assert await world.api.replay_dead_letters(project.id, ids=[dead_id], endpoint_id=None) == ()
    assert await world.api.list_dead_letters(project.id, endpoint_id=None, after=None, limit=10) == ()


async def test_what_was_for_an_endpoint_that_is_gone_stays_dead(world: World) -> None:
    project = await world.project()
    gone = await world.api.create_endpoint(make_endpoint(project.id))
    await world.finish_all(project)
    (delivery,) = await world.deliveries()
    await world.worker.finish_deliveries([outcome(delivery.id, status=410)])

    assert await world.api.replay_dead_letters(project.id, ids=None, endpoint_id=gone.id) == ()
    assert len(await world.api.list_dead_letters(project.id, endpoint_id=gone.id, after=None, limit=10)) == 1


async def test_the_log_tells_what_became_of_every_attempt_and_of_the_endpoint(world: World) -> None:
    project = await world.project()
    endpoint = await world.api.create_endpoint(make_endpoint(project.id))
    await world.finish_all(project)
    (first,) = await world.deliveries()
    await world.worker.finish_deliveries([outcome(first.id, status=500, retry_in_s=0)])
    (second,) = await world.deliveries()
    await world.worker.finish_deliveries([outcome(second.id, status=200)])
    await world.finish_all(project)
    (third,) = await world.deliveries()
    await world.worker.finish_deliveries([outcome(third.id, status=410)])
    await world.api.delete_endpoint(project.id, endpoint.id)

    told = [(event.type, json.loads(event.data)) for event in await world.events(project) if "webhook" in event.type]

    assert [type_ for type_, _ in told] == [
        "webhook_endpoint.created", "webhook_delivery.retrying", "webhook_delivery.delivered", "webhook_delivery.dead",
        "webhook_endpoint.disabled", "webhook_endpoint.deleted",
    ]  # fmt: skip
    about = {"id": first.id, "endpoint_id": endpoint.id, "event_id": first.message_id}
    assert told[1][1] == {**about, "attempt": 1, "status": 500, "error": "no"}
    assert told[2][1] == {**about, "attempt": 2, "status": 200}
    assert told[4][1] == {"id": endpoint.id, "reason": "gone"}
