"""Reading the ledger and settling what is in doubt, over the memory store, as `ApiStore` describes it."""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime

from cope.adapters.memory import ledger, money
from cope.adapters.memory.tables import AttemptRow, Tables
from cope.core.budget import PROJECT_SCOPE
from cope.core.ids import AttemptId, ProjectId, TaskId
from cope.core.ledger import (
    AGE_EDGES_S,
    NOT_BILLED,
    RECONCILED,
    AgeGroup,
    BookedAttempt,
    BudgetDifference,
    CostRow,
    Cut,
    LedgerLine,
    merged,
    with_stages,
)
from cope.core.lifecycle import AttemptState
from cope.core.money import ZERO, NanoUSD
from cope.core.records import Budget
from cope.ports.ledger import Correction, LedgerScope, Reconciled, Standing
from cope.ports.store import Settlement

_PAGE = 1000
_FIELDS = {
    Cut.DAY: "day",
    Cut.MONTH: "month",
    Cut.PROJECT: "project_id",
    Cut.KEY: "key_id",
    Cut.BATCH: "batch_id",
    Cut.MODEL: "model",
    Cut.STEP: "step",
    Cut.PRICE_VERSION: "price_version",
}


class ApiLedgerMixin:
    """No method awaits: each is one snapshot."""

    _db: Tables

    async def costs(
        self, scope: LedgerScope, *, first: date | None, last: date | None, cuts: frozenset[Cut]
    ) -> list[CostRow]:
        """Sorted as the database sorts: what there is none of comes last."""
        rows = [
            row
            for row in ledger.cost_rows(ledger.lines_of(self._db, scope))
            if row.day is not None and (first is None or row.day >= first) and (last is None or row.day <= last)
        ]
        kept = cuts | {Cut.STEP} if Cut.STAGE in cuts else cuts
        dropped = {name: None for cut, name in _FIELDS.items() if cut not in kept}
        found = merged(replace(row, **dropped) for row in rows)  # type: ignore[arg-type]
        found.sort(
            key=lambda row: [(getattr(row, name) is None, getattr(row, name) or "") for name in _FIELDS.values()]
        )
        return with_stages(found, steps_too=Cut.STEP in cuts) if Cut.STAGE in cuts else found

    async def ledger_lines(self, scope: LedgerScope, *, month: str | None) -> AsyncIterator[Sequence[LedgerLine]]:
        """By month, attempt, kind."""
        found = [line for line in ledger.lines_of(self._db, scope) if month is None or line.month == month]
        found.sort(key=lambda line: (line.month, line.attempt_id, line.kind, line.nth))
        for start in range(0, len(found), _PAGE):
            yield found[start : start + _PAGE]

    async def month_budgets(self, scope: LedgerScope, *, first: str, last: str) -> tuple[Budget, ...]:
        """By project and month."""
        projects = scope.project_ids if scope.project_id is None else (scope.project_id,)
        return tuple(
            budget.record()
            for place, budget in sorted(self._db.budgets.items())
            if budget.scope == PROJECT_SCOPE and first <= budget.month <= last
            if projects is None or place[0] in projects
        )

    async def standings(self) -> tuple[Standing, ...]:
        """By project's id."""
        found = []
        for project_id, owner in sorted(self._db.projects.items()):
            doubtful = list(self._doubtful(project_id))
            found.append(
                Standing(
                    budget=self._db.budget(project_id).record(),
                    name=owner.project.name,
                    time_zone=owner.project.time_zone,
                    unconfirmed=NanoUSD(sum(attempt.reserved for attempt in doubtful)),
                    unconfirmed_attempts=len(doubtful),
                    oldest_sent_at=min((a.sent_at for a in doubtful if a.sent_at is not None), default=None),
                )
            )
        return tuple(found)

    async def ledger_difference(self, project_id: ProjectId | None) -> tuple[BudgetDifference, ...]:
        """By project, scope and month."""
        return tuple(ledger.difference(self._db, project_id))

    async def unconfirmed(
        self, project_id: ProjectId | None, *, after: AttemptId | None, limit: int
    ) -> tuple[Sequence[BookedAttempt], bool]:
        """The longest sent first."""
        doubtful = sorted(self._doubtful(project_id), key=_by_age)
        if after is not None and after in self._db.attempts:
            place = _by_age(self._db.attempts[after])
            doubtful = [attempt for attempt in doubtful if _by_age(attempt) > place]
        return [ledger.booked_of(attempt) for attempt in doubtful[:limit]], len(doubtful) > limit

    async def unconfirmed_ages(self, project_id: ProjectId | None) -> tuple[AgeGroup, ...]:
        """One group for every edge."""
        groups = []
        for edge, until in zip(AGE_EDGES_S, (*AGE_EDGES_S[1:], None), strict=True):
            inside = [a for a in self._doubtful(project_id) if edge <= self._age_s(a) < (until or float("inf"))]
            groups.append(AgeGroup(edge, until, len(inside), NanoUSD(sum(attempt.reserved for attempt in inside))))
        return tuple(groups)

    # ---- reconciling -----------------------------------------------------------------------------------------------

    async def attempts_of_tasks(self, task_ids: Sequence[TaskId]) -> list[BookedAttempt]:
        """By id."""
        found = [attempt for task_id in set(task_ids) for attempt in self._db.task_attempts.get(task_id, ())]
        return [ledger.booked_of(attempt) for attempt in sorted(found, key=lambda attempt: attempt.id)]

    async def unconfirmed_between(
        self, start: datetime, until: datetime, *, after: AttemptId | None, limit: int
    ) -> list[BookedAttempt]:
        """By id."""
        inside = [
            attempt
            for attempt in sorted(self._doubtful(None), key=lambda attempt: attempt.id)
            if attempt.sent_at is not None and attempt.sent_at >= start
            if attempt.doubted_at is not None and attempt.doubted_at < until
            if after is None or attempt.id > after
        ]
        return [ledger.booked_of(attempt) for attempt in inside[:limit]]

    async def settle_unconfirmed(self, project_id: ProjectId, bills: Sequence[Reconciled]) -> set[AttemptId]:
        """Those that were in doubt, and are this project's."""
        settled = set()
        for bill in bills:
            attempt = self._db.attempts.get(bill.attempt_id)
            if attempt is None or attempt.project_id != project_id or attempt.state is not AttemptState.UNCONFIRMED:
                continue
            flag = NOT_BILLED if bill.usage is None else RECONCILED
            money.settle(self._db, Settlement(bill.attempt_id, bill.cost, ZERO, bill.usage, flag, bill.provider_id))
            settled.add(bill.attempt_id)
        return settled

    async def correct(self, project_id: ProjectId, corrections: Sequence[Correction]) -> set[AttemptId]:
        """Those whose books still said what the correction was judged by."""
        corrected = set()
        for one in corrections:
            attempt = self._db.attempts.get(one.attempt_id)
            mine = attempt is not None and attempt.project_id == project_id
            if attempt is not None and mine and money.correct(self._db, attempt, one.booked, one.billed):
                corrected.add(one.attempt_id)
        return corrected

    def _doubtful(self, project_id: ProjectId | None) -> Iterator[AttemptRow]:
        for attempt in self._db.attempts.values():
            if attempt.state is AttemptState.UNCONFIRMED and project_id in {None, attempt.project_id}:
                yield attempt

    def _age_s(self, attempt: AttemptRow) -> float:
        sent_at = attempt.sent_at or self._db.now()
        return max(0.0, (self._db.now() - sent_at).total_seconds())


def _by_age(attempt: AttemptRow) -> tuple[datetime, AttemptId]:
    return attempt.sent_at or attempt.created_at, attempt.id
