"""Deliveries once they are made: claimed in turns, slowed down, logged, sent again; endpoints changed and given up."""

import json
from datetime import timedelta

import pytest

from cope.core.deliveries import DeliveryFilter, DeliveryRecord, DeliveryState, Redelivery
from cope.core.ids import DeliveryId, EndpointId
from cope.core.records import Delivery, Project, WebhookEndpoint
from cope.core.webhook_lanes import LaneClass, LaneRoom
from cope.ports.store import WebhookOutcome
from cope.ports.webhooks import EndpointChange
from tests.contracts.world import LEASE_S, World
from tests.support import make_endpoint

SECRETS = [f"whsec_{'ABCDEFGH'[n] * 32}" for n in range(8)]
HOUR = 3600
ALL = DeliveryFilter()


def outcome(
    delivery: Delivery, *, status: int | None = 200, retry_in_s: float | None = 300.0, block_s: float | None = None
) -> WebhookOutcome:
    """How this attempt went."""
    taken = status is not None and status < 300
    return WebhookOutcome(
        delivery_id=delivery.id,
        delivered=taken,
        retry_in_s=None if taken or status == 410 else retry_in_s,
        status=status,
        error=None if status else "no answer",
        excerpt="said",
        disable_endpoint=status == 410,
        attempt=delivery.attempt,
        took_ms=12,
        block_s=block_s,
    )


async def tell(world: World, project: Project, *, times: int = 1, url: str | None = None) -> None:
    """Batches that fail at once: the shortest way to a message."""
    for _ in range(times):
        await world.submit(project, webhook_url=url)
        job = await world.worker.claim_validation(lease_s=LEASE_S)
        assert job is not None
        await world.worker.fail_validation(job, [])


async def listening(world: World, project: Project, url: str = "https://a.example.com/1") -> WebhookEndpoint:
    """An endpoint that is told of failed batches."""
    return await world.api.create_endpoint(make_endpoint(project.id, url=url, event_types=("batch.failed",)))


async def listed(world: World, project: Project, which: DeliveryFilter = ALL) -> tuple[DeliveryRecord, ...]:
    """Newest first."""
    return await world.api.list_deliveries(project.id, which, after=None, limit=100)


async def seen(world: World, endpoint: WebhookEndpoint) -> WebhookEndpoint:
    """As it is now."""
    found = await world.api.get_endpoint(endpoint.project_id, endpoint.id)
    assert found is not None
    return found


async def fail(world: World, *, status: int | None = 500, retry_in_s: float = 300.0) -> None:
    """Whatever is due fails."""
    await world.worker.finish_deliveries(
        [outcome(one, status=status, retry_in_s=retry_in_s) for one in await world.deliveries()]
    )


# ---- claiming ------------------------------------------------------------------------------------------------------


async def test_an_endpoint_has_no_more_under_way_than_its_concurrency(world: World) -> None:
    project = await world.project()
    endpoint = await listening(world, project)
    await world.api.update_endpoint(project.id, endpoint.id, EndpointChange(concurrency=2))
    await tell(world, project, times=4)

    first = await world.deliveries()
    assert len(first) == 2
    assert await world.deliveries() == []
    await world.worker.finish_deliveries([outcome(first[0])])
    assert len(await world.deliveries()) == 1


async def test_what_was_leased_by_a_process_that_died_is_due_again_and_its_place_is_free(world: World) -> None:
    project = await world.project()
    endpoint = await listening(world, project)
    await world.api.update_endpoint(project.id, endpoint.id, EndpointChange(concurrency=1))
    await tell(world, project)

    (first,) = await world.deliveries()
    await world.advance(LEASE_S + 1)
    (again,) = await world.deliveries()

    assert (again.id, again.attempt) == (first.id, 2)


async def test_lanes_take_turns_however_much_one_of_them_has_waiting(world: World) -> None:
    project, other = await world.project(), await world.project()
    busy, quiet = await listening(world, project), await listening(world, other)
    await tell(world, project, times=5)
    await tell(world, other)

    claimed = await world.worker.claim_deliveries(limit=2, lease_s=LEASE_S)

    assert {one.endpoint_id for one in claimed} == {busy.id, quiet.id}


