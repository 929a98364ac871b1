"""Worst cases and months: the pure side of never overspending (architecture, guarantee 3)."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

from cope.core.ids import BATCH, BatchId, KeyId
from cope.core.models import ModelEntry
from cope.core.money import NanoUSD, Price, TokenUsage, input_token_bound
from cope.core.problem import Message

PROJECT_SCOPE = "project"
AUDIT_SCOPE = "audit"
"""Who spends, where it is no key: the project's shadow audit. It stands in `key_id` of tasks, attempts and ledger."""

WHOLE_LIFE = ""
"""The month of a batch's budget: it has one for its whole life."""


class Scope(StrEnum):
    """Which limit refused a paid call, from the narrowest to the widest."""

    TASK = "task"
    BATCH = "batch"
    KEY = "key"
    AUDIT = "audit"
    PROJECT = "project"


def scopes_of(batch_id: BatchId | str | None, key_id: KeyId | str | None, month: str) -> tuple[tuple[str, str], ...]:
    """The (scope, month) of every budget that a paid call counts in, narrowest first. All of them must cover it.

    `key_id` is who spends: an API key, or `AUDIT_SCOPE`, whose cap is the project's for its shadow audit.
    """
    own = [] if batch_id is None else [(str(batch_id), WHOLE_LIFE)]
    if key_id is not None:
        own.append((str(key_id), month))
    return (*own, (PROJECT_SCOPE, month))


def scope_kind(scope: str) -> Scope:
    """What kind of limit the budget of this scope is."""
    if scope == PROJECT_SCOPE:
        return Scope.PROJECT
    if scope == AUDIT_SCOPE:
        return Scope.AUDIT
    return Scope.BATCH if scope.startswith(BATCH) else Scope.KEY


def month_of(now: datetime, time_zone: str) -> str:
    """The calendar month of an aware `now` in the project's zone, as ``"2026-11"``: part of every budget's key.

    Raises `zoneinfo.ZoneInfoNotFoundError` for an unknown zone.
    """
    return now.astimezone(ZoneInfo(time_zone)).strftime("%Y-%m")


def month_start(now: datetime, time_zone: str) -> datetime:
    """The first moment of the calendar month that an aware `now` lies in, in the project's zone; returned in UTC."""
    local = now.astimezone(ZoneInfo(time_zone))
    return _first_moment(local.year, local.month, time_zone)


def next_month_start(now: datetime, time_zone: str) -> datetime:
    """The first moment of the next one, in UTC: when the caps of a month begin again."""
    local = now.astimezone(ZoneInfo(time_zone))
    return _first_moment(local.year + local.month // 12, local.month % 12 + 1, time_zone)


def _first_moment(year: int, month: int, time_zone: str) -> datetime:
    # fold=0: where clocks skip midnight this is the very moment at which they do, where they repeat it the first one.
    return datetime(year, month, 1, tzinfo=ZoneInfo(time_zone)).astimezone(UTC)


def worst_case(price: Price, messages: tuple[Message, ...], max_tokens: int, calls: int = 1) -> NanoUSD:
    """What `calls` calls with these messages can cost at most, hidden reasoning included in the output limit."""
    bound = input_token_bound(tuple(message.content for message in messages))
    return price.worst_case(input_tokens=bound, output_tokens=max_tokens, calls=calls)


@dataclass(frozen=True, slots=True)
class Bill:
    """What a finished paid step costs. `flag` is set where that is not simply what its answers say."""

    cost: NanoUSD
    overrun: NanoUSD
    flag: str | None


def settle(price: Price, usage: TokenUsage | None, reserved: NanoUSD, *, open_calls: int = 0, chains: int = 1) -> Bill:
    """The bill of one attempt: its usage at its price; unknown usage settles at the reserve.

    A cost beyond the reserve is an overrun: the reserve is spent, the rest recorded apart, outside the cap's check.
    `open_calls` of its `chains` were begun and given up (a vote that was decided). What a provider bills for these,
    nobody is told, so each counts as its chain's whole share of the reserve.
    """
    if usage is None:
        return Bill(reserved, NanoUSD(0), "usage_missing")
    cost = price.cost(usage)
    if cost <= reserved and open_calls:
        return Bill(NanoUSD(min(reserved, cost - (-reserved * open_calls // chains))), NanoUSD(0), "calls_given_up")
    if cost <= reserved:
        return Bill(cost, NanoUSD(0), None)
    return Bill(reserved, NanoUSD(cost - reserved), "overrun")


def output_limit(model: ModelEntry, messages: tuple[Message, ...], wanted: int) -> int:
    """`wanted`, capped at what the context surely leaves; where that is under 16, `wanted` capped at the context.

    The bound on the prompt is loose (bytes), so a small remainder proves nothing: the server is then asked all the
    same and refuses by itself if it must.
    """
    surely_left = model.context_length - input_token_bound(tuple(message.content for message in messages))
    if surely_left >= min(wanted, 16):
        return min(wanted, surely_left)
    return min(wanted, max(1, model.context_length // 4))
