"""The shadow audit's figures: how often the large model, asked too, disagrees with answers that were not escalated.

Only answers whose two keys could both be read are compared, with the equality that votes use. Agreement is not
correctness: both models can be wrong alike, and where they differ either may be right.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from math import ceil, floor, sqrt

from cope.core.answers.model import AnswerKey
from cope.core.ids import BatchId, ProjectId, TaskId
from cope.core.money import NanoUSD

Z_95 = 1.959963984540054
"""The standard normal's 97.5 % point: an interval that covers 95 %."""

NOT_CORRECTNESS = (
    "Agreement is not correctness: both models can be wrong in the same way, and where they differ either may be right."
)


class AuditState(StrEnum):
    """`pending` until the large model has answered; `unparsable`: its answer has no key; `dropped`: it was not asked to
    the end (no money under a cap, a prompt too long for it, a provider's refusal)."""

    PENDING = "pending"
    AGREED = "agreed"
    DISAGREED = "disagreed"
    UNPARSABLE = "unparsable"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True, order=True)
class Stratum:
    """Answers of one stage (1 or 2) and confidence: `votes` of `n` agreed when the vote ended. `stopped_early`: samples
    were aborted once the outcome was certain, so that more might have agreed."""

    stage: int
    votes: int
    n: int
    stopped_early: bool

    @property
    def label(self) -> str:
        """As people read it: ``"6/8"``, or ``"6/8 or more"`` where the vote ended early."""
        return f"{self.votes}/{self.n}" + (" or more" if self.stopped_early and self.votes < self.n else "")


@dataclass(frozen=True, slots=True)
class Audit:
    """One audited answer. `audit_task_id` is the internal task that asks the large model; `month` is that of the
    acceptance in the project's zone; `share` is in millionths; `reason` says why an audit was dropped."""

    task_id: TaskId
    project_id: ProjectId
    batch_id: BatchId | None
    audit_task_id: TaskId
    month: str
    stratum: Stratum
    share: int
    small_answer: str
    small_key: AnswerKey
    created_at: datetime
    custom_id: str | None = None
    state: AuditState = AuditState.PENDING
    large_answer: str | None = None
    large_key: AnswerKey | None = None
    reason: str | None = None
    cost: NanoUSD = NanoUSD(0)
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AuditCounts:
    """`accepted` answers were not escalated while audits were on; the rest counts the audits drawn among them."""

    accepted: int = 0
    pending: int = 0
    agreed: int = 0
    disagreed: int = 0
    unparsable: int = 0
    dropped: int = 0
    cost: NanoUSD = NanoUSD(0)

    @property
    def judged(self) -> int:
        """Audits that say something: both answers could be read."""
        return self.agreed + self.disagreed

    @property
    def sampled(self) -> int:
        """Every audit that was drawn."""
        return self.judged + self.pending + self.unparsable + self.dropped

    def __add__(self, other: "AuditCounts") -> "AuditCounts":
        return AuditCounts(
            self.accepted + other.accepted,
            self.pending + other.pending,
            self.agreed + other.agreed,
            self.disagreed + other.disagreed,
            self.unparsable + other.unparsable,
            self.dropped + other.dropped,
            NanoUSD(self.cost + other.cost),
        )


@dataclass(frozen=True, slots=True)
class StratumCounts:
    """One stratum's counts under one share (in millionths)."""

    stratum: Stratum
    share: int
    counts: AuditCounts


@dataclass(frozen=True, slots=True)
class Estimate:
    """Disagreement in [0, 1]. `low` and `high` are Wilson's 95 % interval for answers like these; `fewest` and `most`
    bound how many of the `accepted` ones differ, at the same 95 %, knowing those that were audited."""

    rate: Fraction
    low: float
    high: float
    fewest: int
    most: int