async def test_a_class_of_lanes_has_no_more_than_its_room_and_leaves_the_others_theirs(world: World) -> None:
    project, other = await world.project(), await world.project()
    stalls, well = await listening(world, project), await listening(world, other)
    await tell(world, project, times=6)
    await tell(world, other, times=2)
    room = LaneRoom({LaneClass.GOOD: 5, LaneClass.BAD: 0}, {well.id: True}, frozenset({stalls.id}))

    claimed = await world.worker.claim_deliveries(limit=10, lease_s=LEASE_S, room=room)

    assert {one.endpoint_id for one in claimed} == {well.id}
    assert len(claimed) == 2
    bad = LaneRoom({LaneClass.BAD: 4}, {}, frozenset({stalls.id}))
    assert len(await world.worker.claim_deliveries(limit=10, lease_s=LEASE_S, room=bad)) == 4


async def test_a_lane_that_failed_last_is_bad_for_every_process(world: World) -> None:
    project = await world.project()
    endpoint = await listening(world, project)
    await tell(world, project)
    await fail(world)
    await tell(world, project)

    good_only = LaneRoom({LaneClass.GOOD: 9, LaneClass.NEW: 9}, {endpoint.id: True})
    assert await world.worker.claim_deliveries(limit=9, lease_s=LEASE_S, room=good_only) == []
    assert len(await world.deliveries()) == 1


async def test_a_lane_that_asked_for_a_pause_is_left_alone_and_others_are_not(world: World) -> None:
    project, other = await world.project(), await world.project()
    await listening(world, project)
    well = await listening(world, other)
    await tell(world, project, times=2)
    (first, _) = await world.deliveries()
    await world.worker.finish_deliveries([outcome(first, status=429, retry_in_s=5, block_s=60)])
    await tell(world, project)
    await tell(world, other)

    assert [one.endpoint_id for one in await world.deliveries()] == [well.id]
    await world.advance(61)
    assert len(await world.deliveries()) >= 2


async def test_batches_own_addresses_are_lanes_by_host_and_project(world: World) -> None:
    project, other = await world.project(), await world.project()
    await tell(world, project, url="https://b.example.com/1")
    await tell(world, project, url="https://b.example.com/2?x=1")
    await tell(world, project, url="https://c.example.com:8443/1")
    await tell(world, other, url="https://b.example.com/1")

    lanes = {one.lane for one in await world.deliveries()}

    assert lanes == {f"{project.id} b.example.com", f"{project.id} c.example.com:8443", f"{other.id} b.example.com"}


async def test_what_was_claimed_and_not_attempted_is_due_again_as_if_it_had_not_been(world: World) -> None:
    project = await world.project()
    await listening(world, project)
    await tell(world, project, times=2)
    first, second = await world.deliveries()

    await world.worker.give_back_deliveries([first])

    assert [(one.id, one.attempt) for one in await world.deliveries()] == [(first.id, 1)]
    await world.worker.finish_deliveries([outcome(second)])
    await world.worker.give_back_deliveries([second])
    assert (await world.api.get_delivery(project.id, second.id)).state is DeliveryState.DELIVERED  # type: ignore[union-attr]


async def test_a_claim_records_first_what_has_ended(world: World) -> None:
    project = await world.project()
    endpoint = await listening(world, project)
    await world.api.update_endpoint(project.id, endpoint.id, EndpointChange(concurrency=1))
    await tell(world, project, times=2)
    (first,) = await world.deliveries()

    (second,) = await world.worker.claim_deliveries(limit=9, lease_s=LEASE_S, ended=[outcome(first)])

    assert second.id != first.id
    assert second.concurrency == 1
    assert [one.state.value for one in await listed(world, project)].count("delivered") == 1


# ---- outcomes ------------------------------------------------------------------------------------------------------


async def test_every_attempt_is_in_the_log_with_what_was_answered(world: World) -> None:
    project = await world.project()
    endpoint = await listening(world, project)
    await tell(world, project)
    await fail(world, status=None)
    (waiting,) = await listed(world, project)
    await world.advance(301)
    (second,) = await world.deliveries()
    await world.worker.finish_deliveries([outcome(second)])

    (record,) = await listed(world, project)

    assert (waiting.state, waiting.finished_at) == (DeliveryState.PENDING, None)
    assert waiting.next_at is not None
    assert (record.state, record.next_at, record.endpoint_id) == (DeliveryState.DELIVERED, None, endpoint.id)
    assert record.finished_at is not None
    assert [(a.number, a.status, a.error, a.excerpt, a.took_ms) for a in record.attempts] == [
        (1, None, "no answer", "said", 12), (2, 200, None, "said", 12),
    ]  # fmt: skip
    assert json.loads(record.body)["id"] == record.event_id == second.message_id
    assert await world.api.get_delivery(project.id, record.id) == record


