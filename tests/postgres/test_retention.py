"""Weekly partitions of steps: made ahead, filled, dropped whole, held back; and the table from before, as it lies."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from cope.adapters.postgres.database import Database
from cope.adapters.postgres.migrate import downgrade, upgrade
from cope.adapters.postgres.retained import partitions
from cope.core import ids
from cope.core.ids import TaskId
from cope.core.keeping import WEEK, Keeping, first_id, week_of
from cope.core.records import Batch, Project
from cope.ports.store import NewTask
from tests.contracts.world import LEASE_S, PostgresWorld, done, pages
from tests.postgres.conftest import Place
from tests.support import finished_step, make_new_task

pytestmark = pytest.mark.integration

TEN = Keeping(tasks=timedelta(days=10), live=timedelta(days=10))
DAY = 86_400.0


@pytest.fixture
async def db(place: Place) -> AsyncIterator[Database]:
    opened = Database(place.worker, min_size=1, max_size=4, name="tests")
    await opened.open()
    yield opened
    await opened.close()


def old_week(weeks_ago: int) -> datetime:
    return week_of(datetime.now(UTC)) - weeks_ago * WEEK


def part_name(week: datetime) -> str:
    return f"steps_{week:%Y%m%d}"


async def make_part(db: Database, week: datetime) -> str:
    """The partition of a week long ago."""
    async with db.transaction() as conn:
        await conn.execute(
            "SELECT make_steps_partition(%s, %s, %s)",
            [part_name(week), first_id(ids.TASK, week), first_id(ids.TASK, week + WEEK)],
        )
    assert part_name(week) in await names(db)
    return part_name(week)


async def names(db: Database) -> set[str]:
    async with db.connection() as conn:
        return {part.name for part in await partitions(conn, "steps")}


def tasks_of(week: datetime, count: int, first: int = 0) -> list[NewTask]:
    """As an API of that week would have made them."""
    low = first_id(ids.TASK, week + timedelta(days=1))
    return [make_new_task(n + 1)._replace(task_id=TaskId(f"{low[:-8]}{first + n:08d}")) for n in range(count)]


async def finished(world: PostgresWorld, project: Project, rows: list[NewTask]) -> Batch:
    await world.submit(project)
    job = await world.worker.claim_validation(lease_s=LEASE_S)
    assert job is not None
    await world.worker.ingest(job, pages(rows), model=lambda: "cope", expires_in=timedelta(days=1))
    await world.commit(*[done(task, step=finished_step()) for task in await world.claim(limit=len(rows))])
    await world.finish(job.batch)
    return await world.see(job.batch)


async def count(db: Database, table: str) -> int:
    async with db.connection() as conn:
        row = await (await conn.execute(f"SELECT count(*) FROM {table}")).fetchone()
    assert row is not None
    return int(row[0])


async def test_steps_go_with_their_week_in_one_piece(world: PostgresWorld, db: Database) -> None:
    part = await make_part(db, old_week(3))
    await finished(world, await world.project(), tasks_of(old_week(3), 5))
    assert await count(db, "steps") == 5
    await world.advance(11 * DAY)

    pruned = await world.worker.prune(TEN, limit=1000)

    assert (pruned.tasks, pruned.partitions, pruned.held) == (5, (part,), ())
    assert part not in await names(db)
    assert await count(db, "steps") == 0


async def test_steps_whose_week_stays_for_long_go_with_their_tasks(world: PostgresWorld, db: Database) -> None:
    part = await make_part(db, old_week(0) + 9 * WEEK)
    await finished(world, await world.project(), tasks_of(old_week(0) + 9 * WEEK, 5))
    await world.advance(11 * DAY)

    assert (await world.worker.prune(TEN, limit=1000)).tasks == 5

    assert await count(db, "steps") == 0
    assert part in await names(db)
    async with db.transaction() as conn:
        await conn.execute("SELECT drop_partition('steps', %s)", [part])


async def test_one_task_that_must_be_kept_holds_its_partition_back_and_is_told(
    world: PostgresWorld, db: Database
) -> None:
    part = await make_part(db, old_week(4))
    keeper = await world.project()
    await world.api.set_keep_days(keeper.id, 300)
    kept = await finished(world, keeper, tasks_of(old_week(4), 2))
    await finished(world, await world.project(), tasks_of(old_week(4), 3, first=100))
    await world.advance(11 * DAY)

    pruned = await world.worker.prune(TEN, limit=1000)

    assert (pruned.tasks, pruned.partitions, pruned.held) == (3, (), (part,))
    shown = {view.name: view for view in (await world.worker.look(TEN)).partitions}
    assert shown[part].held
    # It is over its time by a week and more: only what holds it is kept.
    assert await count(db, "steps") == 2
    page = await world.api.list_tasks(keeper.id, kept.id, state=None, after=None, limit=10)
    assert [len(task.history) for task in page.items] == [1, 1]

    await world.api.set_keep_days(keeper.id, None)
    assert (await world.worker.prune(TEN, limit=1000)).partitions == (part,)


async def test_two_passes_at_once_do_each_thing_once(world: PostgresWorld, db: Database) -> None:
    part = await make_part(db, old_week(5))
    project = await world.project()
    for first in range(4):
        await finished(world, project, tasks_of(old_week(5), 20, first=100 * first))
    await world.advance(11 * DAY)

    passes = await asyncio.gather(*[world.worker.prune(TEN, limit=1000) for _ in range(4)])
    last = await world.worker.prune(TEN, limit=1000)

    assert sum(one.batches for one in [*passes, last]) == 4
    assert sum(one.tasks for one in [*passes, last]) == 80
    assert [name for one in [*passes, last] for name in one.partitions] == [part]
    assert await count(db, "tasks") == 0
    assert await count(db, "upkeep_notes WHERE name LIKE 'prune %'") == 0


async def test_a_pass_that_was_cut_off_is_ended_by_the_next_one(world: PostgresWorld, db: Database) -> None:
    batch = await finished(world, await world.project(), tasks_of(old_week(0), 9))
    await world.advance(11 * DAY)

    cut_off = await world.worker.prune(TEN, limit=4)
    assert cut_off.more
    assert 0 < await count(db, "tasks") < 9
    assert (await world.see(batch)).pruned_at is not None
    rest = await world.worker.prune(TEN, limit=1000)

    assert (rest.batches, cut_off.tasks + rest.tasks) == (0, 9)
    assert await count(db, "tasks") == 0


async def test_a_partition_that_somebody_reads_is_left_for_the_next_pass(world: PostgresWorld, db: Database) -> None:
    part = await make_part(db, old_week(6))
    async with db.transaction() as reading:
        await reading.execute("SELECT count(*) FROM steps")
        assert (await world.worker.prune(TEN, limit=1000)).partitions == ()
    assert (await world.worker.prune(TEN, limit=1000)).partitions == (part,)


async def test_the_sweep_makes_the_partitions_of_the_next_weeks(world: PostgresWorld, db: Database) -> None:
    await world.sweep()

    assert {part_name(old_week(0) + WEEK), part_name(old_week(0) + 2 * WEEK)} <= await names(db)
    await world.sweep()


async def test_partitions_of_other_tables_are_never_dropped(db: Database) -> None:
    for table in ("ledger", "tasks", "attempts"):
        with pytest.raises(psycopg.errors.RaiseException, match="never dropped"):
            async with db.transaction() as conn:
                await conn.execute("SELECT drop_partition(%s, %s)", [table, f"{table}_rest"])
    async with db.transaction() as conn:
        row = await (await conn.execute("SELECT drop_partition('steps', 'tasks')")).fetchone()
    assert row == (False,)


async def test_steps_of_a_week_without_a_partition_are_kept_and_go_with_their_tasks(
    world: PostgresWorld, db: Database
) -> None:
    await finished(world, await world.project(), tasks_of(old_week(-30), 3))
    assert await count(db, "steps_rest") == 3
    await world.advance(11 * DAY)

    await world.worker.prune(TEN, limit=1000)

    assert await count(db, "steps_rest") == 0


async def test_whole_days_of_a_table_by_time_go_and_the_present_ones_stay(world: PostgresWorld, place: Place) -> None:
    with psycopg.connect(place.owner, autocommit=True) as conn:
        made = conn.execute("SELECT to_regclass('public.event_log') IS NULL").fetchone()
        if made == (True,):
            conn.execute("CREATE TABLE event_log (logged_at timestamptz NOT NULL) PARTITION BY RANGE (logged_at)")
        for name, low, high in (
            ("event_log_old", "2020-01-01", "2020-01-02"),
            ("event_log_new", "2199-01-01", "2199-01-02"),
        ):
            conn.execute(f"CREATE TABLE {name} PARTITION OF event_log FOR VALUES FROM ('{low} UTC') TO ('{high} UTC')")
    try:
        assert (await world.worker.prune(Keeping(events=None), limit=10)).partitions == ()
        assert (await world.worker.prune(Keeping(events=timedelta(days=30)), limit=10)).partitions == ("event_log_old",)
        assert "event_log_new" in {view.name for view in (await world.worker.look(Keeping())).partitions}
    finally:
        with psycopg.connect(place.owner, autocommit=True) as conn:
            conn.execute("DROP TABLE event_log" if made == (True,) else "DROP TABLE event_log_new")


def rows(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as conn:
        return conn.execute("SELECT task_id, name, data FROM steps ORDER BY task_id, name").fetchall()


def test_a_table_that_is_full_becomes_the_first_partition_and_goes_back_again(bare: Place) -> None:
    upgrade(bare.owner, "0010")
    now = datetime.now(UTC)
    with psycopg.connect(bare.superuser) as conn:
        for number in range(500):
            at = now - timedelta(hours=number)
            conn.execute(
                "INSERT INTO steps (task_id, name, data) VALUES (%s, 'stage1', 'text'), (%s, 'stage3', %s)",
                [*[f"{first_id(ids.TASK, at)[:-8]}{number:08d}"] * 2, "x" * number],
            )
        # One clock was wrong by years.
        conn.execute("INSERT INTO steps (task_id, name, data) VALUES (%s, 'stage1', 'late')", [
            first_id(ids.TASK, now + timedelta(days=3000))])  # fmt: skip
    before = rows(bare.superuser)

    upgrade(bare.owner)

    assert rows(bare.superuser) == before
    with psycopg.connect(bare.superuser) as conn:
        found = dict(conn.execute("SELECT tableoid::regclass::text, count(*) FROM steps GROUP BY 1").fetchall())
    assert found == {"steps_before": 1000, "steps_rest": 1}
    with psycopg.connect(bare.worker) as conn:
        conn.execute("INSERT INTO steps (task_id, name, data) VALUES (%s, 'stage1', 'new')", [before[0][0] + "x"])
        conn.execute("DELETE FROM steps WHERE data = 'new'")
    with psycopg.connect(bare.api) as conn:
        assert conn.execute("SELECT count(*) FROM steps").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT count(*) FROM steps_before")
    downgrade(bare.owner, "0010")
    assert rows(bare.superuser) == before


async def test_files_from_before_are_read_under_their_own_names_and_freed_when_they_are_deleted(
    world: PostgresWorld, place: Place
) -> None:
    project = await world.project()
    with psycopg.connect(place.superuser) as conn:
        for name in ("file-one", "file-two"):
            conn.execute(
                "INSERT INTO files (id, project_id, filename, purpose, bytes, sha256, created_at)"
                " VALUES (%s, %s, 'in', 'batch', 7, 'same', now())",
                [name, project.id],
            )
    file = await world.worker.file(ids.FileId("file-one"))
    assert file is not None
    assert file.bytes_id == "file-one"
    assert (await world.api.stored(project.id)).bytes == 14
    assert list(await world.worker.disown([ids.FileId("file-one")])) == []

    deleted = await world.api.delete_file(project.id, ids.FileId("file-one"))

    assert deleted is not None
    assert deleted.freed == "file-one"
    assert list(await world.worker.freed_bytes(limit=10)) == ["file-one"]


async def test_what_only_tells_of_pruned_things_goes_with_them(
    world: PostgresWorld, db: Database, place: Place
) -> None:
    project = await world.project()
    await finished(world, project, tasks_of(old_week(0), 9))
    other = await finished(world, project, tasks_of(old_week(0), 2, first=50))
    await world.api.set_keep_days(project.id, 5)
    await world.sweep()
    with psycopg.connect(place.superuser, autocommit=True) as conn:
        conn.execute("UPDATE batches SET completed_at = completed_at - interval '6 days' WHERE id <> %s", [other.id])
        for delivery, state in (("whd_1", "delivered"), ("whd_2", "pending")):
            conn.execute(
                "INSERT INTO deliveries (id, project_id, event_id, url, body, state, finished_at)"
                " VALUES (%s, %s, 'evt_1', 'https://a', '{}', %s, now() - %s::interval)",
                [delivery, project.id, state, "31 days" if state == "delivered" else None],
            )
        aged = conn.execute("UPDATE event_log SET logged_at = now() - interval '40 days' WHERE \"offset\" = 1")
    assert aged.rowcount == 1

    assert (await world.worker.prune(Keeping(), limit=1000)).batches == 1

    assert await count(db, "batch_ends") == 1  # of one commit
    assert await count(db, f"batch_ends WHERE batch_id = '{other.id}'") == 1
    assert await count(db, "deliveries WHERE id = 'whd_1'") == 0
    assert await count(db, "deliveries WHERE id = 'whd_2'") == 1
    assert await count(db, "event_log WHERE logged_at < now() - interval '35 days'") == 0
