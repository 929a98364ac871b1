"""When a batch will be done, and what it waits for: two queues, how often a step leads from one to the other, and how
fast each was worked off lately.

A batch that cascades looks fast at first: what the small model settles ends soon, and what it escalates piles up in
front of the large one. So not the tasks left are divided by tasks a second, but the *steps* left of each tier by that
tier's steps a second, and the slower of the two says when it ends.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import TypeAlias

from cope.core.lifecycle import HoldReason

LOOK_BACK_S = 600.0
"""Samples older than this say nothing about now."""
SAMPLED_EVERY_S = 5.0
_GAP_S = 60.0
_CHUNKS = 8
_FLOOR = 0.1  # no rate is known better than to a tenth: the next hour need not be like the last ten minutes
_Z90 = 1.2816
_MOST_ROUNDS = 0.5  # no policy brings a task before one model more than twice

_Count: TypeAlias = tuple[datetime, int]


class LimitedBy(StrEnum):
    """What a batch would have to have more of to end sooner."""

    SMALL_MODEL = "small_model"
    PROVIDER_RATE = "provider_rate"
    BUDGET = "budget"
    PROVIDER_QUOTA = "provider_quota"
    PAUSED = "paused"


_OF_HOLD = {
    HoldReason.BUDGET: LimitedBy.BUDGET,
    HoldReason.PROVIDER_QUOTA: LimitedBy.PROVIDER_QUOTA,
    HoldReason.PAUSED: LimitedBy.PAUSED,
    HoldReason.UNPARSABLE: LimitedBy.PAUSED,
}


@dataclass(frozen=True, slots=True)
class Workload:
    """A batch's tasks now. `at_large` unfinished ones have the large model's step before them, `first_large` lines
    began there; steps are those committed since the batch began."""

    total: int
    ended: int
    at_large: int
    first_large: int
    small_steps: int
    large_steps: int

    @property
    def at_small(self) -> int:
        """Unfinished tasks whose next step is the small model's."""
        return max(0, self.total - self.ended - self.at_large)


@dataclass(frozen=True, slots=True)
class PaceSample:
    """Steps committed by `at`, and the batch's tasks under lease then."""

    at: datetime
    small_steps: int
    large_steps: int
    leased: int = 0


@dataclass(frozen=True, slots=True)
class Eta:
    """Seconds until the batch's last line, by chance 1 in 2 and 9 in 10; None: it can't be told. `limited_by` None:
    every task left is being worked on."""

    p50: int | None
    p90: int | None
    limited_by: LimitedBy | None


def estimate(
    work: Workload, samples: Sequence[PaceSample], *, began_at: datetime, now: datetime, hold: HoldReason | None
) -> Eta | None:
    """Of a batch in progress; `samples` by time, any number. None while nothing is known.

    What is held goes on nobody knows when: then only the reason is told.
    """
    if hold is not None:
        return Eta(None, None, _OF_HOLD[hold])
    if work.ended >= work.total:
        return Eta(0, 0, None)
    if not work.small_steps + work.large_steps:
        return None
    small_left, large_left, doubt = _steps_left(work)
    recent = [sample for sample in samples if (now - sample.at).total_seconds() <= LOOK_BACK_S]
    life_s = max(1e-3, (now - began_at).total_seconds())
    small = _Tier.of(small_left, [(s.at, s.small_steps) for s in recent], work.small_steps, life_s, doubt=0.0)
    large = _Tier.of(large_left, [(s.at, s.large_steps) for s in recent], work.large_steps, life_s, doubt=doubt)
    limit: LimitedBy | None
    slow, limit = small, LimitedBy.SMALL_MODEL
    if _large_limits(work, small, large):
        slow, limit = large, LimitedBy.PROVIDER_RATE
    if recent and recent[-1].leased >= work.total - work.ended:
        limit = None
    if small.seconds is None or large.seconds is None or slow.seconds is None:
        return Eta(None, None, limit)
    return Eta(math.ceil(slow.seconds), math.ceil(slow.seconds * (1 + _Z90 * slow.error)), limit)


def _steps_left(work: Workload) -> tuple[float, float, float]:
    """(small steps, large steps) that the unfinished tasks will still take, and the relative doubt about the second.

    From the steps so far: a small one led to a large one with chance p, a large one back to a small one with chance q.
    """
    to_large = max(0, work.large_steps + work.at_large - work.first_large)
    to_small = max(0, work.small_steps + work.at_small - (work.total - work.first_large))
    p = min(1.0, to_large / work.small_steps) if work.small_steps else 0.0
    q = min(1.0, to_small / work.large_steps) if work.large_steps else 0.0
    visits = 1 / (1 - min(_MOST_ROUNDS, p * q))
    small = (work.at_small + work.at_large * q) * visits
    escalating = work.at_small * p * visits
    large = work.at_large * visits + escalating
    seen = p * work.small_steps
    doubt = escalating / large * math.sqrt((1 - p) / seen) if large and seen else 0.0
    return small, large, doubt


@dataclass(frozen=True, slots=True)
class _Tier:
    """`seconds` until its steps are done (None: it never did one), with the relative error of that."""

    seconds: float | None
    error: float

    @classmethod
    def of(cls, left: float, counts: Sequence[_Count], ever: int, life_s: float, *, doubt: float) -> "_Tier":
        if left < 1e-9:
            return cls(0.0, 0.0)
        spans = _spans(counts)
        steps, lasted = sum(n for n, _ in spans), sum(s for _, s in spans)
        if not steps:
            spans, steps, lasted = [], ever, life_s
        if not steps:
            return cls(None, 0.0)
        error = math.sqrt(1 / steps + _unevenness(spans) + doubt**2 + _FLOOR**2)
        return cls(left * lasted / steps, min(2.0, error))


def _spans(counts: Sequence[_Count]) -> list[tuple[int, float]]:
    """(steps, seconds) between samples. Over a long gap, or where a count went back, nothing was measured."""
    spans = []
    for (before, had), (at, has) in pairwise(counts):
        seconds = (at - before).total_seconds()
        if 0 < seconds <= _GAP_S and has >= had:
            spans.append((has - had, seconds))
    return spans


def _unevenness(spans: Sequence[tuple[int, float]]) -> float:
    """The squared relative standard error of the rate, as its parts differ among each other."""
    size = -(-len(spans) // _CHUNKS)
    if size == 0 or len(spans) < 2:
        return 0.0
    chunks = [spans[start : start + size] for start in range(0, len(spans), size)]
    rates = [sum(n for n, _ in chunk) / sum(s for _, s in chunk) for chunk in chunks]
    mean = sum(rates) / len(rates)
    if len(rates) < 2 or mean <= 0:
        return 0.0
    variance = sum((rate - mean) ** 2 for rate in rates) / (len(rates) - 1)
    return variance / mean**2 / len(rates)


def _large_limits(work: Workload, small: _Tier, large: _Tier) -> bool:
    """The slower tier; where they are about equal (one feeds the other), the one with more tasks before it."""
    if small.seconds is None or large.seconds is None:
        return large.seconds is None
    if max(small.seconds, large.seconds) > 1.25 * min(small.seconds, large.seconds):
        return large.seconds > small.seconds
    return work.at_large > work.at_small