def wilson(
    successes: int, trials: int | Fraction, *, rate: Fraction | None = None, z: float = Z_95
) -> tuple[float, float]:
    """Wilson's score interval for a share, inside [0, 1] and around the point estimate.

    `trials` > 0; a fraction is an effective sample size, for which `rate` is then given apart. Raises `ValueError` for
    no trials or a share outside [0, 1].
    """
    if trials <= 0:
        raise ValueError("no trials, no interval")
    p = Fraction(successes) / trials if rate is None else rate
    if not 0 <= p <= 1:
        raise ValueError(f"{p} is no share")
    n, share = float(trials), float(p)
    spread = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    centre, scale = share + z * z / (2 * n), 1 + z * z / n
    # At the ends the formula gives 0 and 1 exactly, and floating point nearly so.
    low = 0.0 if p == 0 else max(0.0, min(share, (centre - spread) / scale))
    high = 1.0 if p == 1 else min(1.0, max(share, (centre + spread) / scale))
    return low, high


def estimate(counts: AuditCounts) -> Estimate | None:
    """What the audits say, or None where none has been judged yet."""
    if not counts.judged:
        return None
    rate = Fraction(counts.disagreed, counts.judged)
    low, high = wilson(counts.disagreed, counts.judged)
    fewest, most = _differing(counts, rate)
    return Estimate(rate, low, high, fewest, most)


def _differing(counts: AuditCounts, rate: Fraction) -> tuple[int, int]:
    """The finite population: sampling n of N narrows the spread by √((N - n)/(N - 1)), as n·(N - 1)/(N - n) trials
    would; audited ones are known; all audited leaves nothing to guess."""
    whole, known = max(counts.accepted, counts.judged), counts.judged
    if whole == known:
        return counts.disagreed, counts.disagreed
    low, high = wilson(counts.disagreed, Fraction(known * (whole - 1), whole - known), rate=rate)
    return max(counts.disagreed, floor(low * whole)), min(whole - counts.agreed, ceil(high * whole))


def total(strata: Iterable[StratumCounts]) -> AuditCounts:
    """All strata together."""
    return sum((one.counts for one in strata), AuditCounts())


def by_stratum(strata: Iterable[StratumCounts]) -> dict[Stratum, AuditCounts]:
    """Stages and confidences in order, whatever the share was."""
    merged: dict[Stratum, AuditCounts] = {}
    for one in sorted(strata, key=lambda s: s.stratum):
        merged[one.stratum] = merged.get(one.stratum, AuditCounts()) + one.counts
    return merged


def sentence(counts: AuditCounts) -> str:
    """The finding in one sentence."""
    found = estimate(counts)
    if found is None:
        return f"No estimate: none of {counts.accepted:,} unescalated answers has been compared yet."
    if found.fewest == found.most:
        return f"Of {counts.accepted:,} unescalated answers {found.most:,} differ from what the large model says."
    return (
        f"Of {counts.accepted:,} unescalated answers about {found.fewest:,} to {found.most:,} differ from what the "
        "large model says (95 % interval)."
    )


def caveats(strata: Iterable[StratumCounts]) -> tuple[str, ...]:
    """What the figures do not say, the most important first."""
    strata = tuple(strata)
    counts = total(strata)
    told = [NOT_CORRECTNESS]
    if counts.pending:
        told.append(f"{counts.pending:,} audits are still to be answered: the figures may move.")
    if counts.unparsable:
        worst = Fraction(counts.disagreed + counts.unparsable, counts.judged + counts.unparsable)
        told.append(
            f"{counts.unparsable:,} answers of the large model could not be read and are left out; were all of them "
            f"disagreements, the estimate would be {float(worst):.1%}."
        )
    if counts.dropped:
        told.append(
            f"{counts.dropped:,} audits were dropped, mostly for want of money under a cap: what came after the money "
            "ran out, and long tasks near its end, weigh too little."
        )
    if len({one.share for one in strata}) > 1:
        told.append("The share was not the same throughout: what was accepted under a higher share weighs more.")
    return tuple(told)
