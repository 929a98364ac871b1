"""The provider's own Batch API at a discount: which steps may wait for it, at which price, and what is sent.

A provider takes a file of calls, answers within its window (24 hours at OpenAI) and charges about half. Only a step of
one call can be sent so, and only where the task's own completion window leaves room for the provider to take its time
*and* for a live call afterwards.
"""

from dataclasses import dataclass
from datetime import datetime

import orjson

from cope.core.models import BatchTier, ModelEntry
from cope.core.money import NanoUSD, Price
from cope.core.prices import PriceTable
from cope.core.stages import Step
from cope.core.task import ProviderBatch, TaskSpec

GROWTH = 1.5
"""Each look at a provider's batch waits this many times longer than the one before."""
LONGEST_CANCEL_S = 900.0
"""OpenAI allows itself ten minutes to cancel a batch."""
_LONGEST_POLL_FACTOR = 20


@dataclass(frozen=True, slots=True)
class Order:
    """One gathered call, frozen with what its reserve was reckoned from: `body` is the request as JSON text, `price`
    the batch tier's row, `prompt_version` that of the prompts in it."""

    body: str
    price: Price
    prompt_version: str


def batch_price(prices: PriceTable, model: ModelEntry, now: datetime) -> Price:
    """The batch tier's price in force at `now`: the only place that knows how the table names it.

    Raises `Misconfigured` where the table has none, `ValueError` for a model without a batch tier.
    """
    if model.batch is None:
        raise ValueError(f"model {model.name!r} has no batch tier")
    return prices.at(model.batch.price_id or model.price_id or model.served_name, now, tier="batch")


def may_wait(spec: TaskSpec, step: Step, model: ModelEntry, *, window_left_s: float | None, batch_off: str) -> bool:
    """Whether this step is gathered for the provider's batch rather than called now.

    `window_left_s` is None for a live call, which never is; `batch_off` names the step whose turn with the provider's
    batch is over (empty: none).
    """
    tier = model.batch
    if tier is None or window_left_s is None or spec.provider_batch is ProviderBatch.OFF or batch_off == step.name:
        return False
    one_call = step.n == 1 and (step.planner is None) != (step.executor is None)
    return one_call and window_left_s >= tier.max_wait_s + tier.turnaround_s + tier.margin_s


def poll_delay_s(poll_s: float, polls: int) -> float:
    """The wait after look number `polls` (from 0): growing, up to twenty times the first."""
    return float(min(poll_s * GROWTH ** min(polls, 20), poll_s * _LONGEST_POLL_FACTOR))


def next_look_s(tier: BatchTier, delay_s: float, window_left_s: float | None) -> float:
    """`delay_s`, or less where one of the moments at which something must happen comes sooner: `must_end` and
    `must_give_up` of the task whose window is shortest."""
    if window_left_s is None:
        return delay_s
    moments = [window_left_s - tier.margin_s, window_left_s - tier.margin_s / 2]
    return min([delay_s, *(moment for moment in moments if moment > 0)])


def must_end(tier: BatchTier, window_left_s: float | None) -> bool:
    """Whether what the provider has not done by now is called live: its batch is cancelled."""
    return window_left_s is not None and window_left_s <= tier.margin_s


def must_give_up(tier: BatchTier, window_left_s: float | None, cancel_s: float | None) -> bool:
    """Whether the provider's word is no longer waited for: it has not ended the batch in time (`cancel_s` since it was
    asked), or half the margin for live calls is gone."""
    patience = min(LONGEST_CANCEL_S, tier.margin_s / 2)
    late = window_left_s is not None and window_left_s <= tier.margin_s / 2
    return late or (cancel_s is not None and cancel_s >= patience)


def encode_order(order: Order) -> str:
    """As JSON text."""
    price = order.price
    return orjson.dumps(
        {
            "body": order.body,
            "prompts": order.prompt_version,
            "price": [
                price.price_id,
                price.version,
                price.input_per_mtok,
                price.cached_input_per_mtok,
                price.output_per_mtok,
                price.effective_at.isoformat(),
                price.tier,
            ],
        }
    ).decode()


def decode_order(text: str) -> Order:
    """The inverse of `encode_order`. The bill is reckoned with this row, whatever the table says by then."""
    data = orjson.loads(text)
    price_id, version, fresh, cached, output, effective_at, tier = data["price"]
    since = datetime.fromisoformat(effective_at)
    price = Price(price_id, version, NanoUSD(fresh), NanoUSD(cached), NanoUSD(output), since, tier=tier)
    return Order(data["body"], price, data["prompts"])
