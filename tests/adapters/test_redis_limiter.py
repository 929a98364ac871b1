"""The shared limiter on a real Redis: exact over many callers, and harmless without Redis."""

import asyncio

import pytest

from cope.adapters.redis_limiter import RedisLimiter
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.prompts import BUILT_IN
from cope.core.stages import Tier
from cope_local.children import free_port
from cope_local.redis import EmbeddedRedis

pytestmark = pytest.mark.integration


def catalog(name: str, **limits: int) -> ModelCatalog:
    entry = ModelEntry(name, name, "http://localhost/v1", Tier.LARGE, "instruct", 4096, price_id="p", **limits)  # type: ignore[arg-type]
    return ModelCatalog({name: entry}, name, name, BUILT_IN)


async def test_sixteen_callers_together_get_what_one_minute_allows_and_no_more(redis_server: EmbeddedRedis):
    limiters = [RedisLimiter(redis_server.url, catalog("many", rpm=600)) for _ in range(16)]
    grants = await asyncio.gather(*(limiter.acquire("many", tokens=1) for limiter in limiters for _ in range(10)))
    for limiter in limiters:
        await limiter.aclose()

    granted = [grant for grant in grants if grant.wait_s == 0]
    # A burst of 1 % of 600 is 6 calls; a slow machine may let some time pass, at 10 calls a second.
    assert 6 <= len(granted) <= 60
    assert all(grant.token is None for grant in grants if grant.wait_s > 0)


async def test_slots_are_freed_by_the_end_of_a_call(redis_server: EmbeddedRedis):
    limiter = RedisLimiter(redis_server.url, catalog("slots", concurrency=1))
    first = await limiter.acquire("slots", tokens=1)
    second = await limiter.acquire("slots", tokens=1)
    await limiter.give_back("slots", first, tokens_used=1)
    third = await limiter.acquire("slots", tokens=1)
    await limiter.aclose()

    assert (first.wait_s, second.wait_s > 0, third.wait_s) == (0.0, True, 0.0)


async def test_a_refusal_by_the_provider_stops_every_worker(redis_server: EmbeddedRedis):
    one, other = (RedisLimiter(redis_server.url, catalog("blocked", rpm=6000)) for _ in range(2))
    await one.block("blocked", seconds=30)
    grant = await other.acquire("blocked", tokens=1)
    await one.aclose()
    await other.aclose()

    assert 25 < grant.wait_s <= 30


async def test_without_redis_each_process_keeps_to_its_share():
    limiter = RedisLimiter(f"redis://127.0.0.1:{free_port()}/0", catalog("alone", rpm=4), processes=2)
    grants = [await limiter.acquire("alone", tokens=1) for _ in range(3)]
    await limiter.aclose()

    assert [grant.wait_s > 0 for grant in grants] == [False, False, True]
