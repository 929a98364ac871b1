"""Budget rows: one per scope and month. Begun once, locked in one order everywhere, changed by conditional UPDATEs.

The order of locks is that of the scope's text: audits (`audit`), batches (`batch_…`), then keys (`key_…`), then
projects (`project`), so that the hottest row, the project's, is held shortest.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from psycopg import AsyncCursor
from psycopg.rows import TupleRow

from cope.adapters.postgres.database import Connection, Row, fetch
from cope.core.budget import AUDIT_SCOPE, PROJECT_SCOPE, WHOLE_LIFE, scopes_of


class BudgetKey(NamedTuple):
    """Names a budget row; sorts in locking order."""

    scope: str
    project_id: str
    month: str


def budget_keys(project_id: str, batch_id: str | None, key_id: str | None, month: str) -> tuple[BudgetKey, ...]:
    """Every budget that a paid call counts in, narrowest first."""
    return tuple(BudgetKey(scope, project_id, at) for scope, at in scopes_of(batch_id, key_id, month))


class KnownBudgets:
    """Rows that are known to exist: none is ever deleted, so they need not be begun again."""

    _MOST = 20_000

    def __init__(self) -> None:
        self._known: set[BudgetKey] = set()

    async def ensure(self, conn: Connection, keys: Sequence[BudgetKey]) -> None:
        """Begin those that may be missing. Before any budget is locked: a row that another transaction is beginning is
        waited for."""
        unknown = sorted(set(keys) - self._known)
        if not unknown:
            return
        begun = await ensure_budgets(conn, unknown)
        if len(self._known) > self._MOST:
            self._known.clear()
        # What this transaction has begun itself is gone again if it is rolled back.
        self._known.update(key for key in unknown if key not in begun)

    def forget(self, keys: Iterable[BudgetKey]) -> None:
        """These turned out to be missing (a database put back from a copy): they are begun again next time."""
        self._known.difference_update(keys)


async def ensure_budgets(conn: Connection, keys: Sequence[BudgetKey]) -> set[BudgetKey]:
    """Begin missing rows under the caps of their project, its audits, key or batch; returns those begun here.

    FOR SHARE: a cap that is being changed is waited for.
    """
    for table, ids in (
        ("batches", [key.scope for key in keys if key.month == WHOLE_LIFE]),
        ("api_keys", [key.scope for key in keys if key.month != WHOLE_LIFE and key.scope != PROJECT_SCOPE]),
        ("projects", [key.project_id for key in keys if key.scope in {PROJECT_SCOPE, AUDIT_SCOPE}]),
    ):
        if ids:
            await conn.execute(f"SELECT FROM {table} WHERE id = ANY (%s) ORDER BY id FOR SHARE", [ids])
    rows = await fetch(
        conn,
        f"""
        INSERT INTO budgets (project_id, scope, month, cap, ceiling)
        SELECT w.project_id, w.scope, w.month, c.cap, c.cap
        FROM unnest(%s::text[], %s::text[], %s::text[]) AS w (scope, project_id, month), LATERAL (
          SELECT CASE WHEN w.scope = '{PROJECT_SCOPE}' THEN (SELECT cap FROM projects WHERE id = w.project_id)
                      WHEN w.scope = '{AUDIT_SCOPE}' THEN (SELECT audit_cap FROM projects WHERE id = w.project_id)
                      WHEN w.month = '{WHOLE_LIFE}' THEN (SELECT cap FROM batches WHERE id = w.scope)
                      ELSE (SELECT cap FROM api_keys WHERE id = w.scope) END AS cap) c
        ORDER BY w.scope COLLATE "C", w.project_id COLLATE "C", w.month
        ON CONFLICT (project_id, scope, month) DO NOTHING RETURNING scope, project_id, month
        """,  # noqa: S608
        _columns(sorted(keys)),
    )
    return {BudgetKey(row["scope"], row["project_id"], row["month"]) for row in rows}


async def lock_budgets(conn: Connection, keys: Sequence[BudgetKey]) -> dict[BudgetKey, int | None]:
    """Lock these rows in order; what each leaves (negative where a cap was lowered below its sums; None: no cap)."""
    rows = await fetch(
        conn,
        """
        SELECT b.scope, b.project_id, b.month, b.cap - b.spent - b.reserved - b.unconfirmed AS left
        FROM budgets b JOIN unnest(%s::text[], %s::text[], %s::text[]) AS w (scope, project_id, month)
          USING (scope, project_id, month)
        ORDER BY b.scope, b.project_id, b.month FOR NO KEY UPDATE OF b
        """,
        _columns(sorted(keys)),
    )
    return {BudgetKey(row["scope"], row["project_id"], row["month"]): row["left"] for row in rows}


async def add_reserves(conn: Connection, amounts: Mapping[BudgetKey, int]) -> AsyncCursor[TupleRow]:
    """Set aside what has been found to fit, in locked rows. Pipelined: the caller looks at `check_taken` afterwards.

    A grant lies under the present cap, so do all sums with it: the ceiling comes back down to the cap. The condition
    and the table's CHECK are the second and third look at what the lock has already made certain.
    """
    keys = sorted(amounts)
    return await conn.execute(
        """
        UPDATE budgets b SET reserved = b.reserved + w.amount, ceiling = b.cap
        FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[]) AS w (scope, project_id, month, amount)
        WHERE b.scope = w.scope AND b.project_id = w.project_id AND b.month = w.month
          AND (b.cap IS NULL OR b.spent + b.reserved + b.unconfirmed + w.amount <= b.cap)
        """,
        [*_columns(keys), [amounts[key] for key in keys]],
    )


def check_taken(taken: AsyncCursor[TupleRow], amounts: Mapping[BudgetKey, int]) -> None:
    """Every row took its reserve. Raises `AssertionError`, which takes the transaction back."""
    if taken.rowcount != len(amounts):
        raise AssertionError(f"a locked budget changed: {taken.rowcount} of {len(amounts)} rows took their reserve")


async def change_cap(conn: Connection, key: BudgetKey, cap: int | None) -> Sequence[Row]:
    """The scope's row of this month and of later ones get the new cap; the ceiling stays over what was granted.

    Returns the changed rows. The project's, key's or batch's own `cap` is the caller's to write, before this.
    """
    await ensure_budgets(conn, [key])
    return await fetch(
        conn,
        """
        UPDATE budgets SET cap = %(cap)s,
          ceiling = CASE WHEN %(cap)s::bigint IS NULL THEN NULL
                         WHEN spent + reserved + unconfirmed <= %(cap)s THEN %(cap)s
                         WHEN ceiling IS NULL THEN spent + reserved + unconfirmed
                         ELSE greatest(ceiling, %(cap)s) END
        WHERE project_id = %(project)s AND scope = %(scope)s AND month >= %(month)s RETURNING *
        """,
        {"cap": cap, "project": key.project_id, "scope": key.scope, "month": key.month},
    )


def _columns(keys: Sequence[BudgetKey]) -> list[list[str]]:
    return [[key.scope for key in keys], [key.project_id for key in keys], [key.month for key in keys]]
