"""Prices at work: which row a call is reserved and settled at, and what happens where there is none."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from cope.core.errors import StoreUnavailable
from cope.core.ids import ProjectId
from cope.core.lifecycle import BatchStatus
from cope.core.money import NanoUSD, Price, parse_usd
from cope.core.prices import PriceTable
from cope.core.records import Attempt, Batch
from cope.ports.model import ChatAnswer, ChatRequest
from cope.usecases.watch_prices import reread, reread_or_go_on, unpriced, watch_prices
from tests.support import NOON
from tests.usecases.test_pipeline import (
    LARGE,
    PRICE,
    USAGE,
    Parts,
    agreeing,
    current,
    line,
    make_parts,
    says,
    settle,
    submit,
)

TIMEOUT_S = 2 * LARGE.timeout_s


def dearer(at: datetime, version: str = "rise") -> Price:
    """Twice the price of the large model, from `at` on."""
    return replace(
        PRICE,
        version=version,
        input_per_mtok=NanoUSD(2 * PRICE.input_per_mtok),
        output_per_mtok=NanoUSD(2 * PRICE.output_per_mtok),
        effective_at=at,
        origin="operator",
    )


async def attempts(parts: Parts, batch: Batch) -> list[Attempt]:
    page = await parts.store.list_tasks(ProjectId(batch.project_id), batch.id, state=None, after=None, limit=100)
    return [attempt for task in page.items for attempt in task.attempts]


def with_rows(parts: Parts, *rows: Price) -> Parts:
    return replace(parts, prices=PriceTable(rows))


async def test_a_rise_counts_for_calls_from_its_instant_on_in_a_process_that_runs_already():
    parts = with_rows(make_parts(agreeing), PRICE, dearer(NOON + timedelta(hours=1)))
    before = await submit(parts, line("a", model="large"))
    await settle(parts, rounds=4)
    parts.clock.advance(3600)
    after = await submit(parts, line("a", model="large"))
    await settle(parts, rounds=4)

    (old,), (new,) = await attempts(parts, before), await attempts(parts, after)
    assert (old.price_id, old.price_tier, old.price_version) == ("p", "standard", "2026-11")
    assert old.cost == PRICE.cost(USAGE)
    assert (new.price_version, new.cost) == ("rise", 2 * PRICE.cost(USAGE))


async def test_a_call_is_settled_at_the_price_of_its_reservation_however_long_it_takes():
    async def slow(request: ChatRequest) -> ChatAnswer:
        parts.clock.advance(3600)
        return says("\\boxed{5}")

    parts = with_rows(make_parts(slow), PRICE, dearer(NOON + timedelta(minutes=59)))
    batch = await submit(parts, line("a", model="large"))
    await settle(parts, rounds=4)

    (attempt,) = await attempts(parts, batch)
    assert (attempt.price_version, attempt.cost) == ("2026-11", PRICE.cost(USAGE))


@pytest.mark.parametrize(("after_s", "factor"), [(1.0, 2), (TIMEOUT_S, 2), (TIMEOUT_S + 1, 1)])
async def test_a_rise_that_may_come_during_the_call_is_set_aside_for_a_later_one_is_not(after_s: float, factor: int):
    parts = with_rows(make_parts(agreeing), PRICE, dearer(NOON + timedelta(seconds=after_s)))
    usual = make_parts(agreeing)
    batch, other = await submit(parts, line("a", model="large")), await submit(usual, line("a", model="large"))
    await settle(parts, rounds=4)
    await settle(usual, rounds=4)

    (attempt,), (plain,) = await attempts(parts, batch), await attempts(usual, other)
    assert attempt.reserved == factor * plain.reserved
    assert (attempt.price_version, attempt.cost, attempt.flag) == ("2026-11", plain.cost, None)


async def test_a_line_whose_paid_model_has_no_price_is_refused_with_the_command_and_others_are_not():
    parts = with_rows(make_parts(agreeing))
    refused = await submit(parts, line("a", model="small"), line("b"), line("c", model="large"))
    failed = await current(parts, refused)

    assert failed.status is BatchStatus.FAILED
    assert [(error.line, error.code, error.param) for error in failed.errors] == [
        (2, "model_not_priced", "body.model"),
        (3, "model_not_priced", "body.model"),
    ]
    assert "cope prices add p --input 2.50 --cached-input 1.25 --output 10.00 --source URL" in failed.errors[0].message
    free = await submit(parts, line("a", model="small-majority"))
    assert (await current(parts, free)).status is BatchStatus.IN_PROGRESS


async def test_a_price_added_a_moment_before_the_submission_is_known_to_it():
    parts = with_rows(make_parts(agreeing))
    await parts.store.add_prices([replace(PRICE, origin="operator")])
    batch = await submit(parts, line("a", model="large"))

    assert (await current(parts, batch)).status is BatchStatus.IN_PROGRESS


async def test_work_whose_price_lapses_waits_without_failing_and_goes_on_once_there_is_one():
    lapsing = replace(PRICE, effective_until=NOON + timedelta(minutes=1))
    parts = with_rows(make_parts(agreeing), lapsing)
    batch = await submit(parts, line("a", model="large"))
    parts.clock.advance(60)
    for _ in range(12):
        await settle(parts, rounds=4)
        parts.clock.advance(31)
    waiting = await current(parts, batch)
    assert (waiting.done, waiting.failed, parts.model.requests) == (0, 0, [])
    assert (await parts.store.get_budget(batch.project_id)).reserved == 0

    await parts.store.add_prices([dearer(parts.clock.now(), "renewed")])
    assert await reread(parts.store, parts.prices)
    await settle(parts, rounds=4)
    assert (await current(parts, batch)).done == 1
    (attempt,) = await attempts(parts, batch)
    assert attempt.price_version == "renewed"


async def test_new_rows_are_found_by_their_number_and_nothing_is_read_where_it_is_the_same():
    parts = with_rows(make_parts(agreeing), PRICE)
    await parts.store.put_prices(parts.prices.rows)

    assert await reread(parts.store, parts.prices)
    assert not await reread(parts.store, parts.prices)
    await parts.store.add_prices([dearer(NOON)])
    assert await reread(parts.store, parts.prices)
    assert parts.prices.at("p", NOON).version == "rise"


class _Away:
    async def count_prices(self) -> int:
        raise StoreUnavailable("the database did not answer")

    async def list_prices(self) -> tuple[Price, ...]:
        raise StoreUnavailable("the database did not answer")


async def test_a_store_that_is_away_leaves_the_rows_known_so_far():
    table = PriceTable([PRICE])
    await reread_or_go_on(_Away(), table)

    assert table.at("p", NOON) == PRICE


async def test_a_watching_process_takes_in_a_row_without_a_restart():
    parts = with_rows(make_parts(agreeing), PRICE)
    await parts.store.add_prices([dearer(NOON)])
    left = 3

    def stopping() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    await watch_prices(parts, stopping, every_s=0.0)
    assert parts.prices.at("p", NOON).version == "rise"


def test_what_can_not_be_called_is_named_with_its_command():
    parts = with_rows(make_parts(agreeing), replace(PRICE, effective_at=NOON + timedelta(days=1)))
    (missing,) = unpriced(parts.catalog, parts.prices, NOON)

    assert missing.startswith("Model 'large' can't be called.")
    assert "begins at 2026-11-03T12:00:00Z" in missing
    assert "cope prices add p" in missing
    assert unpriced(parts.catalog, parts.prices, NOON + timedelta(days=1)) == []
    assert parse_usd("2.5") == PRICE.input_per_mtok
