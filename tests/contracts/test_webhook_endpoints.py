"""Endpoints changed, rotated, failing and disabled; deliveries bounded by address, looked at, and sent again."""

from datetime import timedelta

import pytest

from cope.core.deliveries import AT_ONCE_EACH, Again, DeliveryState
from cope.core.errors import Conflict
from cope.core.ids import DeliveryId
from cope.core.records import Delivery, Project, WebhookEndpoint
from cope.core.webhooks import make_secret
from cope.ports.store import WebhookOutcome
from tests.contracts.world import LEASE_S, World
from tests.support import make_endpoint

OTHER = make_secret(bytes(range(32)))


async def endpoint(world: World, project: Project, url: str = "https://a.example.com/1") -> WebhookEndpoint:
    return await world.api.create_endpoint(make_endpoint(project.id, url=url))


def went(delivery: Delivery, status: int | None = 204, *, retry_in_s: float | None = None) -> WebhookOutcome:
    delivered = status is not None and status < 300
    return WebhookOutcome(
        delivery.id, delivered, retry_in_s, status, None if delivered else "no", "said", status == 410, took_ms=12
    )


async def test_an_address_is_given_a_few_deliveries_at_a_time_and_keeps_nobody_else_waiting(world: World) -> None:
    project = await world.project()
    await endpoint(world, project)
    for _ in range(AT_ONCE_EACH + 4):
        await world.finish_all(project)
    await world.finish_all(project, webhook_url="https://b.example.com/2")

    first = await world.deliveries()
    assert [one.url for one in first].count("https://a.example.com/1") == AT_ONCE_EACH
    assert [one.url for one in first].count("https://b.example.com/2") == 1
    assert await world.deliveries() == []

    mine = [one for one in first if one.endpoint_id is not None]
    await world.worker.finish_deliveries([went(one) for one in mine[:3]])
    assert len(await world.deliveries()) == 3


async def test_a_failing_endpoint_is_tried_one_at_a_time_until_it_answers_again(world: World) -> None:
    project = await world.project()
    made = await endpoint(world, project)
    for _ in range(6):
        await world.finish_all(project)
    claimed = await world.deliveries()
    await world.worker.finish_deliveries([went(one, 500, retry_in_s=0.0) for one in claimed])
    failing = await world.api.get_endpoint(project.id, made.id)
    assert failing is not None
    assert failing.failing_since is not None

    (only,) = await world.deliveries()
    assert await world.deliveries() == []
    await world.worker.finish_deliveries([went(only)])

    well = await world.api.get_endpoint(project.id, made.id)
    assert well is not None
    assert well.failing_since is None
    assert len(await world.deliveries()) == 5


async def test_an_endpoint_that_fails_for_five_days_is_disabled_told_of_and_enabled_by_an_update(world: World) -> None:
    project = await world.project()
    made = await endpoint(world, project)
    await world.finish_all(project)
    for _ in range(2):
        (delivery,) = await world.deliveries()
        await world.worker.finish_deliveries([went(delivery, 500, retry_in_s=5.0)])
        await world.advance(timedelta(days=3).total_seconds())
    seen = await world.api.get_endpoint(project.id, made.id)
    assert seen is not None
    assert seen.disabled_at is None
    await world.finish_all(project)
    claimed = await world.deliveries()
    await world.worker.finish_deliveries([went(claimed[0], None, retry_in_s=5.0)])

    seen = await world.api.get_endpoint(project.id, made.id)
    assert seen is not None
    assert (seen.disabled_at is not None, seen.disabled_reason) == (True, "failing")
    await world.advance(LEASE_S + 10)
    assert await world.deliveries() == []
    assert [e.type for e in await world.events(project)].count("webhook_endpoint.disabled") == 1
    with pytest.raises(Conflict) as refused:
        await world.api.send_again(project.id, made.id, Again())
    assert refused.value.code == "webhook_endpoint_disabled"

    changed = await world.api.update_endpoint(project.id, made.id, url="https://a.example.com/mended")
    assert changed is not None
    assert (changed.disabled_at, changed.failing_since, changed.url) == (None, None, "https://a.example.com/mended")
    assert await world.api.send_again(project.id, made.id, Again()) == 2
    assert {one.url for one in await world.deliveries()} == {"https://a.example.com/mended"}


