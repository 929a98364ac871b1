"""What a provider's records mean for an attempt in our books. Pure: judged here, booked by the store.

A step may make several calls under one reservation, so everything billed under its request id is summed first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from cope.core.ledger import BookedAttempt
from cope.core.lifecycle import AttemptState
from cope.core.money import NanoUSD, Price, TokenUsage


class Verdict(StrEnum):
    """What becomes of an attempt, or of billed calls that belong to none."""

    SETTLED = "settled"
    NOT_BILLED = "not_billed"
    EQUAL = "equal"
    DIFFERENT = "different"
    CORRECTED = "corrected"
    TOO_RECENT = "too_recent"
    IN_FLIGHT = "in_flight"
    UNREADABLE = "unreadable"
    NO_PRICE = "no_price"
    UNKNOWN = "unknown"
    CHANGED = "changed_meanwhile"


UNSETTLED = frozenset({Verdict.DIFFERENT, Verdict.UNREADABLE, Verdict.NO_PRICE, Verdict.CHANGED})
"""Verdicts that leave something for a person to look at."""


@dataclass(frozen=True, slots=True)
class BilledCall:
    """What was billed under one request id. `cost` is the sum where the provider told it; `unpriced` are the tokens of
    rows that told no cost. `unreadable`: a row of it could not be read, so the sum is not known."""

    request_id: str
    calls: int
    cost: NanoUSD
    usage: TokenUsage
    unpriced: TokenUsage
    provider_id: str | None
    line: int
    unreadable: bool = False


@dataclass(frozen=True, slots=True)
class Billed:
    """All that was billed for one attempt."""

    calls: tuple[BilledCall, ...] = field(default=())

    @property
    def usage(self) -> TokenUsage:
        """Tokens and calls, as far as the file tells them."""
        return sum((call.usage for call in self.calls), TokenUsage())

    @property
    def provider_id(self) -> str | None:
        """The first that is told."""
        return next((call.provider_id for call in self.calls if call.provider_id), None)

    @property
    def unreadable(self) -> bool:
        """Whether the sum is not known."""
        return any(call.unreadable for call in self.calls)

    def cost(self, price: Price | None) -> NanoUSD | None:
        """What was billed; None where only tokens are told and there is no price for them."""
        told = sum(call.cost for call in self.calls)
        unpriced = sum((call.unpriced for call in self.calls), TokenUsage())
        if not unpriced.calls:
            return NanoUSD(told)
        return None if price is None else NanoUSD(told + price.cost(unpriced))


def attempt_of(request_id: str, attempts: Sequence[BookedAttempt]) -> BookedAttempt | None:
    """The attempt that made the call of this id: the one whose own id it begins with, followed by ``-`` or nothing.

    Of several (one id names one lease, and so one paid step) it is the one that was sent.
    """
    own = [a for a in attempts if request_id == a.request_id or request_id.startswith(f"{a.request_id}-")]
    own.sort(key=lambda attempt: attempt.sent_at is not None)
    return own[-1] if own else None


def judge(
    attempt: BookedAttempt, billed: Billed, price: Price | None, *, ended_before: datetime
) -> tuple[Verdict, NanoUSD | None]:
    """What to do about an attempt, and what was billed for it.

    What came in doubt at `ended_before` or later may have calls that still run, and whose bill is still to come.
    """
    if billed.unreadable:
        return Verdict.UNREADABLE, None
    cost = billed.cost(price)
    if cost is None:
        return Verdict.NO_PRICE, None
    match attempt.state:
        case AttemptState.RESERVED | AttemptState.SENT:
            return Verdict.IN_FLIGHT, cost
        case AttemptState.UNCONFIRMED:
            over = attempt.doubted_at is not None and attempt.doubted_at < ended_before
            return (Verdict.SETTLED if over else Verdict.TOO_RECENT), cost
        case AttemptState.SETTLED | AttemptState.RELEASED:
            return (Verdict.EQUAL if cost == attempt.booked else Verdict.DIFFERENT), cost
