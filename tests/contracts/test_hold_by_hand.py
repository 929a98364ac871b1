"""A batch that somebody holds: nothing of it is claimed, its window stands still, what is paid for still commits."""

from datetime import timedelta

from cope.core.lifecycle import BatchStatus, HoldReason, TaskState
from cope.core.money import NanoUSD
from cope.ports.store import CommitStatus, GiveBack, Granted, Paused
from tests.contracts.world import World, bill, done, goes_on, large_step


async def test_no_task_of_a_held_batch_is_claimed_and_other_batches_go_on(world: World) -> None:
    project = await world.project()
    held = await world.batch(project, 2)
    also_held = await world.batch(project, 1, queue="large")
    other = await world.batch(project, 1)

    for batch in (held, also_held):
        shown = await world.api.hold_batch(project.id, batch.id)
        assert shown is not None
        assert shown.paused

    assert [task.batch_id for task in await world.claim("small")] == [other.id]
    assert await world.claim("large") == []
    assert (await world.sweep()).due == {}
    await world.api.resume_batch(project.id, held.id)
    assert [task.batch_id for task in await world.claim("small")] == [held.id, held.id]


async def test_the_completion_window_of_a_held_batch_stands_still(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, expires_in_s=3_600)
    await world.api.hold_batch(project.id, batch.id)

    await world.advance(7_200)
    await world.sweep()
    assert (await world.see(batch)).status is BatchStatus.IN_PROGRESS
    await world.api.resume_batch(project.id, batch.id)

    seen = await world.see(batch)
    assert (seen.paused, seen.held_since) == (False, None)
    assert seen.expires_at is not None
    assert seen.expires_at - world.now() > timedelta(seconds=3_500)


async def test_a_paid_call_under_way_commits_and_no_further_one_is_granted(world: World) -> None:
    project = await world.project(cap=NanoUSD(10_000))
    batch = await world.batch(project, 2, queue="large")
    paying, asking = await world.claim("large", limit=2)
    granted = await world.send(paying, 1_000)
    await world.api.hold_batch(project.id, batch.id)

    assert await world.reserve(asking, 1_000) == Paused(HoldReason.PAUSED)
    await world.worker.give_back([GiveBack(asking.task_id, asking.fence, hold=HoldReason.PAUSED)])
    (status,) = await world.commit(done(paying, step=large_step(700), bills=(bill(granted, 700),)))

    assert status is CommitStatus.COMMITTED
    assert (await world.budget(project)).spent == 700
    assert (await world.sweep()).resumed == 0
    assert await world.state(asking) is TaskState.HELD
    await world.api.resume_batch(project.id, batch.id)
    assert (await world.sweep()).resumed == 1
    assert isinstance(await world.reserve(await world.claim_one("large"), 1_000), Granted)


async def test_a_held_batch_binds_no_money_that_others_could_use(world: World) -> None:
    project = await world.project(cap=NanoUSD(0))
    first = await world.batch(project, 1, queue="large")
    await world.hold(await world.claim_one("large"), 1_000)
    second = await world.batch(project, 1, queue="large")
    await world.hold(await world.claim_one("large"), 1_000)
    await world.api.set_cap(project.id, NanoUSD(1_000))
    await world.sweep()
    assert await world.states(first) == ["ready"]

    await world.api.hold_batch(project.id, first.id)
    await world.sweep()

    assert await world.states(second) == ["ready"]
    assert isinstance(await world.reserve(await world.claim_one("large"), 1_000), Granted)


async def test_a_batch_that_is_still_validating_is_held_from_its_first_line(world: World) -> None:
    project = await world.project()
    batch = await world.submit(project)
    await world.api.hold_batch(project.id, batch.id)

    begun = await world.batch(project, 1)  # takes the oldest job, which is the held batch's

    assert begun.id == batch.id
    assert begun.held_since is not None
    assert await world.claim() == []


async def test_a_step_that_escalates_while_its_batch_is_held_waits_in_the_next_queue(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project)
    task = await world.claim_one()
    await world.api.hold_batch(project.id, batch.id)

    await world.commit(goes_on(task))

    assert await world.states(batch) == ["ready"]
    assert await world.claim("large") == []


async def test_holding_and_resuming_are_in_the_feed_once_each(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project)
    for _ in range(2):
        await world.api.hold_batch(project.id, batch.id)
    for _ in range(2):
        await world.api.resume_batch(project.id, batch.id)

    types = [event.type for event in await world.events(project)]

    assert (types.count("batch.paused"), types.count("batch.resumed")) == (1, 1)


async def test_a_finished_batch_is_not_held_and_an_unknown_one_is_not_found(world: World) -> None:
    project, stranger = await world.project(), await world.project()
    batch = await world.finish_all(project)

    shown = await world.api.hold_batch(project.id, batch.id)

    assert shown is not None
    assert not shown.paused
    assert await world.api.hold_batch(stranger.id, batch.id) is None


async def test_a_held_batch_can_be_cancelled(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 2)
    await world.api.hold_batch(project.id, batch.id)

    await world.api.cancel_batch(project.id, batch.id)

    assert await world.states(batch) == ["cancelled", "cancelled"]
    assert await world.finish(batch) is BatchStatus.CANCELLED
