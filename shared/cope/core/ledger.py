"""What the ledger says, as costs: which rows count, on which day, and how they add up.

Every amount that counts is of one of three kinds, and no report ever mixes them: *calls* (settled, or settled late),
*external* (spent elsewhere and reported to us) and *overrun* (billed by a provider beyond the reserve). Their sum is
what was billed; what is reserved or unconfirmed is no cost yet and is told apart.
"""

from calendar import monthrange
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

from cope.core.ids import AttemptId, BatchId, KeyId, ProjectId, TaskId
from cope.core.lifecycle import AttemptState
from cope.core.money import ZERO, NanoUSD, PriceTier, TokenUsage

COUNTED = ("settled", "late", "external", "overrun", "refunded")
"""The ledger's kinds that enter costs; `refunded` takes away what was booked above the provider's own records."""

RECONCILED, NOT_BILLED = "reconciled", "not_billed"
"""Flags of attempts that a provider's records have settled: at what they say, or at nothing."""


class CostKind(StrEnum):
    """What an amount was spent as."""

    CALLS = "calls"
    EXTERNAL = "external"
    OVERRUN = "overrun"


class Cut(StrEnum):
    """What costs can be told apart by."""

    DAY = "day"
    MONTH = "month"
    PROJECT = "project"
    KEY = "key"
    BATCH = "batch"
    MODEL = "model"
    STEP = "step"
    STAGE = "stage"
    PRICE_VERSION = "price_version"


@dataclass(frozen=True, slots=True)
class CostRow:
    """One sum. What it was not told apart by is None; so is what an amount has none of (external spend has no model).

    `attempts` are the paid steps in it and `usage` their tokens and calls; both are 0 for external spend and overruns.
    """

    kind: CostKind
    amount: NanoUSD
    attempts: int = 0
    usage: TokenUsage = field(default_factory=TokenUsage)
    day: date | None = None
    month: str | None = None
    project_id: ProjectId | None = None
    key_id: KeyId | None = None
    batch_id: BatchId | None = None
    model: str | None = None
    step: str | None = None
    stage: str | None = None
    price_version: str | None = None

    @property
    def line_item(self) -> str:
        """Its name on a bill: ``gpt-4o, calls``, ``gpt-4o, overrun`` or ``external``."""
        if self.kind is CostKind.EXTERNAL:
            return "external" if self.model is None else f"{self.model}, external"
        return f"{self.model or 'unknown model'}, {self.kind.value}"

    @property
    def place(self) -> tuple[object, ...]:
        """Everything but its sums: what it is told apart by."""
        return (
            self.kind,
            self.day,
            self.month,
            self.project_id,
            self.key_id,
            self.batch_id,
            self.model,
            self.step,
            self.stage,
            self.price_version,
        )


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One row of the ledger with what is known of its attempt: every field that finance may be asked about.

    `day` is the one that it is charged to. `usage` is told on the row that settles, and nowhere else, so that a column
    of tokens can be added up.
    """

    at: datetime
    project_id: ProjectId
    month: str
    day: date
    key_id: KeyId | None
    batch_id: BatchId | None
    task_id: TaskId | None
    attempt_id: AttemptId
    kind: str
    nth: int
    amount: NanoUSD
    freed: NanoUSD
    price_version: str
    model: str | None
    step: str | None
    request_id: str | None
    provider_id: str | None
    usage: TokenUsage | None
    flag: str | None


@dataclass(frozen=True, slots=True)
class BookedAttempt:
    """A paid step as it stands in the books: what a provider's records are compared with.

    `doubted_at` is when it became unconfirmed: no call of it began after that.
    """

    id: AttemptId
    project_id: ProjectId
    batch_id: BatchId | None
    key_id: KeyId | None
    task_id: TaskId
    step: str
    model: str
    request_id: str
    state: AttemptState
    month: str
    reserved: NanoUSD
    cost: NanoUSD
    overrun: NanoUSD
    price_version: str
    provider_id: str | None
    sent_at: datetime | None
    doubted_at: datetime | None
    flag: str | None
    price_id: str = ""
    price_tier: PriceTier = "standard"

    @property
    def booked(self) -> NanoUSD:
        """What is booked as spent: 0 for what is open, in doubt or released."""
        return NanoUSD(self.cost + self.overrun)


@dataclass(frozen=True, slots=True)
class BudgetDifference:
    """A budget that is not what the ledger adds up to: budget minus ledger, each sum by itself."""

    project_id: ProjectId
    scope: str
    month: str
    spent: int
    reserved: int
    unconfirmed: int
    overrun: int

    @property
    def size(self) -> int:
        """How far off it is, in nano-dollars, ≥ 0: differences of opposite sign do not cancel."""
        return abs(self.spent) + abs(self.reserved) + abs(self.unconfirmed) + abs(self.overrun)


@dataclass(frozen=True, slots=True)
class AgeGroup:
    """Unconfirmed attempts that were sent at least `from_s` and less than `until_s` (None: any time) seconds ago."""

    from_s: int
    until_s: int | None
    attempts: int
    amount: NanoUSD


AGE_EDGES_S = (0, 3_600, 86_400, 7 * 86_400, 30 * 86_400)
"""Where the age groups of unconfirmed money begin: under an hour, a day, a week, 30 days, older."""


def stage_of(step: str) -> str:
    """The stage that a step belongs to: ``stage2`` for ``stage2-plan``; a step of no stage (``call``) is its own."""
    return step.partition("-")[0]


def charged_day(begun_at: datetime, time_zone: str, month: str) -> date:
    """The calendar day, in the project's zone, that an amount is charged to: the one of its reservation.

    Always inside `month`, whatever the zone is by now: so a month's days add up to the month.
    """
    year, number = int(month[:4]), int(month[5:])
    first, last = date(year, number, 1), date(year, number, monthrange(year, number)[1])
    return min(max(begun_at.astimezone(ZoneInfo(time_zone)).date(), first), last)


def with_stages(rows: Iterable[CostRow], *, steps_too: bool = False) -> list[CostRow]:
    """Told apart by stage, instead of by step or beside it."""
    return merged(
        replace(row, step=row.step if steps_too else None, stage=None if row.step is None else stage_of(row.step))
        for row in rows
    )


def merged(rows: Iterable[CostRow]) -> list[CostRow]:
    """Rows that differ in nothing but their sums become one, in the order in which they first came."""
    sums: dict[tuple[object, ...], CostRow] = {}
    for row in rows:
        known = sums.get(row.place)
        sums[row.place] = row if known is None else _plus(known, row)
    return list(sums.values())


def total_of(rows: Iterable[CostRow], *kinds: CostKind) -> NanoUSD:
    """What the rows of these kinds (none given: of all) come to."""
    return NanoUSD(sum((row.amount for row in rows if not kinds or row.kind in kinds), ZERO))


def _plus(one: CostRow, other: CostRow) -> CostRow:
    return replace(
        one,
        amount=NanoUSD(one.amount + other.amount),
        attempts=one.attempts + other.attempts,
        usage=one.usage + other.usage,
    )
