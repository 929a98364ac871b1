"""What is read of a batch while it runs: its lines as they end, without gaps or doubles, its pace, and its end."""

import asyncio
from datetime import timedelta

import pytest

from cope.core.eta import LimitedBy, estimate
from cope.core.ids import BatchId
from cope.core.lifecycle import BatchStatus, TaskState
from cope.core.records import Batch, LineError
from cope.ports.store import NO_END_S, ResultLine, ResultWindow
from tests.contracts.world import LEASE_S, World, done, fails, goes_on, large_step
from tests.support import make_file, new_id


async def window(
    world: World, batch: Batch, after: int = 0, *, limit: int = 1000, by_input: bool = False
) -> ResultWindow:
    found = await world.api.result_window(batch.project_id, batch.id, after=after, limit=limit, by_input=by_input)
    assert found is not None
    return found


async def read(
    world: World, batch: Batch, after: int = 0, *, limit: int = 1000, by_input: bool = False
) -> tuple[list[ResultLine], ResultWindow]:
    """What one request gets."""
    seen = await window(world, batch, after, limit=limit, by_input=by_input)
    lines: list[ResultLine] = []
    while page := await world.api.result_page(
        batch.project_id, batch.id, after=lines[-1].place if lines else after, last=seen.last, by_input=by_input
    ):
        lines += page
    return lines, seen


def names(lines: list[ResultLine]) -> list[str]:
    return [line.custom_id for line in lines]


async def test_lines_come_in_the_order_in_which_they_ended_output_and_error_alike(world: World) -> None:
    batch = await world.batch(await world.project(), 4)
    tasks = await world.claim(limit=4)
    await world.commit(done(tasks[2]), fails(tasks[0]))

    lines, seen = await read(world, batch)

    assert [(line.custom_id, line.failed, line.place) for line in lines] == [("line-3", False, 1), ("line-1", True, 2)]
    assert (seen.last, seen.incomplete) == (2, True)
    await world.commit(done(tasks[3]), done(tasks[1]))
    more, seen = await read(world, batch, seen.last)
    assert names(more) == ["line-4", "line-2"]
    assert (seen.last, seen.incomplete) == (4, False)


async def test_a_batch_of_which_nothing_has_ended_has_no_lines_yet(world: World) -> None:
    batch = await world.submit(await world.project())
    assert await read(world, batch) == ([], ResultWindow(last=0, known=0, incomplete=True))


async def test_in_the_order_of_the_input_only_lines_without_an_open_one_before_them_are_told(world: World) -> None:
    batch = await world.batch(await world.project(), 5)
    tasks = await world.claim(limit=5)
    await world.commit(done(tasks[1]), done(tasks[3]))
    assert (await read(world, batch, by_input=True))[1].last == 0

    await world.commit(done(tasks[0]))
    lines, seen = await read(world, batch, by_input=True)
    assert names(lines) == ["line-1", "line-2"]
    assert (seen.last, seen.incomplete) == (2, True)

    await world.commit(fails(tasks[2]), done(tasks[4]))
    lines, seen = await read(world, batch, seen.last, by_input=True)
    assert names(lines) == ["line-3", "line-4", "line-5"]
    assert (seen.last, seen.incomplete) == (5, False)


@pytest.mark.parametrize("by_input", [False, True])
async def test_asked_for_in_bites_of_any_size_every_line_comes_once(world: World, by_input: bool) -> None:
    batch = await world.batch(await world.project(), 1_300)
    seen: list[str] = []
    after, bite, incomplete = 0, 1, True
    while incomplete:
        tasks = await world.claim(limit=170)
        await world.commit(*[done(t, body="{}") if n % 7 else fails(t) for n, t in enumerate(reversed(tasks))])
        lines, told = await read(world, batch, after, limit=bite, by_input=by_input)
        assert len(lines) <= bite
        seen, after, incomplete, bite = [*seen, *names(lines)], told.last, told.incomplete, bite * 3 % 701

    assert len(seen) == len(set(seen)) == 1_300
    if by_input:
        assert seen == [f"line-{number}" for number in range(1, 1_301)]


async def test_a_request_repeated_begins_with_the_same_lines(world: World) -> None:
    batch = await world.batch(await world.project(), 6)
    tasks = await world.claim(limit=6)
    await world.commit(done(tasks[5]), done(tasks[4]))
    first, _ = await read(world, batch)
    await world.commit(done(tasks[0]), done(tasks[1]))
    again, _ = await read(world, batch)
    assert names(again)[:2] == names(first)


async def test_the_files_are_written_in_the_order_that_was_told_while_it_ran(world: World) -> None:
    batch = await world.batch(await world.project(), 6)
    tasks = await world.claim(limit=6)
    for index in (3, 0, 5, 1, 4, 2):
        await world.commit(done(tasks[index]) if index % 2 else fails(tasks[index]))
    told, _ = await read(world, batch)
    pages = [page async for page in world.worker.results(batch.id, by_input=False)]
    assert [line for page in pages for line in page] == told
    await world.finish(batch)
    assert (await read(world, batch))[0] == told


async def test_lines_that_were_cancelled_are_told_with_those_that_ended_before(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 3)
    await world.commit(done(await world.claim_one()))
    await world.api.cancel_batch(project.id, batch.id)

    lines, seen = await read(world, batch)

    assert sorted(names(lines)) == ["line-1", "line-2", "line-3"]
    assert not seen.incomplete
    assert [line.error.code for line in lines[1:] if line.error] == ["batch_cancelled", "batch_cancelled"]
    await world.finish(batch)
    assert not (await window(world, batch, 3)).incomplete


