"""Which steps may wait for the provider's batch, when it is looked at, and when it is no longer waited for."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cope.core.batch_tier import (
    Order,
    batch_price,
    decode_order,
    encode_order,
    may_wait,
    must_end,
    must_give_up,
    next_look_s,
    poll_delay_s,
)
from cope.core.errors import BadRequest, Misconfigured
from cope.core.models import BatchTier, ModelCatalog, ModelEntry
from cope.core.money import NanoUSD, Price
from cope.core.prices import PriceTable
from cope.core.problem import Kind
from cope.core.prompts import BUILT_IN, Role
from cope.core.request import RequestDefaults, parse_cope_defaults, parse_request
from cope.core.stages import Call, Stage, Step, Tier
from cope.core.task import ProviderBatch
from tests.support import make_spec

TIER = BatchTier(min_lines=2, max_wait_s=100, turnaround_s=1000, margin_s=200)
SMALL = ModelEntry("small", "small", "http://small/v1", Tier.SMALL, "instruct", 4096)
LARGE = ModelEntry("large", "large", "http://large/v1", Tier.LARGE, "instruct", 4096, price_id="p", batch=TIER)
SOLVES = Call(Role.EXECUTOR, 0.0, 64)
PLANS = Call(Role.GUIDELINE_PLANNER, 0.0, 64)
STEP = Step("solve", Stage.LARGE_EXECUTES, Tier.LARGE, "large", 1, None, SOLVES)
NOW = datetime(2026, 11, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("step", "entry", "left", "off", "way", "waits"),
    [
        (STEP, LARGE, 1300.0, "", ProviderBatch.AUTO, True),
        (replace(STEP, planner=PLANS, executor=None), LARGE, 1300.0, "", ProviderBatch.AUTO, True),
        (STEP, LARGE, 1299.0, "", ProviderBatch.AUTO, False),
        (STEP, LARGE, None, "", ProviderBatch.AUTO, False),
        (STEP, LARGE, 1300.0, "solve", ProviderBatch.AUTO, False),
        (STEP, LARGE, 1300.0, "stage2-plan", ProviderBatch.AUTO, True),
        (STEP, LARGE, 1300.0, "", ProviderBatch.OFF, False),
        (STEP, replace(LARGE, batch=None), 1300.0, "", ProviderBatch.AUTO, False),
        (replace(STEP, n=2), LARGE, 1300.0, "", ProviderBatch.AUTO, False),
        (replace(STEP, planner=PLANS), LARGE, 1300.0, "", ProviderBatch.AUTO, False),
    ],
)
def test_a_step_waits_only_as_one_call_with_time_for_the_provider_and_for_a_live_call_after_it(
    step: Step, entry: ModelEntry, left: float | None, off: str, way: ProviderBatch, waits: bool
) -> None:
    spec = replace(make_spec(), provider_batch=way)
    assert may_wait(spec, step, entry, window_left_s=left, batch_off=off) is waits


def test_looks_grow_apart_up_to_twenty_times_the_first_wait() -> None:
    assert [poll_delay_s(30, polls) for polls in (0, 1, 2, 100)] == [30, 45, 67.5, 600]


def test_a_look_is_not_put_off_beyond_the_moments_at_which_something_must_happen() -> None:
    assert next_look_s(TIER, 500, None) == 500
    assert next_look_s(TIER, 500, 600) == 400
    assert next_look_s(TIER, 500, 150) == 50
    assert next_look_s(TIER, 500, 90) == 500


def test_a_batch_is_cut_off_at_the_margin_and_given_up_at_half_of_it_or_when_cancelling_takes_too_long() -> None:
    assert [must_end(TIER, left) for left in (None, 201, 200, -5)] == [False, False, True, True]
    assert [must_give_up(TIER, left, None) for left in (None, 101, 100, -5)] == [False, False, True, True]
    assert [must_give_up(TIER, 150, cancel_s) for cancel_s in (0, 99, 100)] == [False, False, True]


def test_an_order_is_read_back_as_it_was_written() -> None:
    order = Order(
        '{"a": "\\u2028"}', Price("p", "v", NanoUSD(1), NanoUSD(2), NanoUSD(3), NOW, tier="batch"), "instruct-1"
    )
    assert decode_order(encode_order(order)) == order


def test_the_batch_tiers_price_is_the_models_own_of_that_tier_or_the_one_that_is_named() -> None:
    live = Price("p", "v", NanoUSD(4), NanoUSD(4), NanoUSD(4), NOW)
    half, other = replace(live, tier="batch"), replace(live, tier="batch", price_id="q")
    table = PriceTable([live, half, other])
    assert batch_price(table, LARGE, NOW) == half
    assert batch_price(table, replace(LARGE, batch=replace(TIER, price_id="q")), NOW) == other
    with pytest.raises(Misconfigured, match="p"):
        batch_price(PriceTable([live]), LARGE, NOW)


def test_provider_batch_is_honoured_on_a_line_and_on_a_batch_and_refused_where_it_is_neither_auto_nor_off() -> None:
    catalog = ModelCatalog({"small": SMALL, "large": LARGE}, "small", "large", BUILT_IN)
    body = {"model": "cope", "messages": [{"role": "user", "content": "2 + 3?"}]}

    def parsed(line: dict[str, object], batch: dict[str, object]) -> ProviderBatch:
        whole = {**body, "cope": line} if line else body
        return parse_request(whole, defaults=RequestDefaults(Kind.MATH, batch), catalog=catalog).provider_batch

    assert parsed({}, {}) is ProviderBatch.AUTO
    assert parsed({"provider_batch": "off"}, {}) is ProviderBatch.OFF
    assert parsed({}, {"provider_batch": "off"}) is ProviderBatch.OFF
    assert parsed({"provider_batch": "auto"}, {"provider_batch": "off"}) is ProviderBatch.AUTO
    defaults = parse_cope_defaults({"provider_batch": "off"}, catalog=catalog, kind=Kind.MATH)
    assert defaults.line_defaults == {"provider_batch": "off"}
    with pytest.raises(BadRequest) as refused:
        parsed({"provider_batch": "always"}, {})
    assert refused.value.param == "cope.provider_batch"
