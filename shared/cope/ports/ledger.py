"""Reading the ledger, and settling what is in doubt: `ApiStore`'s part about money that has moved."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from cope.core.ids import AttemptId, BatchId, KeyId, ProjectId, TaskId
from cope.core.ledger import AgeGroup, BookedAttempt, BudgetDifference, CostRow, Cut, LedgerLine
from cope.core.money import NanoUSD, TokenUsage
from cope.core.records import Budget


@dataclass(frozen=True, slots=True)
class LedgerScope:
    """Whose rows: those of one project, seen under its row-level security, or the operator's view of several
    (`project_ids`; None is all). `since` is when the earliest row may have been written, to read less."""

    project_id: ProjectId | None = None
    project_ids: tuple[ProjectId, ...] | None = None
    key_ids: tuple[KeyId, ...] | None = None
    batch_id: BatchId | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a project's money stands now: this month's budget, and what is unconfirmed of any month."""

    budget: Budget
    name: str
    time_zone: str
    unconfirmed: NanoUSD
    unconfirmed_attempts: int
    oldest_sent_at: datetime | None


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a provider's records say of an unconfirmed attempt. `usage` None: it was not billed at all."""

    attempt_id: AttemptId
    cost: NanoUSD
    usage: TokenUsage | None
    provider_id: str | None


@dataclass(frozen=True, slots=True)
class Correction:
    """A settled attempt to be set to what the provider billed (≥ 0), if `booked` is still what stands in the books."""

    attempt_id: AttemptId
    booked: NanoUSD
    billed: NanoUSD


class LedgerReads(Protocol):
    """Costs, lines, checks. Amounts are exact; each call is one snapshot of the books, except `ledger_lines`."""

    async def costs(
        self, scope: LedgerScope, *, first: date | None, last: date | None, cuts: frozenset[Cut]
    ) -> list[CostRow]:
        """What was spent on the days from `first` to `last` (None: any), told apart by kind and `cuts`. A day is the
        one of the reservation in its project's zone (`cope.core.ledger.charged_day`). Sorted by what it is cut by."""
        ...

    def ledger_lines(self, scope: LedgerScope, *, month: str | None) -> AsyncIterator[Sequence[LedgerLine]]:
        """Pages of all rows of a month (None: all months), by month and attempt. No connection is held between pages:
        what is booked meanwhile may or may not be in them."""
        ...

    async def month_budgets(self, scope: LedgerScope, *, first: str, last: str) -> tuple[Budget, ...]:
        """The projects' own budgets of these months, of those that have one."""
        ...

    async def standings(self) -> tuple[Standing, ...]:
        """Of every project, by id, archived ones included."""
        ...

    async def ledger_difference(self, project_id: ProjectId | None) -> tuple[BudgetDifference, ...]:
        """Budgets that differ from what the ledger adds up to, of one project or (None) of all; empty when the books
        are right."""
        ...

    async def unconfirmed(
        self, project_id: ProjectId | None, *, after: AttemptId | None, limit: int
    ) -> tuple[Sequence[BookedAttempt], bool]:
        """Attempts in doubt, the longest sent first, and whether there are more. None: of all projects."""
        ...

    async def unconfirmed_ages(self, project_id: ProjectId | None) -> tuple[AgeGroup, ...]:
        """Their sums by age (`cope.core.ledger.AGE_EDGES_S`), empty groups included."""
        ...


class Reconciling(Protocol):
    """What a reconciliation with a provider's records needs. Reads are the operator's, writes one project's."""

    async def attempts_of_tasks(self, task_ids: Sequence[TaskId]) -> list[BookedAttempt]:
        """Every attempt of these tasks, of any project."""
        ...

    async def unconfirmed_between(
        self, start: datetime, until: datetime, *, after: AttemptId | None, limit: int
    ) -> list[BookedAttempt]:
        """Attempts sent at `start` or later that came in doubt before `until`, by id, beyond `after`."""
        ...

    async def settle_unconfirmed(self, project_id: ProjectId, bills: Sequence[Reconciled]) -> set[AttemptId]:
        """Settle those that are still unconfirmed, as kind `late`; which they were. A cost beyond the reserve is an
        overrun. An attempt that a late answer has settled meanwhile is left as it is."""
        ...

    async def correct(self, project_id: ProjectId, corrections: Sequence[Correction]) -> set[AttemptId]:
        """Set settled or released attempts to what was billed, where the books still say `booked`; which they were.
        What was billed beyond them is an overrun; what was not billed leaves first the overrun, then `spent`."""
        ...
