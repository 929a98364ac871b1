"""Where a month's spend is heading: whole nano-dollars, and rather too early an alarm than too late a one.

The projection is what is spent, reserved and unconfirmed so far, plus the rate of spending for the time left, plus what
the lines left of the open batches are expected to need. It counts twice on purpose: a batch under way is part of the
rate too, and its calls in flight are part of what is reserved.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cope.core.budget import month_start, next_month_start
from cope.core.money import ZERO, NanoUSD

DAY_S = 86_400
ENOUGH_LINES = 20
"""Finished lines of a batch from which their average says something."""


class Rate(StrEnum):
    """Which rate of spending the projection went by: the higher of those that there was enough data for."""

    LAST_DAY = "last_24_hours"
    MONTH = "month_so_far"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """A batch in progress. `spent` is over its whole life; `left` is what its own cap leaves it, None without one."""

    total: int
    finished: int
    spent: NanoUSD
    left: NanoUSD | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """How a project spends. `spent` counts the month's settled and external spend and any overrun; `last_day` is what
    was booked in the last 24 hours, of whatever month; `first_at` is when anything was booked first."""

    spent: NanoUSD
    reserved: NanoUSD
    unconfirmed: NanoUSD
    last_day: NanoUSD
    first_at: datetime | None
    batches: tuple[OpenBatch, ...] = ()


@dataclass(frozen=True, slots=True)
class Projection:
    """`total` at the end of the month, of which `backlog` is for lines that wait; `per_day` is the rate of spending."""

    total: NanoUSD
    committed: NanoUSD
    backlog: NanoUSD
    per_day: NanoUSD
    rate: Rate

    def reaches_at(self, cap: NanoUSD, now: datetime) -> datetime | None:
        """When `committed` and `backlog` come to the cap at this rate, not before `now`; None if they never do."""
        missing = cap - self.committed - self.backlog
        if missing <= 0:
            return now
        return None if self.per_day == 0 else now + timedelta(seconds=-(-missing * DAY_S // self.per_day))


def project(pace: Pace, now: datetime, time_zone: str) -> Projection:
    """What the month of an aware `now` comes to.

    A rate counts once there is enough data: that of the last 24 hours from 24 hours after the project's first booking
    on; that of the month from 24 hours after its start (or the first booking, whichever is later). Of the two the
    higher one is taken, rounded up. A batch counts once `ENOUGH_LINES` of it are finished: its lines left at its own
    average, at most what its own cap leaves. Lines that escalate finish last, so early in a batch this is too low.
    """
    left_s = _seconds(next_month_start(now, time_zone) - now)
    per_day, rate = _rate(pace, now, time_zone)
    committed = NanoUSD(pace.spent + pace.reserved + pace.unconfirmed)
    backlog = _backlog(pace.batches)
    coming = -(-per_day * left_s // DAY_S)
    return Projection(NanoUSD(committed + coming + backlog), committed, backlog, per_day, rate)


def _rate(pace: Pace, now: datetime, time_zone: str) -> tuple[NanoUSD, Rate]:
    if pace.first_at is None or now - pace.first_at < timedelta(days=1):
        return ZERO, Rate.NONE
    elapsed_s = _seconds(now - max(pace.first_at, month_start(now, time_zone)))
    month = -(-pace.spent * DAY_S // elapsed_s) if elapsed_s >= DAY_S else 0
    if max(pace.last_day, month) == 0:
        return ZERO, Rate.NONE
    return (pace.last_day, Rate.LAST_DAY) if pace.last_day >= month else (NanoUSD(month), Rate.MONTH)


def _backlog(batches: Iterable[OpenBatch]) -> NanoUSD:
    expected = 0
    for batch in batches:
        if batch.finished >= ENOUGH_LINES:
            needs = -(-batch.spent * max(0, batch.total - batch.finished) // batch.finished)
            expected += needs if batch.left is None else min(needs, max(0, batch.left))
    return NanoUSD(expected)


def _seconds(span: timedelta) -> int:
    return span.days * DAY_S + span.seconds
