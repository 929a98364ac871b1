"""What weekly partitions of steps cost a claim and a commit, and what a pass of retention beside them costs.

Starts a Postgres of its own (durable) in a temporary folder, prints two tables, and leaves nothing behind::

    python ops/bench/retention.py [--tasks 2000] [--weeks 13] [--old 200]

First the two statements of a commit that touch steps, in groups of 100, by turns against one table and against
partitions: what else the machine does falls on both. Then whole claims and commits, alone and while a pass prunes
`--weeks` weeks of `--old` finished tasks.
"""

import argparse
import asyncio
import statistics
import time
from datetime import UTC, datetime, timedelta

import psycopg
from store_bench import Bench, body, groups, new_task, server, step

from cope.core import ids
from cope.core.ids import TaskId
from cope.core.keeping import WEEK, Keeping, first_id, week_of
from cope.core.task import StoreLevel
from cope.ports.store import StepCommit, ToDone

_KEEPING = Keeping(tasks=timedelta(days=1), live=timedelta(days=1))
_GROUP, _TURNS = 100, 4

_READ = """
SELECT t.id, ARRAY(SELECT s.data FROM {table} s WHERE s.task_id = t.id ORDER BY s.at) AS steps,
  ARRAY(SELECT s.name FROM {table} s WHERE s.task_id = t.id) AS names
FROM tasks t JOIN unnest(%s::text[], %s::bool[]) AS c (id, ends) ON t.id = c.id ORDER BY t.id FOR NO KEY UPDATE OF t
"""
_WRITE = """
INSERT INTO {table} (task_id, name, data) SELECT * FROM unnest(%b::text[], %b::text[], %b::text[])
ON CONFLICT DO NOTHING
"""


async def statements(bench: Bench, arguments: argparse.Namespace) -> None:
    """Median milliseconds per group."""
    await bench.ingest([new_task(line, StoreLevel.ANSWERS) for line in range(1, arguments.tasks + 1)])
    texts = [f"words {number} " * 300 for number in range(_GROUP)]
    spent: dict[tuple[str, str], list[float]] = {}
    with psycopg.connect(bench.place, autocommit=True, prepare_threshold=2) as conn:
        conn.execute("CREATE TABLE one_table (LIKE steps INCLUDING ALL)")
        for ago in range(1, arguments.weeks + 1):
            make_week(conn, week_of(datetime.now(UTC)) - ago * WEEK)
        conn.execute("VACUUM ANALYZE")
        rows = [row[0] for row in conn.execute("SELECT id FROM tasks ORDER BY id").fetchall()]
        for turn in range(_TURNS):
            for group in groups(rows):
                for table in ("one_table", "steps"):
                    began = time.perf_counter()
                    conn.execute(_READ.format(table=table), [group, [True] * len(group)]).fetchall()  # type: ignore[arg-type]
                    read = time.perf_counter()
                    values = [group, [f"step{turn}"] * len(group), texts[: len(group)]]
                    conn.execute(_WRITE.format(table=table), values)  # type: ignore[arg-type]
                    spent.setdefault((table, "read"), []).append(read - began)
                    spent.setdefault((table, "write"), []).append(time.perf_counter() - read)
        found = conn.execute("SELECT count(*) FROM pg_inherits WHERE inhparent = 'steps'::regclass").fetchone()
    print(f"{'ms per 100 tasks, median':32} {'read':>8} {'write':>8}")
    for table, name in (("one_table", "one table"), ("steps", f"{found[0] if found else 0} partitions")):
        read, write = (1000 * statistics.median(spent[table, what]) for what in ("read", "write"))
        print(f"{name:32} {read:8.1f} {write:8.1f}")


def make_week(conn: psycopg.Connection, week: datetime) -> None:
    """A partition of the past."""
    low, high = first_id(ids.TASK, week), first_id(ids.TASK, week + WEEK)
    conn.execute("SELECT make_steps_partition(%s, %s, %s)", [f"steps_{week:%Y%m%d}", low, high])


async def fill(bench: Bench, weeks: int, old: int) -> None:
    """Finished tasks of past weeks, whose batches are over their time."""
    for ago in range(3, weeks + 3):
        week = week_of(datetime.now(UTC)) - ago * WEEK
        with psycopg.connect(bench.place, autocommit=True) as conn:
            make_week(conn, week)
        rows = [new_task(n, StoreLevel.ANSWERS) for n in range(1, old + 1)]
        head = first_id(ids.TASK, week)[:-8]
        await bench.ingest([row._replace(task_id=TaskId(f"{head}{row.line:08d}")) for row in rows])
        await finish(bench, old)
    with psycopg.connect(bench.place, autocommit=True) as conn:
        conn.execute(
            "UPDATE batches SET status = 'completed', completed_at = now() - interval '30 days' WHERE done = total"
        )
        conn.execute("VACUUM ANALYZE")
        conn.execute("CHECKPOINT")


async def finish(bench: Bench, count: int) -> tuple[float, float]:
    """Claims and commits per second of `count` tasks of one step each."""
    claimed, rate = await bench.claims("small", count)
    commits = [StepCommit(t.task_id, t.fence, step("33333334"), ToDone(body("5"), 1, accepted=True)) for t in claimed]
    began = time.perf_counter()
    for group in groups(commits):
        await bench.worker.commit(group)
    return rate, count / (time.perf_counter() - began)


async def beside(bench: Bench, arguments: argparse.Namespace) -> None:
    """Alone, and while a pass prunes everything that is old."""
    await fill(bench, arguments.weeks, arguments.old)
    await bench.ingest([new_task(line, StoreLevel.ANSWERS) for line in range(1, 2 * arguments.tasks + 1)])
    alone = await finish(bench, arguments.tasks)
    began = time.perf_counter()
    pruning = asyncio.create_task(bench.worker.prune(_KEEPING, limit=10**9))
    meanwhile = await finish(bench, arguments.tasks)
    pruned = await pruning
    took = time.perf_counter() - began
    print(f"\n{'':32} {'claims/s':>10} {'commits/s':>10}")
    print(f"{'alone':32} {alone[0]:10,.0f} {alone[1]:10,.0f}")
    print(
        f"{'while a pass prunes':32} {meanwhile[0]:10,.0f} {meanwhile[1]:10,.0f}   {pruned.tasks:,} tasks, "
        f"{len(pruned.partitions)} partitions in {took:.1f} s"
    )


async def measure(url: str, arguments: argparse.Namespace) -> None:
    """Each in a database of its own."""
    async with Bench(url) as bench:
        await statements(bench, arguments)
    async with Bench(url) as bench:
        await beside(bench, arguments)


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=2_000)
    parser.add_argument("--weeks", type=int, default=13)
    parser.add_argument("--old", type=int, default=200)
    arguments = parser.parse_args()
    with server() as url:
        asyncio.run(measure(url, arguments))


if __name__ == "__main__":
    main()
