"""A batch whose first answers can't be read waits before further paid calls, and goes on when somebody says so."""

from dataclasses import replace

from cope.core.lifecycle import BatchStatus, HoldReason, TaskState
from cope.core.parse_watch import WATCHED_LINES
from cope.core.records import Batch, Project
from cope.ports.store import ClaimedTask, GiveBack, Granted, Paused
from tests.contracts.world import World, goes_on


async def judged(world: World, project: Project, *, parsed: int, lines: int = WATCHED_LINES + 1) -> Batch:
    """A batch of which 200 lines have gone to the large model, so many of them with answers that could be read."""
    batch = await world.batch(project, lines)
    tasks = await world.claim("small", limit=WATCHED_LINES)
    commits = [replace(goes_on(task, "large"), parses=place < parsed) for place, task in enumerate(tasks)]
    for start in range(0, len(commits), 50):
        await world.commit(*commits[start : start + 50])
    return batch


async def hold_unparsable(world: World, task: ClaimedTask) -> None:
    await world.worker.give_back([GiveBack(task.task_id, task.fence, hold=HoldReason.UNPARSABLE, note="unparsable")])


async def test_under_half_of_two_hundred_lines_stops_the_batchs_paid_calls(world: World) -> None:
    project = await world.project()
    batch = await judged(world, project, parsed=99)

    task = await world.claim_one("large")
    result = await world.reserve(task, 100)
    await hold_unparsable(world, task)

    assert result == Paused(HoldReason.UNPARSABLE)
    assert (await world.budget(project)).reserved == 0
    seen = await world.see(batch)
    assert seen.status is BatchStatus.IN_PROGRESS
    assert seen.held == {HoldReason.UNPARSABLE: 1}
    assert seen.held_since is not None
    events = [event for event in await world.events(project) if event.type == "batch.paused"]
    assert len(events) == 1
    assert '"unparsable"' in events[0].data


async def test_half_of_the_lines_is_enough(world: World) -> None:
    project = await world.project()
    await judged(world, project, parsed=100)

    assert isinstance(await world.reserve(await world.claim_one("large"), 100), Granted)


async def test_fewer_lines_than_are_watched_never_pause(world: World) -> None:
    project = await world.project()
    await world.batch(project, 3)
    await world.commit(*(replace(goes_on(task, "large"), parses=False) for task in await world.claim("small", limit=3)))

    assert isinstance(await world.reserve(await world.claim_one("large"), 100), Granted)


async def test_a_project_can_switch_the_watch_off(world: World) -> None:
    project = await world.project()
    await world.api.update_project(project.id, pause_unparsable=False)
    await judged(world, project, parsed=0)

    assert isinstance(await world.reserve(await world.claim_one("large"), 100), Granted)


async def test_a_resumed_batch_goes_on_and_is_not_watched_again(world: World) -> None:
    project = await world.project()
    batch = await judged(world, project, parsed=0)
    task = await world.claim_one("large")
    await hold_unparsable(world, task)
    assert (await world.sweep()).resumed == 0

    assert await world.api.resume_batch(project.id, batch.id) is not None
    assert (await world.sweep()).resumed == 1

    (last,) = await world.claim("small", limit=1)
    await world.commit(replace(goes_on(last, "large"), parses=False))
    assert await world.state(task) is TaskState.READY
    assert isinstance(await world.reserve(await world.claim_one("large"), 100), Granted)
    assert not any((await world.see(batch)).held.values())


async def test_another_project_can_not_resume_it(world: World) -> None:
    project, stranger = await world.project(), await world.project()
    batch = await judged(world, project, parsed=0)

    assert await world.api.resume_batch(stranger.id, batch.id) is None
    assert await world.reserve(await world.claim_one("large"), 100) == Paused(HoldReason.UNPARSABLE)
