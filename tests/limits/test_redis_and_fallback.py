"""The shared limiter by Redis's own clock: leaked slots, an emptied Redis, and no Redis at all."""

import asyncio

import pytest
from redis.asyncio import Redis

from cope.adapters.fallback_limiter import FallbackLimiter
from cope.adapters.local_limiter import LocalLimiter
from cope.adapters.postgres.limiter import PostgresLimiter
from cope.adapters.redis_limiter import RedisLimiter
from cope.adapters.shared_limits import LimiterAway
from cope.core.limits.types import Ask, Grant, Pace, Report, Verdict, Wait
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.prompts import BUILT_IN
from cope.core.stages import Tier
from cope_local.children import free_port
from cope_local.redis import EmbeddedRedis

pytestmark = pytest.mark.integration


def catalog(name: str, **limits: int) -> ModelCatalog:
    entry = ModelEntry(name, name, f"http://{name}/v1", Tier.LARGE, "instruct", 4096, price_id="p", **limits)  # type: ignore[arg-type]
    return ModelCatalog({name: entry}, name, name, BUILT_IN)


async def test_sixteen_callers_at_once_get_the_burst_and_then_places_at_the_pace(redis_server: EmbeddedRedis):
    limiters = [RedisLimiter(redis_server.url, catalog("many", rpm=600)) for _ in range(16)]
    answers = await asyncio.gather(*(limiter.acquire("many", Ask(1)) for limiter in limiters for _ in range(10)))
    for limiter in limiters:
        await limiter.aclose()

    granted = [answer for answer in answers if isinstance(answer, Grant)]
    # Ten a second, up to 0.75 s ahead; a slow machine may let some time pass meanwhile.
    assert 7 <= len(granted) <= 60
    assert len({answer.seconds for answer in answers if isinstance(answer, Wait)}) == 160 - len(granted)


async def test_after_a_flush_nothing_is_granted_until_the_places_given_away_are_used_and_then_no_burst(
    redis_server: EmbeddedRedis,
):
    limiter = RedisLimiter(redis_server.url, catalog("flushed", rpm=600))
    while isinstance(await limiter.acquire("flushed", Ask(1)), Grant):
        pass
    client = Redis.from_url(redis_server.url)
    await client.flushall()
    await client.aclose()

    answers = [await limiter.acquire("flushed", Ask(1)) for _ in range(5)]
    await limiter.aclose()

    starts = [answer.wait_s if isinstance(answer, Grant) else answer.seconds for answer in answers]
    assert starts[0] == pytest.approx(0.75, abs=0.02)
    assert sum(isinstance(answer, Grant) for answer in answers) <= 1


async def test_an_answer_that_comes_first_after_a_flush_does_not_spare_the_others_that_pause(
    redis_server: EmbeddedRedis,
):
    before = RedisLimiter(redis_server.url, catalog("answered", rpm=600))
    after = RedisLimiter(redis_server.url, catalog("answered", rpm=600))
    grant = await before.acquire("answered", Ask(1))
    assert isinstance(grant, Grant)
    client = Redis.from_url(redis_server.url)
    await client.flushall()
    await client.aclose()
    await before.give_back(grant, Report(Verdict.FINE))

    answer = await after.acquire("answered", Ask(1))
    await before.aclose()
    await after.aclose()

    assert isinstance(answer, Grant)
    assert answer.wait_s == pytest.approx(0.75, abs=0.1)


async def test_slots_of_calls_under_way_come_back_after_a_flush(redis_server: EmbeddedRedis):
    limiter = RedisLimiter(redis_server.url, catalog("kept", concurrency=1), pace=Pace(slot_lease_s=4.0))
    assert isinstance(await limiter.acquire("kept", Ask(1)), Grant)
    client = Redis.from_url(redis_server.url)
    await client.flushall()
    await client.aclose()
    await asyncio.sleep(1.5)  # it is renewed each second

    assert isinstance(await limiter.acquire("kept", Ask(1)), Wait)
    await limiter.aclose()


