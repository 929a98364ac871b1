"""Grants a second of the shared limiter, beside what limits it: ``python ops/bench/limiter_bench.py [--rounds 7]``.

Each round measures, in turns and in one process: EVALSHA of a script that only reads the clock (the round trip),
EVALSHA of our own script with the same arguments and nothing around it, `RedisLimiter.acquire` with `give_back`, and
the same on Postgres. One caller at a time shows the latency, 64 at once what one process can get.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from redis.asyncio import Redis

from cope.adapters.postgres.limiter import PostgresLimiter
from cope.adapters.postgres.migrate import OWNER, WORKER, create_roles, upgrade
from cope.adapters.redis_limiter import RedisLimiter
from cope.core.limits.types import Ask, Grant, Report, Verdict
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.prompts import BUILT_IN
from cope.core.stages import Tier
from cope.ports.limiter import Limiter
from cope_local.postgres import EmbeddedPostgres
from cope_local.redis import EmbeddedRedis

PASSWORD = "only-here"
CLOCK = "return redis.call('TIME')[1]"
Act = Callable[[], Awaitable[object]]


async def rate(act: Act, *, callers: int, seconds: float) -> float:
    """How often `act` is done a second by that many callers, each doing it again and again."""
    done, end = 0, time.perf_counter() + seconds

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await act()
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return done / (time.perf_counter() - began)


def taking(limiter: Limiter) -> Act:
    """One grant and its return."""

    async def act() -> None:
        answer = await limiter.acquire("large", Ask(500))
        assert isinstance(answer, Grant), answer
        await limiter.give_back(answer, Report(Verdict.FINE, tokens=400, took_s=1.0))

    return act


async def bench(rounds: int, seconds: float, folder: Path) -> None:
    """Print medians with their spread."""
    entry = ModelEntry(
        "large", "large", "http://x/v1", Tier.LARGE, "instruct", 4096, price_id="p", rpm=10**8, tpm=10**10,
        concurrency=100_000,
    )  # fmt: skip
    catalog = ModelCatalog({"large": entry}, "large", "large", BUILT_IN)
    with (
        EmbeddedRedis(folder / "redis", password=PASSWORD) as server,
        EmbeddedPostgres(folder / "postgres", password=PASSWORD) as cluster,
    ):
        create_roles(
            cluster.url(), owner_password=PASSWORD, api_password=PASSWORD, worker_password=PASSWORD, database="limits"
        )
        upgrade(cluster.url("limits", OWNER, PASSWORD))
        async with AsyncExitStack() as stack:
            in_redis = RedisLimiter(server.url, catalog)
            stack.push_async_callback(in_redis.aclose)
            in_postgres = PostgresLimiter(cluster.url("limits", WORKER, PASSWORD), catalog)
            stack.push_async_callback(in_postgres.aclose)
            await in_postgres.open()
            raw = Redis.from_url(server.url, decode_responses=True)
            stack.push_async_callback(raw.aclose)
            clock = raw.register_script(CLOCK)
            keys = [f"bench:{part}" for part in ("g", "b", "s", "a")]
            arguments = ["acquire", "", "60.0", "1.0", "0.75", 1, 500, 1, "x", 10**8, 10**10, 0, "1.0", "0"]
            script = raw.register_script(
                (Path(__file__).parents[2] / "shared/cope/adapters/redis_limiter.lua").read_text()
            )
            arms: dict[str, Act] = {
                "EVALSHA, clock only": clock,
                "EVALSHA, our acquire": lambda: script(keys=keys, args=arguments),
                "Redis: grant and return": taking(in_redis),
                "Postgres: grant and return": taking(in_postgres),
            }
            for callers in (1, 64):
                found: dict[str, list[float]] = {name: [] for name in arms}
                for _ in range(rounds):
                    for name, act in arms.items():
                        found[name].append(await rate(act, callers=callers, seconds=seconds))
                print(f"{callers} at a time")
                for name, rates in found.items():
                    print(f"  {name:28} {statistics.median(rates):8.0f}/s  ({min(rates):.0f} to {max(rates):.0f})")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cope-bench-") as folder:
        Path(folder).chmod(0o755)
        asyncio.run(bench(given.rounds, given.seconds, Path(folder)))


if __name__ == "__main__":
    main()
