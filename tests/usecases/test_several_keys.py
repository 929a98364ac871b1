"""Several keys or providers of one large model, in whole runs: prices, failover, quota and refused keys."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from cope.adapters.memory import FixedClock, MemoryLimiter
from cope.core.errors import (
    ModelKeyRefused,
    ModelOverloaded,
    ModelQuotaExhausted,
    ModelRateLimited,
    ModelUnreachable,
)
from cope.core.lifecycle import HoldReason
from cope.core.limits.hints import RateHints
from cope.core.models import Endpoint, ModelCatalog, ModelEntry
from cope.core.money import NanoUSD, Price, parse_usd
from cope.core.prices import PriceTable
from cope.core.prompts import BUILT_IN
from cope.core.stages import Tier
from cope.ports.model import ChatAnswer, ChatRequest
from cope.usecases.sweep import Sweeper
from tests.usecases.test_pipeline import (
    LEASE_S,
    PRICE,
    SMALL,
    USAGE,
    Parts,
    current,
    line,
    make_parts,
    says,
    settle,
    submit,
)

CHEAP = Price("cheap", "2026-11", parse_usd("1"), parse_usd("1"), parse_usd("2"), PRICE.effective_at)
NOON_AND_A_MINUTE = FixedClock().now() + timedelta(seconds=60)
ONE, TWO = Endpoint("one", "http://one/v1", "sk-1"), Endpoint("two", "http://two/v1", "sk-2", price_id="cheap")


def parts_with(script: Callable[[ChatRequest], ChatAnswer], *endpoints: Endpoint) -> Parts:
    entry = ModelEntry(
        "large", "large", "http://one/v1", Tier.LARGE, "reference", 1024, price_id="p", endpoints=endpoints
    )
    parts = make_parts(script)
    return replace(
        parts,
        limiter=MemoryLimiter(parts.clock, places={"large": entry.places}),
        catalog=ModelCatalog({"small": SMALL, "large": entry}, "small", "large", BUILT_IN),
        prices=PriceTable([PRICE, CHEAP]),
    )


async def sweep(parts: Parts) -> None:
    await Sweeper(parts, lease_s=LEASE_S, every_s=1)._sweep()


async def settle_all(parts: Parts) -> None:
    """More tasks than one claim takes where calls are limited: claims begin small."""
    for _ in range(8):
        await settle(parts)


def called(parts: Parts) -> list[str]:
    return [request.model.endpoint for request in parts.model.requests]


async def test_calls_go_to_both_endpoints_and_each_is_paid_at_its_own_price():
    parts = parts_with(lambda request: says("\\boxed{5}"), ONE, TWO)
    batch = await submit(parts, *(line(f"t{n}", model="large") for n in range(10)))
    await settle(parts)

    assert sorted(called(parts)) == ["one"] * 5 + ["two"] * 5
    assert {request.model.api_key for request in parts.model.requests} == {"sk-1", "sk-2"}
    done = await current(parts, batch)
    assert (done.done, done.spent) == (10, 5 * PRICE.cost(USAGE) + 5 * CHEAP.cost(USAGE))


async def test_a_provider_that_is_away_costs_nobody_a_try_and_the_other_one_serves_them_all():
    def script(request: ChatRequest) -> ChatAnswer:
        if request.model.endpoint == "one":
            raise ModelUnreachable("refused", sent=False)
        return says("\\boxed{5}")

    parts = parts_with(script, ONE, TWO)
    batch = await submit(parts, *(line(f"t{n}", model="large") for n in range(30)))
    await settle(parts)

    assert (await current(parts, batch)).done == 30
    # Five failures open the breaker; calls that were under way together with them may fail too.
    assert 5 <= called(parts).count("one") <= 32
    assert {one.endpoint: one.state for one in await parts.limiter.headroom()} == {"one": "open", "two": "closed"}
    listed = await parts.store.list_tasks(batch.project_id, batch.id, state=None, after=None, limit=100)
    assert {task.tries for task in listed.items} == {0}


async def test_with_one_key_out_of_quota_the_other_serves_and_with_both_out_all_are_held_until_a_probe_gets_through():
    paid = {"two"}

    def script(request: ChatRequest) -> ChatAnswer:
        if request.model.endpoint not in paid:
            raise ModelQuotaExhausted("pay", answered=True)
        return says("\\boxed{5}")

    parts = parts_with(script, ONE, TWO)
    first = await submit(parts, *(line(f"t{n}", model="large") for n in range(8)))
    await settle(parts)
    assert (await current(parts, first)).done == 8

    paid.clear()
    parts.clock.advance(30)
    batch = await submit(parts, *(line(f"t{n}", model="large") for n in range(200)))
    await settle_all(parts)
    held = await current(parts, batch)
    assert held.held[HoldReason.PROVIDER_QUOTA] == 200
    assert held.held_since is not None
    assert len(called(parts)) <= 16 + 65  # those under way when the second key ran out too

    asked = len(called(parts))
    for _ in range(20):
        parts.clock.advance(30)
        await sweep(parts)
        await settle(parts, rounds=6)
    assert (await current(parts, batch)).held[HoldReason.PROVIDER_QUOTA] == 200
    # Ten minutes, two keys, each tried after 1, 2, 4 and then every 5 minutes, by one call.
    assert 4 <= len(called(parts)) - asked <= 9

    paid |= {"one", "two"}
    for _ in range(12):
        parts.clock.advance(30)
        await sweep(parts)
        await settle(parts, rounds=40)
    done = await current(parts, batch)
    assert (done.done, done.failed, sum(done.held.values())) == (200, 0, 0)
    listed = await parts.store.list_tasks(batch.project_id, batch.id, state=None, after=None, limit=300)
    assert {task.tries for task in listed.items} == {0}


async def test_a_refused_key_holds_the_tasks_instead_of_failing_them_and_a_valid_one_takes_over():
    refused = {"sk-1"}

    def script(request: ChatRequest) -> ChatAnswer:
        if request.model.api_key in refused:
            raise ModelKeyRefused("HTTP 401: no such key", certain=True)
        return says("\\boxed{5}")

    parts = parts_with(script, ONE, TWO)
    batch = await submit(parts, *(line(f"t{n}", model="large") for n in range(40)))
    await settle(parts)
    assert (await current(parts, batch)).done == 40

    alone = parts_with(script, ONE)
    batch = await submit(alone, *(line(f"t{n}", model="large") for n in range(200)))
    await settle_all(alone)
    held = await current(alone, batch)
    assert (held.held[HoldReason.PROVIDER_QUOTA], held.failed) == (200, 0)
    refused.clear()
    for _ in range(6):
        alone.clock.advance(30)
        await sweep(alone)
        await settle(alone, rounds=40)
    assert (await current(alone, batch)).done == 200


async def test_one_request_that_is_always_forbidden_fails_in_the_end_and_the_others_do_not():
    def script(request: ChatRequest) -> ChatAnswer:
        if "forbidden" in request.messages[-1].content:
            raise ModelKeyRefused("HTTP 403: not for you", certain=False)
        return says("\\boxed{5}")

    parts = parts_with(script, ONE)
    bad = line("bad", model="large").replace("2 + 3?", "forbidden")
    batch = await submit(parts, bad, *(line(f"t{n}", model="large") for n in range(5)))
    for _ in range(40):
        await settle(parts, rounds=6)
        parts.clock.advance(301)
        await sweep(parts)

    done = await current(parts, batch)
    assert (done.done, done.failed) == (5, 1)


async def test_a_429_stops_everybody_and_costs_nobody_a_try():
    refusals = 0

    def script(request: ChatRequest) -> ChatAnswer:
        nonlocal refusals
        if parts.clock.now() < NOON_AND_A_MINUTE:
            refusals += 1
            raise ModelRateLimited("slow", answered=True, hints=RateHints(retry_after_s=60))
        return says("\\boxed{5}")

    parts = parts_with(script, replace(ONE, concurrency=8))
    batch = await submit(parts, *(line(f"t{n}", model="large") for n in range(40)))
    await settle(parts)
    assert 1 <= refusals <= 8
    (stand,) = await parts.limiter.headroom()
    assert stand.blocked_s == 60
    for _ in range(30):
        parts.clock.advance(5)
        await settle(parts, rounds=20)

    assert refusals <= 8
    assert (await current(parts, batch)).done == 40
    listed = await parts.store.list_tasks(batch.project_id, batch.id, state=None, after=None, limit=300)
    assert {task.tries for task in listed.items} == {0}


async def test_a_task_that_money_refuses_gives_its_place_at_the_provider_back():
    parts = parts_with(lambda request: says("\\boxed{5}"), replace(ONE, rpm=60, concurrency=4))
    await submit(parts, line("a", model="large"), cap=NanoUSD(0))
    await settle(parts)

    (stand,) = await parts.limiter.headroom()
    assert (stand.used_calls, stand.used_slots) == (0, 0)


async def test_both_endpoints_failing_for_ten_seconds_fail_no_task_for_good():
    broken = True

    def script(request: ChatRequest) -> ChatAnswer:
        if broken:
            raise ModelOverloaded("oops", answered=True)
        return says("\\boxed{5}")

    parts = parts_with(script, ONE, TWO)
    batch = await submit(parts, line("a", model="large"))
    for _ in range(20):
        parts.clock.advance(0.5)
        await settle(parts, rounds=6)
    broken = False
    for _ in range(40):
        parts.clock.advance(5)
        await settle(parts, rounds=6)

    ended = await current(parts, batch)
    assert (ended.done, ended.failed) == (1, 0)


async def test_a_quota_that_is_back_ends_the_holds_though_another_key_stays_refused_for_good():
    paid: set[str] = set()

    def script(request: ChatRequest) -> ChatAnswer:
        if request.model.endpoint == "one":
            raise ModelKeyRefused("HTTP 401: no such key", certain=True)
        if "two" not in paid:
            raise ModelQuotaExhausted("pay", answered=True)
        return says("\\boxed{5}")

    parts = parts_with(script, ONE, TWO)
    batch = await submit(parts, *(line(f"t{n}", model="large") for n in range(60)))
    await settle_all(parts)
    assert (await current(parts, batch)).held[HoldReason.PROVIDER_QUOTA] == 60

    paid.add("two")
    sweeper = Sweeper(parts, lease_s=LEASE_S, every_s=1)
    for _ in range(12):
        parts.clock.advance(30)
        await sweeper._sweep()
        await settle(parts, rounds=40)
    assert (await current(parts, batch)).done == 60


async def test_an_endpoint_whose_price_lapsed_does_not_keep_the_priced_one_idle():
    parts = parts_with(lambda request: says("\\boxed{5}"), TWO, ONE)
    parts = replace(parts, prices=PriceTable([PRICE, replace(CHEAP, effective_until=NOON_AND_A_MINUTE)]))
    batch = await submit(parts, *(line(f"t{n}", model="large") for n in range(40)))
    parts.clock.advance(61)
    for _ in range(6):
        await settle_all(parts)
        parts.clock.advance(31)

    assert set(called(parts)) == {"one"}
    done = await current(parts, batch)
    assert (done.done, done.failed, done.spent) == (40, 0, 40 * PRICE.cost(USAGE))
