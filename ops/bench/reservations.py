"""Reservations per second on one project, beside what limits them: one row's conditional UPDATE.

Eight clients at once on one Postgres of our own. Each round measures one after the other: a bare conditional UPDATE of
one row (autocommit: one reservation; and one UPDATE that takes 100 at once), and the store's own reservation of whole
calls (locks, three budgets, attempt, ledger) alone and in groups.

    python ops/bench/reservations.py --rounds 5
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence

import psycopg
from store_bench import Bench, new_task, server

from cope.core.money import NanoUSD
from cope.core.task import StoreLevel
from cope.ports.store import ClaimedTask, Granted, ReserveRequest

CLIENTS = 8
_BARE = """
UPDATE bare SET reserved = reserved + %(amount)s, ceiling = cap
WHERE id = 1 AND (cap IS NULL OR spent + reserved + unconfirmed + %(amount)s <= cap)
"""


async def together(work: Callable[[int], Awaitable[int]]) -> float:
    """Reservations per second of all clients together; `work` says how many its client has made."""
    began = time.perf_counter()
    made = await asyncio.gather(*(work(client) for client in range(CLIENTS)))
    return sum(made) / (time.perf_counter() - began)


async def bare(place: str, size: int, rounds: int) -> float:
    """`rounds` statements a client, each of which takes `size` reservations."""

    async def client(_: int) -> int:
        async with await psycopg.AsyncConnection.connect(place, autocommit=True, prepare_threshold=1) as conn:
            for _ in range(rounds):
                await conn.execute(_BARE, {"amount": 1000 * size})
        return size * rounds

    return await together(client)


async def whole(bench: Bench, tasks: Sequence[ClaimedTask], size: int) -> float:
    """The store's own: each client reserves for its share of `tasks`, `size` at a time."""
    share = len(tasks) // CLIENTS

    async def client(number: int) -> int:
        mine, granted = tasks[number * share : (number + 1) * share], 0
        for start in range(0, share, size):
            results = await bench.worker.reserve([ask(task, size) for task in mine[start : start + size]])
            granted += sum(isinstance(result, Granted) for result in results)
        return granted

    return await together(client)


def ask(task: ClaimedTask, size: int) -> ReserveRequest:
    """A call's worst case; each group size names a step of its own, so that no attempt is in another's way."""
    return ReserveRequest(
        task.task_id, task.fence, task.project_id, task.batch_id, f"step-{size}", "large", "v", NanoUSD(1000), "r"
    )


async def measure(url: str, rounds: int, count: int) -> None:
    """Print medians and spread."""
    found: dict[str, list[float]] = {}
    async with Bench(url) as bench:
        with psycopg.connect(bench.place, autocommit=True) as conn:
            conn.execute(
                "CREATE TABLE bare (id int PRIMARY KEY, cap bigint, ceiling bigint, spent bigint DEFAULT 0,"
                " reserved bigint DEFAULT 0, unconfirmed bigint DEFAULT 0) WITH (fillfactor = 20);"
                " INSERT INTO bare (id, cap) VALUES (1, 9000000000000000000)"
            )
        for _ in range(rounds):
            await bench.ingest([new_task(line, StoreLevel.NONE) for line in range(count)])
            tasks, _rate = await bench.claims("small", count)
            for name, rate in (
                ("bare UPDATE of one row, one reservation each", await bare(bench.place, 1, count // CLIENTS)),
                ("store, one call at a time", await whole(bench, tasks, 1)),
                ("store, groups of 16", await whole(bench, tasks, 16)),
                ("store, groups of 100", await whole(bench, tasks, 100)),
                ("bare UPDATE of one row, 100 reservations each", await bare(bench.place, 100, count // CLIENTS // 10)),
            ):
                found.setdefault(name, []).append(rate)
    alone = statistics.median(found["bare UPDATE of one row, one reservation each"])
    for name, rates in found.items():
        middle = statistics.median(rates)
        spread = f"{min(rates):,.0f}–{max(rates):,.0f}"
        print(f"{name:48} {middle:10,.0f}/s  ({spread})  {middle / alone:5.2f} of the bare one")


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=3200, help="a round; a multiple of 800 (default 3,200)")
    arguments = parser.parse_args()
    with server() as url:
        asyncio.run(measure(url, arguments.rounds, arguments.tasks))


if __name__ == "__main__":
    main()
