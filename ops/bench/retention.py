"""What weekly partitions of steps, and a pass of retention beside the work, cost the claims and commits of workers.

Starts a Postgres of its own (durable) in a temporary folder, prints one table, and leaves nothing behind::

    python ops/bench/retention.py [--tasks 3000] [--weeks 13] [--old 2000] [--rounds 3]

`--weeks` weeks of the past have `--old` finished tasks each, in every kind. Rounds alternate between the kinds, so that
what else the machine does falls on all of them.
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

_ONE, _PRUNED = "one table", "while a pass prunes all of it"
_KEEPING = Keeping(tasks=timedelta(days=1), live=timedelta(days=1))
# One table again, as it was before there were partitions.
_PLAIN = """
DROP TABLE steps;
CREATE TABLE steps (task_id text COLLATE "C" NOT NULL, name text NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp(), data text NOT NULL, PRIMARY KEY (task_id, name));
GRANT SELECT, INSERT, UPDATE, DELETE ON steps TO cope_worker;
"""


async def work(bench: Bench, count: int) -> tuple[float, float]:
    """Claims and commits per second, in groups of 100, of `count` tasks of one step each."""
    await bench.ingest([new_task(line, StoreLevel.ANSWERS) for line in range(1, count + 1)])
    claimed, rate = await bench.claims("small", count)
    commits = [StepCommit(t.task_id, t.fence, step("33333334"), ToDone(body("5"), 1, accepted=True)) for t in claimed]
    began = time.perf_counter()
    for group in groups(commits):
        await bench.worker.commit(group)
    return rate, count / (time.perf_counter() - began)


async def fill(bench: Bench, weeks: int, old: int, *, partitioned: bool) -> None:
    """Finished tasks of past weeks, whose batches are over their time."""
    now = datetime.now(UTC)
    for ago in range(3, weeks + 3):
        week = week_of(now) - ago * WEEK
        low = first_id(ids.TASK, week)
        if partitioned:
            with psycopg.connect(bench.place, autocommit=True) as conn:
                name, high = f"steps_{week:%Y%m%d}", first_id(ids.TASK, week + WEEK)
                conn.execute("SELECT make_steps_partition(%s, %s, %s)", [name, low, high])
        rows = [new_task(n, StoreLevel.ANSWERS) for n in range(1, old + 1)]
        await bench.ingest([row._replace(task_id=TaskId(f"{low[:-8]}{row.line:08d}")) for row in rows])
        for group in groups([None] * old):
            claimed, _ = await bench.claims("small", len(group))
            await bench.worker.commit(
                [StepCommit(t.task_id, t.fence, step("33333334"), ToDone(body("5"), 1, accepted=True)) for t in claimed]
            )
    with psycopg.connect(bench.place, autocommit=True) as conn:
        conn.execute(
            "UPDATE batches SET status = 'completed', completed_at = now() - interval '30 days' WHERE done = total"
        )
        conn.execute("VACUUM ANALYZE")
        conn.execute("CHECKPOINT")


async def measure(url: str, kind: str, arguments: argparse.Namespace) -> tuple[float, float, str]:
    """One round in a database of its own."""
    async with Bench(url) as bench:
        if kind == _ONE:
            with psycopg.connect(bench.place, autocommit=True) as conn:
                conn.execute(_PLAIN)
        await fill(bench, arguments.weeks, arguments.old, partitioned=kind != _ONE)
        if kind != _PRUNED:
            return *await work(bench, arguments.tasks), ""
        began = time.perf_counter()
        pruning = asyncio.create_task(bench.worker.prune(_KEEPING, limit=10**9))
        claims, commits = await work(bench, arguments.tasks)
        pruned = await pruning
        return (
            claims,
            commits,
            f"{pruned.tasks:,} tasks and {len(pruned.partitions)} partitions in {time.perf_counter() - began:.1f} s",
        )


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=3_000)
    parser.add_argument("--weeks", type=int, default=13)
    parser.add_argument("--old", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    kinds = (
        "one table",
        "partitions of these weeks",
        f"{arguments.weeks} old weeks beside",
        "while a pass prunes all of it",
    )
    found: dict[str, list[tuple[float, float, str]]] = {kind: [] for kind in kinds}
    with server() as url:
        for _ in range(arguments.rounds):
            for kind in kinds:
                found[kind].append(asyncio.run(measure(url, kind, arguments)))
    print(f"{'steps in':32} {'claims/s':>10} {'commits/s':>10}")
    for kind, rounds in found.items():
        claims, commits = (statistics.median(column) for column in list(zip(*rounds, strict=True))[:2])
        print(f"{kind:32} {claims:10,.0f} {commits:10,.0f}   {rounds[-1][2]}")


if __name__ == "__main__":
    main()
