"""`ApiStore`'s part about the ledger: a project's own rows, or all of them in the operator's view."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import date, datetime

from cope.adapters.postgres import reconciling, reports
from cope.adapters.postgres.database import Connection, Database, fetch
from cope.adapters.postgres.money import ledger_difference
from cope.adapters.postgres.records import budget_of
from cope.core.ids import AttemptId, ProjectId, TaskId
from cope.core.ledger import AgeGroup, BookedAttempt, BudgetDifference, CostRow, Cut, LedgerLine
from cope.core.money import NanoUSD
from cope.core.records import Budget
from cope.ports.ledger import Correction, LedgerScope, Reconciled, Standing

_UNCONFIRMED = f"""
{reconciling.BOOKED} WHERE a.state = 'unconfirmed' AND (%(project)s::text IS NULL OR a.project_id = %(project)s)
  AND (%(after)s::text IS NULL OR (a.sent_at, a.id) > (SELECT sent_at, id FROM attempts WHERE id = %(after)s))
ORDER BY a.sent_at, a.id LIMIT %(limit)s
"""  # noqa: S608

_BETWEEN = f"""
SELECT * FROM ({reconciling.BOOKED} WHERE a.state = 'unconfirmed' AND a.sent_at >= %(start)s) doubtful
WHERE doubted_at < %(until)s AND (%(after)s::text IS NULL OR id > %(after)s) ORDER BY id LIMIT %(limit)s
"""  # noqa: S608


class ApiLedger:
    """Reads are one transaction each; writes are one project's."""

    _db: Database

    def _seen(self, project_id: ProjectId | None) -> contextlib.AbstractAsyncContextManager[Connection]:
        return self._db.transaction(operator="on") if project_id is None else self._db.transaction(project=project_id)

    async def costs(
        self, scope: LedgerScope, *, first: date | None, last: date | None, cuts: frozenset[Cut]
    ) -> list[CostRow]:
        """One statement, so one snapshot."""
        async with self._seen(scope.project_id) as conn:
            return await reports.costs(conn, scope, first=first, last=last, cuts=cuts)

    async def ledger_lines(self, scope: LedgerScope, *, month: str | None) -> AsyncIterator[Sequence[LedgerLine]]:
        """Pages of up to 1,000, month by month."""
        if month is None:
            async with self._seen(scope.project_id) as conn:
                months = await reports.months_of(conn, scope)
        else:
            months = [month]
        for one in months:
            page: Sequence[LedgerLine] = ()
            while not page or len(page) == reports.PAGE:
                async with self._seen(scope.project_id) as conn:
                    page = await reports.lines_after(conn, scope, one, page[-1] if page else None)
                if not page:
                    break
                yield page

    async def month_budgets(self, scope: LedgerScope, *, first: str, last: str) -> tuple[Budget, ...]:
        """By project and month."""
        projects = scope.project_ids if scope.project_id is None else (scope.project_id,)
        async with self._seen(scope.project_id) as conn:
            rows = await reports.month_budgets(conn, projects, first, last)
        return tuple(budget_of(row) for row in rows)

    async def standings(self) -> tuple[Standing, ...]:
        """By project's id."""
        async with self._seen(None) as conn:
            rows = await fetch(conn, reports.STANDINGS)
        return tuple(
            Standing(
                budget=budget_of(row),
                name=row["name"],
                time_zone=row["time_zone"],
                unconfirmed=NanoUSD(int(row["in_doubt"])),
                unconfirmed_attempts=row["attempts"],
                oldest_sent_at=row["oldest"],
            )
            for row in rows
        )

    async def ledger_difference(self, project_id: ProjectId | None) -> tuple[BudgetDifference, ...]:
        """One statement: what is being booked is seen on both sides or on neither."""
        async with self._seen(project_id) as conn:
            rows = await ledger_difference(conn, project_id)
        return tuple(
            BudgetDifference(
                project_id=ProjectId(row["project_id"]),
                scope=row["scope"],
                month=row["month"],
                spent=int(row["spent"]),
                reserved=int(row["reserved"]),
                unconfirmed=int(row["unconfirmed"]),
                overrun=int(row["overrun"]),
            )
            for row in rows
        )

    async def unconfirmed(
        self, project_id: ProjectId | None, *, after: AttemptId | None, limit: int
    ) -> tuple[Sequence[BookedAttempt], bool]:
        """The longest sent first."""
        async with self._seen(project_id) as conn:
            rows = await fetch(conn, _UNCONFIRMED, {"project": project_id, "after": after, "limit": limit + 1})
        return [reconciling.booked_of(row) for row in rows[:limit]], len(rows) > limit

    async def unconfirmed_ages(self, project_id: ProjectId | None) -> tuple[AgeGroup, ...]:
        """By the database's clock."""
        async with self._seen(project_id) as conn:
            return await reconciling.ages(conn, project_id)

    # ---- reconciling -----------------------------------------------------------------------------------------------

    async def attempts_of_tasks(self, task_ids: Sequence[TaskId]) -> list[BookedAttempt]:
        """By id, of any project."""
        async with self._seen(None) as conn:
            return await reconciling.attempts_of_tasks(conn, task_ids)

    async def unconfirmed_between(
        self, start: datetime, until: datetime, *, after: AttemptId | None, limit: int
    ) -> list[BookedAttempt]:
        """By id, of any project."""
        params = {"start": start, "until": until, "after": after, "limit": limit}
        async with self._seen(None) as conn:
            return [reconciling.booked_of(row) for row in await fetch(conn, _BETWEEN, params)]

    async def settle_unconfirmed(self, project_id: ProjectId, bills: Sequence[Reconciled]) -> set[AttemptId]:
        """All of them in one transaction."""
        async with self._seen(project_id) as conn:
            return await reconciling.settle_unconfirmed(conn, bills)

    async def correct(self, project_id: ProjectId, corrections: Sequence[Correction]) -> set[AttemptId]:
        """All of them in one transaction."""
        async with self._seen(project_id) as conn:
            return await reconciling.correct(conn, corrections)