async def test_a_dead_workers_slots_expire(redis_server: EmbeddedRedis):
    now, pace = [1_800_000_000.0], Pace(slot_lease_s=2.0)
    dead = RedisLimiter(redis_server.url, catalog("leaked", concurrency=1), pace=pace, clock=lambda: now[0])
    other = RedisLimiter(redis_server.url, catalog("leaked", concurrency=1), pace=pace, clock=lambda: now[0])
    assert isinstance(await dead.acquire("leaked", Ask(1)), Grant)
    await dead.aclose()  # it renews nothing any more, as after a kill -9
    now[0] += 1.9
    assert isinstance(await other.acquire("leaked", Ask(1)), Wait)
    now[0] += 0.2

    assert isinstance(await other.acquire("leaked", Ask(1)), Grant)
    await other.aclose()


async def test_a_call_that_ends_while_redis_is_left_alone_gives_its_slot_free_all_the_same(
    redis_server: EmbeddedRedis,
):
    now, pace = [1_700_000_000.0], Pace(slot_lease_s=0.04)
    mine = RedisLimiter(redis_server.url, catalog("outlived", concurrency=1), pace=pace, clock=lambda: now[0])
    other = RedisLimiter(redis_server.url, catalog("outlived", concurrency=1), clock=lambda: now[0])
    limiter = FallbackLimiter([("redis", mine)], LocalLimiter(catalog("outlived", concurrency=1), share=1))
    grant = await limiter.acquire("outlived", Ask(1))
    assert isinstance(grant, Grant)

    limiter._missed("redis", LimiterAway("it did not answer for a moment"))
    await limiter.give_back(grant, Report(Verdict.FINE, tokens=1))
    now[0] += 21
    await asyncio.sleep(0.1)  # some rounds of renewing

    assert isinstance(await other.acquire("outlived", Ask(1)), Grant)
    await mine.aclose()
    await other.aclose()


async def test_without_redis_the_same_limits_are_kept_in_postgres_and_without_both_each_process_keeps_to_its_share(
    redis_server: EmbeddedRedis, limits_database: str
):
    models = catalog("away", rpm=120)
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    async with asyncio.timeout(30):
        lost = [RedisLimiter(nowhere, models), RedisLimiter(nowhere, models)]
        there = [PostgresLimiter(limits_database, models), PostgresLimiter(limits_database, models)]
        for one in there:
            await one.open()
        both = [
            FallbackLimiter([("redis", r), ("postgres", p)], LocalLimiter(models, share=1 / 60))
            for r, p in zip(lost, there, strict=True)
        ]
        answers = [await both[n % 2].acquire("away", Ask(1)) for n in range(8)]
        granted = [answer for answer in answers if isinstance(answer, Grant)]
        # Two a second, the first after the places that Redis may have given away: one or two at most for both together.
        assert 1 <= len(granted) <= 2
        assert {grant.ticket.keeper for grant in granted} == {"postgres"}
        for grant in granted:
            await both[0].give_back(grant, Report(Verdict.FINE, tokens=1))
        assert (await both[0].headroom())[0].used_calls == pytest.approx(len(granted) / 120)
        for one in (*there, *lost):
            await one.aclose()

        alone = FallbackLimiter([("redis", lost[0])], LocalLimiter(models, share=1 / 60))
        first = await alone.acquire("away", Ask(1))
        assert isinstance(first, Grant)
        assert first.ticket.keeper == "local"
        assert (await alone.headroom())[0].configured.rpm == 2


async def test_a_limiter_whose_redis_is_away_says_so():
    limiter = RedisLimiter(f"redis://127.0.0.1:{free_port()}/0", catalog("gone", rpm=1), pace=Pace())
    with pytest.raises(LimiterAway):
        await limiter.acquire("gone", Ask(1))
    await limiter.aclose()