async def test_an_endpoint_that_says_it_is_gone_is_disabled_at_once(world: World) -> None:
    project = await world.project()
    made = await endpoint(world, project)
    await world.finish_all(project)
    (delivery,) = await world.deliveries()
    await world.worker.finish_deliveries([went(delivery, 410)])

    seen = await world.api.get_endpoint(project.id, made.id)
    assert seen is not None
    assert seen.disabled_reason == "gone"


@pytest.mark.parametrize("keep_old", [True, False])
async def test_a_rotated_secret_signs_and_if_asked_the_old_one_beside_it_for_a_day(
    world: World, keep_old: bool
) -> None:
    project = await world.project()
    made = await endpoint(world, project)
    await world.finish_all(project)

    rotated = await world.api.rotate_secret(project.id, made.id, OTHER, keep_old=keep_old)
    assert rotated is not None
    assert rotated.secret == OTHER
    (delivery,) = await world.deliveries()
    assert (delivery.secret, delivery.older_secret) == (OTHER, made.secret if keep_old else None)

    await world.advance(timedelta(hours=25).total_seconds())
    (later,) = await world.deliveries()
    assert (later.secret, later.older_secret) == (OTHER, None)


async def test_what_is_not_given_stays_as_it_was(world: World) -> None:
    project = await world.project()
    made = await endpoint(world, project)

    changed = await world.api.update_endpoint(project.id, made.id, event_types=("batch.failed",))

    assert changed is not None
    assert (changed.name, changed.url, changed.event_types) == (made.name, made.url, ("batch.failed",))
    assert await world.api.get_endpoint(project.id, made.id) == changed


async def test_every_attempt_is_in_the_log_of_its_delivery(world: World) -> None:
    project = await world.project()
    made = await endpoint(world, project)
    await world.finish_all(project)
    (first,) = await world.deliveries()
    await world.worker.finish_deliveries([went(first, 503, retry_in_s=0.0)])
    (second,) = await world.deliveries()
    await world.worker.finish_deliveries([went(second)])

    found = await world.api.get_delivery(project.id, first.id)
    assert found is not None
    assert (found.state, found.attempts, found.status) == (DeliveryState.DELIVERED, 2, 204)
    assert [(one.attempt, one.status, one.took_ms, one.excerpt) for one in found.log] == [
        (1, 503, 12, "said"),
        (2, 204, 12, "said"),
    ]
    listed = await world.api.list_deliveries(project.id, endpoint_id=made.id, state=None, after=None, limit=10)
    assert [(one.id, one.log) for one in listed] == [(first.id, ())]
    pending = await world.api.list_deliveries(
        project.id, endpoint_id=None, state=DeliveryState.PENDING, after=None, limit=10
    )
    assert pending == ()


async def test_deliveries_are_listed_newest_first_and_page_by_page(world: World) -> None:
    project = await world.project()
    await endpoint(world, project)
    for _ in range(3):
        await world.finish_all(project)

    async def page(after: DeliveryId | None) -> list[DeliveryId]:
        found = await world.api.list_deliveries(project.id, endpoint_id=None, state=None, after=after, limit=2)
        return [one.id for one in found]

    first = await page(None)
    rest = await page(first[-1])
    assert [*first, *rest] == sorted({*first, *rest}, reverse=True)
    assert len(rest) == 1


async def test_only_what_is_asked_for_is_sent_again_and_under_the_same_message_id(world: World) -> None:
    project = await world.project()
    made = await endpoint(world, project)
    for _ in range(3):
        await world.finish_all(project)
    good, bad, other = await world.deliveries()
    await world.worker.finish_deliveries([went(good), went(bad, 500), went(other, 500, retry_in_s=900.0)])

    assert await world.api.send_again(project.id, made.id, Again()) == 1
    await world.advance(1)
    (again,) = await world.deliveries()
    assert (again.id, again.message_id, again.attempt) == (bad.id, bad.message_id, 1)
    await world.worker.finish_deliveries([went(again)])

    assert await world.api.send_again(project.id, made.id, Again(ids=(good.id,), only_failed=False)) == 1
    assert [one.message_id for one in await world.deliveries()] == [good.message_id]
    late = world.now() + timedelta(hours=1)
    assert await world.api.send_again(project.id, made.id, Again(since=late, only_failed=False)) == 0
    assert await world.api.send_again(project.id, made.id, Again(until=late, only_failed=False)) == 1
