"""Nano-dollars, prices, worst cases and bills."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cope.core.budget import month_of, settle, worst_case
from cope.core.errors import Misconfigured
from cope.core.money import NanoUSD, Price, TokenUsage, format_usd, parse_usd
from cope.core.prices import PriceTable
from cope.core.problem import Message

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
GPT_4O = Price("gpt-4o", "2026-01", parse_usd("2.5"), parse_usd("1.25"), parse_usd("10"), JANUARY)


@pytest.mark.parametrize(
    ("text", "nano"), [("0.002", 2_000_000), ("10", 10_000_000_000), ("0.000000075", 75), ("0", 0), ("1e-9", 1)]
)
def test_dollars_become_whole_nano_dollars(text: str, nano: int):
    assert parse_usd(text) == nano


@pytest.mark.parametrize("bad", ["-1", "abc", "0.0000000001", "NaN", "Infinity", "1e30", ""])
def test_an_amount_that_is_no_whole_nano_dollar_is_refused(bad: str):
    with pytest.raises(ValueError, match="amount of dollars"):
        parse_usd(bad)


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_writing_an_amount_and_reading_it_gives_it_back(nano: int):
    assert parse_usd(format_usd(NanoUSD(nano))) == nano


def test_a_negative_amount_keeps_its_sign():
    assert format_usd(NanoUSD(-212_000)) == "-0.000212"


def test_cached_input_is_billed_at_its_own_price():
    usage = TokenUsage(prompt=1000, cached=400, completion=100)

    assert GPT_4O.cost(usage) == 600 * 2500 + 400 * 1250 + 100 * 10_000


@given(
    text=st.text(max_size=200),
    limit=st.integers(min_value=1, max_value=4096),
    used=st.data(),
)
def test_no_usage_within_the_limits_costs_more_than_the_worst_case(text: str, limit: int, used: st.DataObject):
    bound = len(text.encode("utf-8", "surrogatepass")) + 16 + 64
    prompt = used.draw(st.integers(0, bound))
    usage = TokenUsage(prompt, used.draw(st.integers(0, prompt)), used.draw(st.integers(0, limit)))

    assert GPT_4O.cost(usage) <= worst_case(GPT_4O, (Message("user", text),), limit)


def test_a_bill_beyond_the_reserve_is_split_into_the_reserve_and_an_overrun():
    bill = settle(GPT_4O, TokenUsage(prompt=1000, completion=1000), NanoUSD(10_000_000))

    assert (bill.cost, bill.overrun, bill.flag) == (10_000_000, 2_500_000, "overrun")


def test_an_answer_without_usage_settles_at_the_reserve_and_says_so():
    bill = settle(GPT_4O, None, NanoUSD(500))

    assert (bill.cost, bill.overrun, bill.flag) == (500, 0, "usage_missing")


def test_the_month_is_the_projects_own():
    late = datetime(2026, 11, 30, 23, 30, tzinfo=UTC)

    assert month_of(late, "UTC") == "2026-11"
    assert month_of(late, "Europe/Berlin") == "2026-12"


def test_the_price_in_force_is_the_latest_effective_one():
    later = Price("gpt-4o", "2026-06", parse_usd("2"), parse_usd("1"), parse_usd("8"), datetime(2026, 6, 1, tzinfo=UTC))
    table = PriceTable([later, GPT_4O])

    assert table.at("gpt-4o", datetime(2026, 5, 31, tzinfo=UTC)).version == "2026-01"
    assert table.at("gpt-4o", datetime(2026, 6, 1, tzinfo=UTC)).version == "2026-06"


def test_an_unknown_or_not_yet_effective_price_is_refused_never_free():
    table = PriceTable([GPT_4O])

    with pytest.raises(Misconfigured, match="gpt-4o"):
        table.at("gpt-5", JANUARY)
    with pytest.raises(Misconfigured, match="no price 'gpt-4o' in force"):
        table.at("gpt-4o", datetime(2025, 1, 1, tzinfo=UTC))
