"""Races of a batch's life: append while sealing, retries at once, cancel while committing, in real Postgres."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from cope.core.errors import Conflict
from cope.core.ids import FileId
from cope.core.lifecycle import BatchStatus, HoldReason
from cope.core.line_retry import LineRetry, Retryable
from cope.core.money import NanoUSD
from cope.core.records import Batch, Project
from cope.ports.store import BatchJob, ClaimedTask, CommitStatus, GiveBack, NewBatch
from tests.contracts.test_line_retries import again, as_they_are
from tests.contracts.test_open_batches import WINDOW, lines, opened
from tests.contracts.world import LEASE_S, PostgresWorld, bill, done, fails, goes_on, large_step
from tests.postgres.conftest import Place
from tests.postgres.test_many_clients import books_differ
from tests.support import make_batch

pytestmark = pytest.mark.integration
EVERY = frozenset(Retryable)
DAY = timedelta(days=1)


async def append(world: PostgresWorld, batch: Batch, *names: str) -> int:
    """How many were added; -1 where the batch was closed."""
    try:
        added = await world.api.append_lines(batch.project_id, batch.id, lines(*names), window=WINDOW, most=10_000)
    except Conflict:
        return -1
    assert added is not None
    return added.added


async def numbers(world: PostgresWorld, batch: Batch) -> list[str | None]:
    page = await world.api.list_tasks(batch.project_id, batch.id, state=None, after=None, limit=1000)
    return [task.custom_id for task in page.items]


async def test_an_append_that_meets_the_seal_is_wholly_in_the_batch_or_wholly_out(world: PostgresWorld) -> None:
    project = await world.project()
    for turn in range(8):
        batch = await opened(world, project)
        groups = [[f"{turn}-{g}-{i}" for i in range(10)] for g in range(6)]
        results = await asyncio.gather(
            *(append(world, batch, *names) for names in groups[:3]),
            world.api.seal_batch(project.id, batch.id),
            *(append(world, batch, *names) for names in groups[3:]),
        )

        added = [result for result in results if isinstance(result, int)]
        kept = await numbers(world, batch)
        seen = await world.see(batch)
        assert set(added) <= {10, -1}
        assert len(kept) == len(set(kept)) == seen.total == 10 * added.count(10)
        assert await append(world, batch, "late") == -1
        await world.commit(*[done(task) for task in await world.claim(limit=100)])
        assert await world.finish(batch) is BatchStatus.COMPLETED


async def test_the_same_lines_sent_at_once_are_added_once_and_get_numbers_of_their_own(world: PostgresWorld) -> None:
    project = await world.project()
    batch = await opened(world, project)
    names = [f"n{i}" for i in range(20)]

    added = await asyncio.gather(*(append(world, batch, *names[start:], *names[:start]) for start in range(8)))

    assert sorted(added) == [0] * 7 + [20]
    assert len(set(await numbers(world, batch))) == (await world.see(batch)).total == 20


async def test_one_retry_asked_for_many_times_at_once_is_one_batch(world: PostgresWorld) -> None:
    project = await world.project()
    parent = await world.batch(project, 3)
    await world.commit(*[fails(task) for task in await world.claim()])

    made = await asyncio.gather(
        *(
            world.api.retry_batch(again(project, parent, key="k", body=b"b"), LineRetry(parent.id, EVERY))
            for _ in range(8)
        )
    )

    assert len({batch.id for batch in made}) == 1
    assert (await world.see(parent)).retried_by == (made[0].id,)


async def test_two_retries_carried_out_at_once_take_each_line_over_once(world: PostgresWorld) -> None:
    project = await world.project()
    parent = await world.batch(project, 700)
    for _ in range(7):
        tasks = await world.claim(limit=100)
        await world.commit(*[goes_on(task) if i % 2 else fails(task) for i, task in enumerate(tasks)])
    await hold_all(world, await world.claim("large", limit=350))
    jobs = await waiting_retries(world, project, parent, 3)

    taken = await asyncio.gather(*(world.worker.take_lines(job, as_they_are, expires_in=DAY) for job in jobs))

    assert sum(count or 0 for count in taken) == 700
    seen = await world.see(parent)
    assert (seen.status, seen.failed, dict(seen.held)) == (BatchStatus.FINALIZING, 700, {})
    children = [await numbers(world, job.batch) for job in jobs]
    assert len({name for names in children for name in names}) == 700


async def hold_all(world: PostgresWorld, tasks: Sequence[ClaimedTask]) -> None:
    backs = [GiveBack(t.task_id, t.fence, hold=HoldReason.BUDGET, needed=NanoUSD(1_000)) for t in tasks]
    await world.worker.give_back(backs)


async def waiting_retries(world: PostgresWorld, project: Project, parent: Batch, count: int) -> Sequence[BatchJob]:
    jobs = []
    for _ in range(count):
        await world.api.retry_batch(again(project, parent), LineRetry(parent.id, EVERY))
        job = await world.worker.claim_validation(lease_s=LEASE_S)
        assert job is not None
        jobs.append(job)
    return jobs


async def test_a_held_line_is_taken_over_or_cancelled_or_resumed_but_never_two_of_them(world: PostgresWorld) -> None:
    project = await world.project(cap=NanoUSD(0))
    for turn in range(4):
        parent = await world.batch(project, 40)
        await world.commit(*[goes_on(task) for task in await world.claim(limit=40)])
        await hold_all(world, await world.claim("large", limit=40))
        (job,) = await waiting_retries(world, project, parent, 1)
        if turn % 2:
            await world.api.set_cap(project.id, NanoUSD(20_000))

        taken, _, _ = await asyncio.gather(
            world.worker.take_lines(job, as_they_are, expires_in=DAY),
            world.api.cancel_batch(project.id, parent.id) if turn < 2 else world.sweep(),
            world.sweep(),
        )

        states = await world.states(parent)
        moved = dict((await world.see(parent)).error_counts).get("moved_to_retry", 0)
        assert moved == (taken or 0) == len(await numbers(world, job.batch))
        assert len(states) == 40
        await world.api.cancel_batch(project.id, parent.id)
        await world.sweep()
        assert set(await world.states(parent)) == {"cancelled"}
        assert (await world.see(parent)).failed == 40
        await world.api.cancel_batch(project.id, job.batch.id)
        await world.sweep()
        await world.api.set_cap(project.id, NanoUSD(0))


async def test_cancel_while_steps_commit_keeps_every_paid_answer_and_ends_every_line_once(
    world: PostgresWorld, place: Place
) -> None:
    project = await world.project(cap=NanoUSD(10**9))
    batch = await world.batch(project, 60, queue="large")
    tasks = await world.claim("large", limit=60)
    granted = [await world.send(task, 1_000) for task in tasks[:30]]

    async def commit(start: int) -> list[CommitStatus]:
        return await world.worker.commit(
            [
                done(tasks[i], step=large_step(700), bills=(bill(granted[i], 700),), stage=3)
                for i in range(start, start + 5)
            ]
        )

    *statuses, _ = await asyncio.gather(
        *(commit(start) for start in range(0, 30, 5)), world.api.cancel_batch(project.id, batch.id)
    )
    await world.sweep()

    assert {status for group in statuses if isinstance(group, list) for status in group} == {CommitStatus.COMMITTED}
    states = await world.states(batch)
    assert (states.count("done"), states.count("cancelled")) == (30, 30)
    assert (await world.budget(project)).spent == 30 * 700
    assert await world.finish(batch) is BatchStatus.CANCELLED
    assert await books_differ(place) == []


async def test_appends_meet_cancel_and_expiry_and_no_line_is_left_behind(world: PostgresWorld) -> None:
    project = await world.project()
    for turn in range(6):
        short = replace(make_batch(project.id, FileId("")), completion_window="1h", open=True)
        window = timedelta(seconds=0 if turn % 2 else 3600)
        batch = await world.api.create_batch(NewBatch(short, short.id.encode(), None, retry=0, open_for=window))
        ending = world.sweep() if turn % 2 else world.api.cancel_batch(project.id, batch.id)
        await asyncio.gather(
            *(append(world, batch, *(f"{turn}-{g}-{i}" for i in range(5))) for g in range(4)),
            ending,
        )
        await world.sweep()

        seen = await world.see(batch)
        assert seen.open is False
        assert seen.total == seen.failed == len(await numbers(world, batch))
        assert await world.finish(batch) in {BatchStatus.CANCELLED, BatchStatus.EXPIRED}
