"""Reading the ledger: costs by any cut, its lines, budgets by month, how every project stands."""

from collections.abc import Sequence
from datetime import date
from typing import Any

from cope.adapters.postgres.database import Connection, Row, fetch
from cope.core.budget import PROJECT_SCOPE
from cope.core.codec import decode_usage
from cope.core.ids import AttemptId, BatchId, KeyId, ProjectId, TaskId
from cope.core.ledger import COUNTED, CostKind, CostRow, Cut, LedgerLine, with_stages
from cope.core.money import NanoUSD
from cope.ports.ledger import LedgerScope

PAGE = 1000

# The day of the reservation in the project's zone, kept inside the month that it was reserved in (`charged_day`).
_DAY = """
least(greatest((coalesce(a.created_at, l.at) AT TIME ZONE p.time_zone)::date, (l.month || '-01')::date),
      ((l.month || '-01')::date + interval '1 month' - interval '1 day')::date)
"""

_COLUMNS = {
    Cut.DAY: (_DAY, "day"),
    Cut.MONTH: ("l.month", "month"),
    Cut.PROJECT: ("l.project_id", "project_id"),
    Cut.KEY: ("l.key_id", "key_id"),
    Cut.BATCH: ("l.batch_id", "batch_id"),
    Cut.MODEL: ("a.model", "model"),
    Cut.STEP: ("a.step", "step"),
    Cut.PRICE_VERSION: ("l.price_version", "price_version"),
}

_FROM = """
FROM ledger l JOIN projects p ON p.id = l.project_id LEFT JOIN attempts a ON a.id = l.attempt_id
"""

# A refund takes from both kinds, each its part.
_KINDS = """
CROSS JOIN LATERAL (VALUES
  (CASE WHEN l.kind IN ('external', 'overrun') THEN l.kind ELSE 'calls' END,
   CASE l.kind WHEN 'refunded' THEN -l.amount ELSE l.amount END, l.kind IN ('settled', 'late')),
  ('overrun', CASE WHEN l.kind = 'refunded' AND l.freed > 0 THEN -l.freed END, false)
) AS c (kind, amount, settles)
"""


async def costs(
    conn: Connection, scope: LedgerScope, *, first: date | None, last: date | None, cuts: frozenset[Cut]
) -> list[CostRow]:
    """As `cope.ports.ledger.LedgerReads.costs` says it."""
    by_step = cuts & {Cut.STEP, Cut.STAGE}
    columns = [column for cut, column in _COLUMNS.items() if cut in cuts or (cut is Cut.STEP and by_step)]
    where, params = _where(scope)
    where += " AND l.kind = ANY (%(kinds)s) AND c.amount IS NOT NULL"
    params["kinds"] = list(COUNTED)
    if first is not None:
        where += f" AND l.month >= %(first_month)s AND {_DAY} >= %(first)s"
        params |= {"first": first, "first_month": f"{first:%Y-%m}"}
    if last is not None:
        where += f" AND l.month <= %(last_month)s AND {_DAY} <= %(last)s"
        params |= {"last": last, "last_month": f"{last:%Y-%m}"}
    rows = await fetch(
        conn,
        f"""
        SELECT {"".join(f"{expression} AS {name}, " for expression, name in columns)} c.kind AS spent_as,
          sum(c.amount) AS amount, count(*) FILTER (WHERE c.settles) AS attempts,
          ARRAY[{", ".join(_summed(place) for place in range(1, 6))}] AS usage
        {_FROM} {_KINDS} WHERE {where}
        GROUP BY {"".join(f"{expression}, " for expression, _ in columns)} c.kind
        ORDER BY {"".join(f"{place}, " for place in range(1, len(columns) + 1))} c.kind
        """,
        params,
    )
    found = [_cost_row(row) for row in rows]
    return with_stages(found, steps_too=Cut.STEP in cuts) if Cut.STAGE in cuts else found


def _summed(place: int) -> str:
    return f"coalesce(sum(a.usage[{place}]) FILTER (WHERE c.settles), 0)::bigint"


def _cost_row(row: Row) -> CostRow:
    named = {name: row[name] for _, name in _COLUMNS.values() if name in row}
    return CostRow(
        kind=CostKind(row["spent_as"]),
        amount=NanoUSD(int(row["amount"])),
        attempts=row["attempts"],
        usage=decode_usage(row["usage"]),
        **named,
    )


def _where(scope: LedgerScope) -> tuple[str, dict[str, Any]]:
    """Row-level security decides what may be seen; these conditions say what is wanted, and let indexes be used."""
    conditions, params = ["true"], dict[str, Any]()
    projects = [scope.project_id] if scope.project_id is not None else scope.project_ids
    if projects is not None:
        conditions.append("l.project_id = ANY (%(projects)s)")
        params["projects"] = list(projects)
    if scope.key_ids is not None:
        conditions.append("l.key_id = ANY (%(keys)s)")
        params["keys"] = list(scope.key_ids)
    if scope.batch_id is not None:
        conditions.append("l.batch_id = %(batch)s")
        params["batch"] = scope.batch_id
    if scope.since is not None:
        conditions.append("l.at >= %(since)s")
        params["since"] = scope.since
    return " AND ".join(conditions), params