async def test_lines_of_an_expired_batch_are_all_told(world: World) -> None:
    batch = await world.batch(await world.project(), 3, expires_in_s=60)
    await world.commit(done(await world.claim_one()))
    await world.advance(61)
    await world.sweep()

    lines, seen = await read(world, batch)

    assert len(lines) == 3
    assert not seen.incomplete
    assert sorted(line.error.code for line in lines if line.error) == ["batch_expired", "batch_expired"]


async def test_a_batch_whose_file_was_refused_has_no_lines_and_an_empty_output_file(world: World) -> None:
    project = await world.project()
    batch = await world.submit(project)
    job = await world.worker.claim_validation(lease_s=LEASE_S)
    assert job is not None
    output = make_file(project.id, purpose="batch_output", size=0)
    assert await world.worker.fail_validation(job, [LineError("x", "No.", None, 1)], output=output)

    assert await read(world, batch) == ([], ResultWindow(last=0, known=0, incomplete=False))
    assert (await world.see(batch)).output_file_id == output.id
    assert await world.api.get_file(project.id, output.id) is not None
    assert not await world.worker.fail_validation(job, [], output=make_file(project.id))


async def test_another_project_s_batch_is_not_there(world: World) -> None:
    batch = await world.finish_all(await world.project(), 2)
    stranger = await world.project(name="stranger")

    assert await world.api.result_window(stranger.id, batch.id, after=0, limit=10, by_input=False) is None
    assert list(await world.api.result_page(stranger.id, batch.id, after=0, last=2, by_input=False)) == []
    assert await world.api.paces(stranger.id, [batch.id]) == {}


async def test_a_window_of_none_never_expires(world: World) -> None:
    batch = await world.batch(await world.project(), 2, expires_in_s=None)
    assert batch.expires_at is None
    (task,) = await world.claim(limit=1)
    assert task.window_left_s == NO_END_S
    await world.advance(400 * 86_400)
    await world.sweep()
    assert (await world.see(batch)).status is BatchStatus.IN_PROGRESS
    assert TaskState.EXPIRED.value not in await world.states(batch)


async def test_those_that_are_over_are_told_of_any_project_in_one_go(world: World) -> None:
    one, two = await world.project(), await world.project(name="two")
    over, other = await world.finish_all(one), await world.finish_all(two)
    running = await world.batch(one)

    asked = [over.id, running.id, other.id, BatchId(new_id("batch_"))]

    assert await world.api.ended_batches(asked) == {over.id, other.id}
    assert await world.api.ended_batches([]) == set()


async def test_errors_are_counted_by_code_with_what_the_first_one_said(world: World) -> None:
    batch = await world.batch(await world.project(), 5)
    tasks = await world.claim(limit=5)
    await world.commit(fails(tasks[0], code="a"), fails(tasks[1], code="b"))
    await world.commit(fails(tasks[2], code="b"), done(tasks[3]))

    seen = await world.see(batch)

    assert dict(seen.error_counts) == {"a": 1, "b": 2}
    assert dict(seen.error_messages) == {"a": "It does not fit.", "b": "It does not fit."}


async def test_a_batch_knows_how_many_tasks_wait_for_which_model(world: World) -> None:
    batch = await world.batch(await world.project(), 5)
    tasks = await world.claim(limit=5)
    await world.commit(goes_on(tasks[0]), goes_on(tasks[1]), done(tasks[2]))
    work = (await world.see(batch)).workload
    assert work is not None
    assert (work.total, work.ended, work.at_large, work.at_small) == (5, 1, 2, 2)
    assert (work.small_steps, work.large_steps, work.first_large) == (3, 0, 0)

    first, second = await world.claim("large", limit=2)
    await world.commit(done(first, step=large_step(), stage=3), goes_on(second, "small", step=large_step()))
    work = (await world.see(batch)).workload
    assert work is not None
    assert (work.ended, work.at_large, work.large_steps) == (2, 0, 2)


async def test_tasks_that_begin_at_the_large_model_and_are_cancelled_leave_it(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 3, queue="large")
    work = (await world.see(batch)).workload
    assert work is not None
    assert (work.at_large, work.first_large) == (3, 3)
    await world.api.cancel_batch(project.id, batch.id)
    work = (await world.see(batch)).workload
    assert work is not None
    assert work.at_large == 0


async def test_the_sweep_keeps_a_batch_s_pace_and_its_end_can_be_told_from_it(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 10)
    began = world.now()
    await world.sweep()
    tasks = await world.claim(limit=4)
    await world.commit(*[done(task) for task in tasks])

    seen, paces = await world.see(batch), await world.api.paces(project.id, [batch.id])

    assert len(paces[batch.id]) == 1
    assert paces[batch.id][0].small_steps == 0
    assert seen.workload is not None
    eta = estimate(seen.workload, (), began_at=began, now=began + timedelta(seconds=8), hold=None)
    assert eta is not None
    assert (eta.p50, eta.limited_by) == (12, LimitedBy.SMALL_MODEL)


async def test_what_commits_at_once_is_numbered_without_a_gap(world: World) -> None:
    batch = await world.batch(await world.project(), 60)
    tasks = await world.claim(limit=60)

    await asyncio.gather(
        *(world.commit(done(one), done(other)) for one, other in zip(tasks[::2], tasks[1::2], strict=True))
    )

    lines, seen = await read(world, batch)
    assert [line.place for line in lines] == list(range(1, 61))
    assert not seen.incomplete