async def test_the_log_keeps_the_latest_attempts_only(world: World) -> None:
    project = await world.project()
    await listening(world, project)
    await tell(world, project)
    for _ in range(22):
        await fail(world, retry_in_s=0)

    (record,) = await listed(world, project)

    assert [attempt.number for attempt in record.attempts] == list(range(3, 23))


async def test_a_failure_that_comes_after_its_lease_is_not_recorded_but_a_success_is(world: World) -> None:
    project = await world.project()
    await listening(world, project)
    await tell(world, project)
    (first,) = await world.deliveries()
    await world.advance(LEASE_S + 1)
    (second,) = await world.deliveries()

    await world.worker.finish_deliveries([outcome(first, status=500, retry_in_s=None)])
    assert (await listed(world, project))[0].state is DeliveryState.PENDING
    await world.worker.finish_deliveries([outcome(first)])
    await world.worker.finish_deliveries([outcome(second, status=500)])

    assert (await listed(world, project))[0].state is DeliveryState.DELIVERED


async def test_an_endpoint_shows_how_it_fails_until_it_takes_a_message(world: World) -> None:
    project = await world.project()
    endpoint = await listening(world, project)
    await tell(world, project)
    (first,) = await world.deliveries()
    await world.worker.finish_deliveries([outcome(first, status=429, block_s=60)])

    trouble = (await seen(world, endpoint)).trouble
    assert trouble is not None
    assert (trouble.failures, trouble.status) == (1, 429)
    assert trouble.blocked_until is not None
    await world.advance(301)
    (second,) = await world.deliveries()
    await world.worker.finish_deliveries([outcome(second)])
    assert (await seen(world, endpoint)).trouble is None


async def test_an_endpoint_that_fails_for_five_days_is_disabled_with_an_event_that_others_can_be_told_of(
    world: World,
) -> None:
    project = await world.project()
    endpoint = await listening(world, project)
    watcher = await world.api.create_endpoint(
        make_endpoint(project.id, url="https://ops.example.com/", event_types=("webhook_endpoint.disabled",))
    )
    await tell(world, project)
    for hours in (0, 13, 60, 46):
        await world.advance(hours * HOUR)
        await fail(world, retry_in_s=1)
        assert (await seen(world, endpoint)).disabled_at is None
    await world.advance(2 * HOUR)
    await fail(world, retry_in_s=1)

    given_up = await seen(world, endpoint)
    assert given_up.disabled_at is not None
    assert given_up.disabled_reason == "failing"
    await world.advance(2)
    (told,) = await world.deliveries()
    assert told.endpoint_id == watcher.id
    assert json.loads(told.body)["data"]["id"] == endpoint.id
    assert json.loads(told.body)["data"]["reason"] == "failing"
    (dead,) = await listed(world, project, DeliveryFilter(endpoint_id=endpoint.id))
    assert dead.state is DeliveryState.DEAD


async def test_two_unlucky_messages_in_a_quiet_week_disable_nothing(world: World) -> None:
    project = await world.project()
    endpoint = await listening(world, project)
    await tell(world, project)
    await fail(world, retry_in_s=10**7)
    await world.advance(6 * 24 * HOUR)
    await tell(world, project)
    await fail(world, retry_in_s=10**7)

    assert (await seen(world, endpoint)).disabled_at is None


async def test_what_is_due_to_an_endpoint_that_is_gone_is_given_up(world: World) -> None:
    project = await world.project()
    endpoint = await listening(world, project)
    await tell(world, project, times=3)
    (first, *_) = await world.deliveries()
    await world.worker.finish_deliveries([outcome(first, status=410)])
    await world.advance(LEASE_S + 1)

    assert await world.deliveries() == []

    assert [one.state for one in await listed(world, project)] == [DeliveryState.DEAD] * 3
    assert (await seen(world, endpoint)).disabled_reason == "gone"


# ---- sending again -------------------------------------------------------------------------------------------------