async def months_of(conn: Connection, scope: LedgerScope) -> list[str]:
    """Every month in which these projects' ledgers have rows: those have a budget too."""
    projects = [scope.project_id] if scope.project_id is not None else scope.project_ids
    rows = await fetch(
        conn,
        f"""
        SELECT DISTINCT month FROM budgets WHERE scope = '{PROJECT_SCOPE}'
          AND (%(projects)s::text[] IS NULL OR project_id = ANY (%(projects)s)) ORDER BY month
        """,  # noqa: S608
        {"projects": None if projects is None else list(projects)},
    )
    return [row["month"] for row in rows]


async def lines_after(conn: Connection, scope: LedgerScope, month: str, after: LedgerLine | None) -> list[LedgerLine]:
    """The page of a month beyond `after`, in the order of the ledger's key. Materialized: the page is found by that key
    alone, before anything is joined to it."""
    where, params = _where(scope)
    if after is not None:
        where += " AND (l.attempt_id, l.kind, l.nth) > (%(of)s, %(kind)s, %(nth)s)"
        params |= {"of": after.attempt_id, "kind": after.kind, "nth": after.nth}
    rows = await fetch(
        conn,
        f"""
        WITH page AS MATERIALIZED (
          SELECT * FROM ledger l WHERE l.month = %(month)s AND {where}
          ORDER BY l.attempt_id, l.kind, l.nth LIMIT {PAGE})
        SELECT l.*, {_DAY} AS day, a.task_id, a.model, a.step, a.request_id, a.provider_id, a.flag,
          CASE WHEN l.kind IN ('settled', 'late') THEN a.usage END AS usage
        FROM page l JOIN projects p ON p.id = l.project_id LEFT JOIN attempts a ON a.id = l.attempt_id
        ORDER BY l.attempt_id, l.kind, l.nth
        """,  # noqa: S608
        {**params, "month": month},
    )
    return [_line(row) for row in rows]


def _line(row: Row) -> LedgerLine:
    return LedgerLine(
        at=row["at"],
        project_id=ProjectId(row["project_id"]),
        month=row["month"],
        day=row["day"],
        key_id=None if row["key_id"] is None else KeyId(row["key_id"]),
        batch_id=None if row["batch_id"] is None else BatchId(row["batch_id"]),
        task_id=None if row["task_id"] is None else TaskId(row["task_id"]),
        attempt_id=AttemptId(row["attempt_id"]),
        kind=row["kind"],
        nth=row["nth"],
        amount=NanoUSD(row["amount"]),
        freed=NanoUSD(row["freed"]),
        price_version=row["price_version"],
        model=row["model"],
        step=row["step"],
        request_id=row["request_id"],
        provider_id=row["provider_id"],
        usage=None if row["usage"] is None else decode_usage(row["usage"]),
        flag=row["flag"],
    )


async def month_budgets(conn: Connection, projects: Sequence[str] | None, first: str, last: str) -> list[Row]:
    """Rows of `budgets`."""
    return [
        dict(row)
        for row in await fetch(
            conn,
            f"""
            SELECT * FROM budgets WHERE scope = '{PROJECT_SCOPE}' AND month BETWEEN %(first)s AND %(last)s
              AND (%(projects)s::text[] IS NULL OR project_id = ANY (%(projects)s)) ORDER BY project_id, month
            """,  # noqa: S608
            {"projects": None if projects is None else list(projects), "first": first, "last": last},
        )
    ]


STANDINGS = f"""
SELECT p.id AS project_id, '{PROJECT_SCOPE}' AS scope, m.month, p.name, p.time_zone,
  CASE WHEN b.scope IS NULL THEN p.cap ELSE b.cap END AS cap, coalesce(b.spent, 0) AS spent,
  coalesce(b.reserved, 0) AS reserved, coalesce(b.unconfirmed, 0) AS unconfirmed, coalesce(b.overrun, 0) AS overrun,
  coalesce(u.amount, 0) AS in_doubt, coalesce(u.attempts, 0) AS attempts, u.oldest
FROM projects p CROSS JOIN LATERAL (SELECT to_char(now() AT TIME ZONE p.time_zone, 'YYYY-MM') AS month) m
LEFT JOIN budgets b ON b.project_id = p.id AND b.scope = '{PROJECT_SCOPE}' AND b.month = m.month
LEFT JOIN (
  SELECT project_id, sum(reserved) AS amount, count(*) AS attempts, min(sent_at) AS oldest
  FROM attempts WHERE state = 'unconfirmed' GROUP BY project_id) u ON u.project_id = p.id
ORDER BY p.id
"""  # noqa: S608
