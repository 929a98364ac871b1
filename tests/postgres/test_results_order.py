"""The order of completion on real Postgres: late committers, batches from before, workers of an older version."""

import asyncio
import json

import psycopg
import pytest

from cope.adapters.postgres.ending import EndWatch, end_batch_tasks
from cope.core.lifecycle import TaskState
from cope.core.records import Batch
from cope.ports.store import ResultLine
from tests.contracts.test_reading import names, read
from tests.contracts.world import PostgresWorld, done, fails
from tests.postgres.conftest import Place

pytestmark = pytest.mark.integration


async def collect(world: PostgresWorld, batch: Batch) -> list[ResultLine]:
    """A follower that asks again and again, from where it left off."""
    seen: list[ResultLine] = []
    after, incomplete = 0, True
    while incomplete:
        lines, told = await read(world, batch, after, limit=97)
        seen += lines
        after, incomplete = told.last, told.incomplete
        await asyncio.sleep(0)
    return seen


async def test_a_follower_beside_many_committers_misses_no_line_and_sees_none_twice(world: PostgresWorld) -> None:
    batch = await world.batch(await world.project(), 500)
    tasks = await world.claim(limit=500)
    groups = [tasks[start : start + 7] for start in range(0, 500, 7)]

    async def commit_all() -> None:
        gate = asyncio.Semaphore(12)

        async def commit(group: list[object]) -> None:
            async with gate:
                await world.commit(*[fails(t) if i % 5 == 0 else done(t) for i, t in enumerate(group)])  # type: ignore[arg-type]

        await asyncio.gather(*(commit(list(group)) for group in groups))

    seen, other, _ = await asyncio.gather(collect(world, batch), collect(world, batch), commit_all())

    assert [line.place for line in seen] == list(range(1, 501))
    assert len({line.task_id for line in seen}) == 500
    assert [line.task_id for line in other] == [line.task_id for line in seen]


async def test_a_line_that_commits_late_stands_behind_those_that_were_told_before_it(
    world: PostgresWorld, place: Place
) -> None:
    batch = await world.batch(await world.project(), 3)
    first, second, third = await world.claim(limit=3)
    with psycopg.connect(place.superuser) as slow:
        # This transaction holds the late task's row, as a slow commit does that has not come to the batch's row yet.
        slow.execute("SELECT FROM tasks WHERE id = %s FOR UPDATE", [first.task_id])
        late = asyncio.create_task(world.commit(done(first)))
        await asyncio.sleep(0.1)
        await world.commit(done(third))
        before, told = await read(world, batch)
        assert names(before) == ["line-3"]
        slow.rollback()
        await late
    await world.commit(done(second))

    assert names((await read(world, batch, told.last))[0]) == ["line-1", "line-2"]


async def test_lines_that_no_commit_numbered_are_numbered_by_the_sweep_or_before_the_files(
    world: PostgresWorld, place: Place
) -> None:
    project = await world.project()
    before = await world.batch(project, 1_200)
    while tasks := await world.claim(limit=500):
        await world.commit(*[done(task, body="{}") for task in tasks])
    running = await world.batch(project, 3)
    one, two, _ = await world.claim(limit=3)
    await world.commit(done(one), done(two))
    with psycopg.connect(place.superuser, autocommit=True) as conn:  # as the migration finds them
        conn.execute("DELETE FROM batch_ends")
        conn.execute("UPDATE batches SET ends = NULL")
    assert (await read(world, before))[0] == []
    assert (await read(world, before))[1].incomplete

    for _ in range(2):
        await world.sweep()

    lines, told = await read(world, before, limit=5_000)
    assert [line.place for line in lines] == list(range(1, 1_201))
    assert not told.incomplete
    assert names((await read(world, running))[0]) == ["line-1", "line-2"]


async def test_what_an_older_worker_ended_without_a_number_is_in_the_files(world: PostgresWorld, place: Place) -> None:
    project = await world.project()
    batch = await world.batch(project, 4)
    tasks = await world.claim(limit=4)
    await world.commit(done(tasks[0]), done(tasks[1]))
    with psycopg.connect(place.superuser, autocommit=True) as conn:
        conn.execute("DELETE FROM batch_ends")
        conn.execute("UPDATE batches SET ends = 0")
    await world.commit(done(tasks[2]), done(tasks[3]))

    await world.finalisation()

    assert sorted(names((await read(world, batch))[0])) == ["line-1", "line-2", "line-3", "line-4"]


async def test_a_page_of_long_answers_is_short(world: PostgresWorld) -> None:
    batch = await world.batch(await world.project(), 5)
    body = json.dumps({"text": "x" * 3_000_000})
    for task in await world.claim(limit=5):
        await world.commit(done(task, body=body))

    sizes = [len(page) async for page in world.worker.results(batch.id, by_input=False)]

    assert sizes == [1] * 5


async def test_a_batch_that_is_to_end_is_walked_through_in_pages_to_its_last_line(
    world: PostgresWorld, place: Place
) -> None:
    project = await world.project()
    batch = await world.batch(project, 250)
    tasks = await world.claim(limit=3)
    await world.commit(*[done(task) for task in tasks])
    async with await psycopg.AsyncConnection.connect(place.worker) as conn:
        after, pages = await end_batch_tasks(conn, batch.id, TaskState.CANCELLED, limit=100), 1
        while after is not None:
            after, pages = await end_batch_tasks(conn, batch.id, TaskState.CANCELLED, after=after, limit=100), pages + 1

    assert pages == 3
    lines, told = await read(world, batch)
    assert (len(lines), sum(line.failed for line in lines), told.incomplete) == (250, 247, False)


def test_a_walk_goes_on_where_it_stopped_and_after_its_end_leaves_a_large_batch_alone_for_a_while() -> None:
    watch, large = EndWatch(), {"id": "batch_1", "total": 10_000_000}
    assert watch.due([large]) == [(large, -1)]
    watch.came_to(large, 5_000)
    assert watch.due([large]) == [(large, 5_000)]
    watch.came_to(large, None)
    assert watch.due([large]) == []
    assert watch.due([]) == []
    assert watch.due([large]) == [(large, -1)], "forgotten with the batch"
