"""Prices: rows that never change, and what other prices would have made of the calls that were settled."""

from dataclasses import replace
from datetime import timedelta

import pytest

from cope.core.errors import Conflict
from cope.core.ids import AttemptId
from cope.core.money import NanoUSD, Price, PriceTier, TokenUsage, parse_usd
from cope.core.price_changes import NOTHING_SETTLED
from cope.ports.store import Granted, Settlement
from tests.contracts.world import World, ask, done
from tests.support import NOON


def row(version: str = "1", *, tier: PriceTier = "standard", output: str = "10.00", price_id: str = "gpt-x") -> Price:
    return Price(
        price_id,
        version,
        parse_usd("2.50"),
        parse_usd("1.25"),
        parse_usd(output),
        NOON,
        tier,
        effective_until=NOON + timedelta(days=400),
        origin="operator",
        source="https://example.com/prices",
        added_by="ada",
        reason="the contract says so",
    )


async def test_rows_come_back_whole_in_order_and_with_the_time_of_their_adding(world: World) -> None:
    added = await world.api.add_prices([row("2"), row("1"), row("1", tier="batch")])
    assert [price.added_at is not None for price in added] == [True, True, True]
    listed = await world.worker.list_prices()

    assert [price.key for price in listed] == [
        ("gpt-x", "batch", "1"),
        ("gpt-x", "standard", "1"),
        ("gpt-x", "standard", "2"),
    ]
    assert listed == await world.api.list_prices()
    assert await world.worker.count_prices() == await world.api.count_prices() == 3
    kept = listed[1]
    assert kept == row("1")
    assert (kept.origin, kept.source, kept.added_by, kept.reason) == (
        "operator",
        "https://example.com/prices",
        "ada",
        "the contract says so",
    )
    assert kept.added_at is not None
    assert abs(kept.added_at - world.now()) < timedelta(minutes=5)


async def test_a_key_is_taken_for_good_and_a_refusal_adds_nothing(world: World) -> None:
    await world.api.add_prices([row("1")])

    for again in (row("1"), row("1", output="11.00")):
        with pytest.raises(Conflict, match="never changes") as refused:
            await world.api.add_prices([row("2"), again])
        assert refused.value.code == "price_version_exists"
    with pytest.raises(Conflict):
        await world.api.add_prices([row("3"), row("3")])
    assert [price.version for price in await world.api.list_prices()] == ["1"]


async def test_the_same_version_of_another_tier_is_another_row(world: World) -> None:
    await world.worker.put_prices([row("1"), row("1", tier="batch", output="5.00")])
    await world.worker.put_prices([row("1"), row("1", tier="batch", output="5.00")])

    assert await world.worker.count_prices() == 2
    with pytest.raises(Conflict):
        await world.worker.put_prices([row("2"), row("1", tier="batch", output="6.00")])
    assert await world.worker.count_prices() == 2


async def test_putting_an_equal_row_again_keeps_the_first_ones_provenance(world: World) -> None:
    await world.worker.put_prices([row("1")])
    await world.worker.put_prices([replace(row("1"), source="elsewhere", added_by="bob")])

    assert [price.added_by for price in await world.worker.list_prices()] == ["ada"]


async def test_an_attempt_names_the_row_that_it_was_priced_by(world: World) -> None:
    project = await world.project()
    task_id = await world.live(project, queue="large")
    task = await world.claim_one("large")
    request = replace(ask(task, 100), price_id="gpt-x", price_tier="batch", price_version="7")
    (granted,) = await world.worker.reserve([request])
    assert isinstance(granted, Granted)

    (attempt,) = (await world.detail(project.id, task_id)).attempts
    assert (attempt.price_id, attempt.price_tier, attempt.price_version) == ("gpt-x", "batch", "7")


async def settled(
    world: World, usage: TokenUsage | None, *, cost: int, price_id: str = "gpt-x", tier: PriceTier = "standard"
) -> None:
    """One paid call of a project of its own."""
    await world.live(await world.project(), queue="large", body=repr((usage, price_id)).encode())
    task = await world.claim_one("large")
    (granted,) = await world.worker.reserve([replace(ask(task, 10**9), price_id=price_id, price_tier=tier)])
    assert isinstance(granted, Granted)
    await world.worker.mark_sent([AttemptId(granted.attempt_id)])
    flag = None if usage else "usage_missing"
    bill = Settlement(granted.attempt_id, NanoUSD(cost), NanoUSD(0), usage, flag)
    await world.commit(done(task, bills=(bill,), stage=3))


async def test_settled_calls_of_every_project_are_priced_anew_each_rounded_up_by_itself(world: World) -> None:
    await settled(world, TokenUsage(prompt=100, cached=40, completion=7, calls=1), cost=270)
    await settled(world, TokenUsage(prompt=1, completion=1, reasoning=1, calls=2), cost=13)
    await settled(world, None, cost=999)
    await settled(world, TokenUsage(prompt=5, calls=1), cost=5, tier="batch")
    await settled(world, TokenUsage(prompt=5, calls=1), cost=5, price_id="gpt-y")
    new = replace(
        row("2"),
        input_per_mtok=NanoUSD(3_333_333),
        cached_input_per_mtok=NanoUSD(1_111_111),
        output_per_mtok=NanoUSD(7_777_777),
    )
    found = await world.api.reprice(new, models=[], since=world.now() - timedelta(days=30))

    assert (found.attempts, found.usage) == (2, TokenUsage(101, 40, 8, 1, 3))
    assert found.spent == 283
    first = -(-(60 * 3_333_333 + 40 * 1_111_111 + 7 * 7_777_777) // 1_000_000)
    assert found.repriced == first + 12
    assert found.difference == found.repriced - 283
    assert (found.unmeasured, found.unmeasured_spent) == (1, 999)


async def test_an_attempt_of_before_price_ids_were_recorded_counts_by_its_model(world: World) -> None:
    await settled(world, TokenUsage(prompt=10, completion=1, calls=1), cost=35, price_id="")
    since = world.now() - timedelta(days=1)

    assert (await world.api.reprice(row(), models=["large"], since=since)).attempts == 1
    assert await world.api.reprice(row(), models=["another"], since=since) == NOTHING_SETTLED


async def test_calls_settled_before_the_days_asked_for_are_left_out(world: World) -> None:
    await settled(world, TokenUsage(prompt=10, completion=1, calls=1), cost=35)
    await world.advance(10 * 86_400)

    assert (await world.api.reprice(row(), models=[], since=world.now() - timedelta(days=9))) == NOTHING_SETTLED
    assert (await world.api.reprice(row(), models=[], since=world.now() - timedelta(days=11))).attempts == 1


async def test_amounts_beyond_64_bits_are_priced_exactly(world: World) -> None:
    usage = TokenUsage(prompt=2_000_000_000, cached=1, completion=2_000_000_000, calls=1)
    await settled(world, usage, cost=1)
    new = replace(row("2"), input_per_mtok=NanoUSD(10**15), output_per_mtok=NanoUSD(10**15 - 1))

    assert (await world.api.reprice(new, models=[], since=NOON - timedelta(days=3650))).repriced == new.cost(usage)