async def test_a_delivery_is_sent_again_under_its_old_id_with_the_whole_schedule_before_it(world: World) -> None:
    project = await world.project()
    endpoint = await listening(world, project)
    await tell(world, project)
    (first,) = await world.deliveries()
    await world.worker.finish_deliveries([outcome(first)])

    assert await world.api.redeliver(project.id, endpoint.id, Redelivery(ids=(first.id,))) == [first.id]

    (again,) = await world.deliveries()
    assert (again.id, again.message_id, again.body, again.attempt) == (first.id, first.message_id, first.body, 1)
    assert len((await listed(world, project))[0].attempts) == 1
    under_way = await world.api.redeliver(project.id, endpoint.id, Redelivery(ids=(first.id,)))
    assert under_way == []


async def test_of_a_time_range_what_failed_is_sent_again_and_what_was_delivered_only_if_asked_for(world: World) -> None:
    project = await world.project()
    endpoint = await listening(world, project)
    await tell(world, project, times=4)
    one, two, three, four = await world.deliveries()
    await world.worker.finish_deliveries(
        [outcome(one), outcome(two, status=500, retry_in_s=None), outcome(three, status=500, retry_in_s=9999)]
    )
    now = world.now()
    since, later = now - timedelta(hours=1), now + timedelta(hours=1)

    assert await world.api.redeliver(project.id, endpoint.id, Redelivery(since=later)) == []
    assert (
        await world.api.redeliver(project.id, endpoint.id, Redelivery(since=since - since.resolution, until=since))
        == []
    )
    assert await world.api.redeliver(project.id, endpoint.id, Redelivery(since=since)) == [two.id, three.id]
    everything = Redelivery(since=since, only_failed=False)
    assert await world.api.redeliver(project.id, endpoint.id, everything) == [one.id]
    assert {again.id for again in await world.deliveries()} == {one.id, two.id, three.id}
    assert four.id not in {again.id for again in await world.deliveries()}


async def test_a_large_range_goes_on_behind_the_last_one(world: World) -> None:
    project = await world.project()
    endpoint = await listening(world, project)
    await tell(world, project, times=3)
    made = [one.id for one in await world.deliveries()]
    await world.advance(LEASE_S + 1)
    await fail(world)
    since = world.now() - timedelta(hours=1)

    first = await world.api.redeliver(project.id, endpoint.id, Redelivery(since=since, limit=2))
    rest = await world.api.redeliver(project.id, endpoint.id, Redelivery(since=since, limit=2, after=first[-1]))

    assert [*first, *rest] == sorted(made)


async def test_deliveries_are_listed_newest_first_by_endpoint_state_and_time(world: World) -> None:
    project = await world.project()
    endpoint = await listening(world, project)
    await tell(world, project, url="https://b.example.com/")
    await tell(world, project)
    first = await world.deliveries()
    await world.worker.finish_deliveries([outcome(first[0])])

    every = await listed(world, project)
    assert [one.id for one in every] == sorted((one.id for one in first), reverse=True)
    assert {one.endpoint_id for one in await listed(world, project, DeliveryFilter(endpoint_id=endpoint.id))} == {
        endpoint.id
    }
    assert [one.id for one in await listed(world, project, DeliveryFilter(state=DeliveryState.DELIVERED))] == [
        first[0].id
    ]
    assert await listed(world, project, DeliveryFilter(since=world.now() + timedelta(hours=1))) == ()
    assert await listed(world, project, DeliveryFilter(until=world.now() - timedelta(hours=1))) == ()
    page = await world.api.list_deliveries(project.id, ALL, after=every[0].id, limit=1)
    assert [one.id for one in page] == [every[1].id]
    assert await world.api.get_delivery(project.id, DeliveryId("whd_none")) is None


# ---- changing endpoints --------------------------------------------------------------------------------------------


async def test_an_endpoint_is_changed_and_its_waiting_messages_go_to_the_new_address(world: World) -> None:
    project = await world.project()
    endpoint = await listening(world, project)
    await tell(world, project)
    change = EndpointChange(name="new", url="https://new.example.com/", event_types=("batch.completed",), concurrency=3)

    changed = await world.api.update_endpoint(project.id, endpoint.id, change)

    assert changed is not None
    assert (changed.name, changed.url, changed.event_types, changed.concurrency) == (
        "new", "https://new.example.com/", ("batch.completed",), 3,
    )  # fmt: skip
    assert await seen(world, endpoint) == changed
    assert [one.url for one in await world.deliveries()] == ["https://new.example.com/"]


async def test_a_change_that_changes_nothing_does_not_move_its_date(world: World) -> None:
    project = await world.project()
    endpoint = await listening(world, project)
    await world.advance(10)
    before = await seen(world, endpoint)

    same = await world.api.update_endpoint(project.id, endpoint.id, EndpointChange(name=endpoint.name, disabled=False))
    moved = await world.api.update_endpoint(project.id, endpoint.id, EndpointChange(name="other"))

    assert same is not None
    assert moved is not None
    assert same.updated_at == before.updated_at < moved.updated_at


async def test_an_endpoint_is_disabled_and_enabled_by_hand_and_what_failed_meanwhile_can_be_sent_again(
    world: World,
) -> None:
    project = await world.project()
    endpoint = await listening(world, project)
    await tell(world, project)
    await fail(world)
    disabled = await world.api.update_endpoint(project.id, endpoint.id, EndpointChange(disabled=True))
    await tell(world, project)
    await world.advance(301)
    assert await world.deliveries() == []

    enabled = await world.api.update_endpoint(project.id, endpoint.id, EndpointChange(disabled=False))

    assert disabled is not None
    assert enabled is not None
    assert (disabled.disabled_reason, enabled.disabled_reason, enabled.disabled_at) == ("by_hand", None, None)
    assert enabled.trouble is None
    again = await world.api.redeliver(project.id, endpoint.id, Redelivery(since=world.now() - timedelta(hours=1)))
    assert [one.id for one in await world.deliveries()] == again
    assert len(again) == 1
    told = [event.type for event in await world.events(project) if event.type.startswith("webhook_endpoint.")]
    assert told[-2:] == ["webhook_endpoint.disabled", "webhook_endpoint.enabled"]


@pytest.mark.parametrize("keep", [True, False])
async def test_a_rotated_secret_signs_for_a_day_beside_the_new_one_where_that_was_asked_for(
    world: World, keep: bool
) -> None:
    project = await world.project()
    endpoint = await listening(world, project)
    kept_s = 24 * HOUR if keep else None
    rotated = await world.api.rotate_endpoint_secret(project.id, endpoint.id, SECRETS[0], keep_old_s=kept_s)
    await tell(world, project, times=2)

    (first, _) = await world.worker.claim_deliveries(limit=2, lease_s=LEASE_S)
    await world.advance(24 * HOUR + 1)
    (later, *_) = await world.deliveries()

    assert rotated is not None
    assert rotated.secret == first.secret == later.secret == SECRETS[0]
    assert first.old_secrets == ((endpoint.secret,) if keep else ())
    assert later.old_secrets == ()
    assert (rotated.old_secrets_until is not None) is keep


async def test_of_many_rotations_the_latest_secrets_are_kept_and_one_without_keeping_ends_them_all(
    world: World,
) -> None:
    project = await world.project()
    endpoint = await listening(world, project)
    for secret in SECRETS[:6]:
        await world.api.rotate_endpoint_secret(project.id, endpoint.id, secret, keep_old_s=24 * HOUR)
        await world.advance(1)
    await tell(world, project)
    (first,) = await world.deliveries()
    assert (first.secret, first.old_secrets) == (SECRETS[5], tuple(SECRETS[4:0:-1]))

    await world.api.rotate_endpoint_secret(project.id, endpoint.id, SECRETS[6], keep_old_s=None)
    await world.advance(LEASE_S + 1)

    (again,) = await world.deliveries()
    assert (again.secret, again.old_secrets) == (SECRETS[6], ())
    assert await world.api.rotate_endpoint_secret(project.id, EndpointId("we_none"), "x", keep_old_s=None) is None


async def test_the_operator_sees_what_is_due_and_what_fails_over_all_projects(world: World) -> None:
    project, other = await world.project(), await world.project()
    await listening(world, project)
    gone = await listening(world, other)
    await tell(world, project, times=3)
    await tell(world, other)
    claimed = [one for one in await world.deliveries() if one.endpoint_id != gone.id]
    await world.worker.finish_deliveries([outcome(claimed[0], status=500, block_s=60), outcome(claimed[1])])
    await world.api.update_endpoint(other.id, gone.id, EndpointChange(disabled=True))
    await world.advance(301)

    backlog = await world.api.webhook_backlog()

    assert (backlog.pending, backlog.due, backlog.sending) == (3, 3, 0)
    assert (backlog.failing, backlog.blocked, backlog.disabled) == (0, 0, 1)
    assert backlog.oldest_due_at is not None
