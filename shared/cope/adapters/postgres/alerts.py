"""Spend alerts: looked at by the sweep, never by a reservation or a settlement.

A firing is one transaction: the alert's row is locked, judged by the budget as it stands then, marked as fired in this
month, and the event and its deliveries are written. Whoever comes second, or comes back after a kill -9, finds the mark
or does the whole.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from cope.adapters.postgres.database import Connection, Database, Row, fetch
from cope.adapters.postgres.journal import Note
from cope.adapters.postgres.publish import publish
from cope.adapters.postgres.records import budget_of
from cope.core.alerts import AlertKind, SpendAlert, Standing, alert_data, fires, rearms
from cope.core.budget import PROJECT_SCOPE
from cope.core.ids import AlertId, ProjectId
from cope.core.money import NanoUSD
from cope.core.projection import OpenBatch, Pace, Projection, project
from cope.core.records import Budget

_AT_ONCE = 1000
_QUICK_S = 0.25
_SHARE = 20

_MONTH = "to_char(now() AT TIME ZONE p.time_zone, 'YYYY-MM')"

# The first thousand held tasks are enough to say that one of them asks for more than the month still has with
# everything in flight returned.
_EXHAUSTED = """EXISTS (
  SELECT FROM (SELECT t.needed FROM tasks t WHERE t.project_id = b.project_id AND t.state = 'held'
                 AND t.hold = 'budget' LIMIT 1000) h
  WHERE h.needed <= b.cap AND h.needed > b.cap - b.spent - b.unconfirmed)"""

# Whatever an unfired alert depends on, in one comparable row per project. The hour is in it for the projections: they
# change with time alone.
_STANDINGS = f"""
SELECT b.project_id, b.month, b.cap, b.spent, b.unconfirmed, b.overrun, a.changed_at, a.number, a.hour,
  {_EXHAUSTED} AS exhausted
FROM (
  SELECT s.project_id, m.month, max(s.changed_at) AS changed_at, count(*) AS number,
    CASE WHEN bool_or(s.kind = 'projected') THEN date_trunc('hour', now()) END AS hour
  FROM spend_alerts s JOIN projects p ON p.id = s.project_id, LATERAL (SELECT {_MONTH} AS month) m
  WHERE s.fired_month IS DISTINCT FROM m.month GROUP BY s.project_id, m.month
) a JOIN budgets b ON b.project_id = a.project_id AND b.scope = '{PROJECT_SCOPE}' AND b.month = a.month
"""  # noqa: S608

_LOCK = f"""
SELECT a.* FROM spend_alerts a JOIN projects p ON p.id = a.project_id
WHERE a.project_id = ANY (%s) AND (a.kind <> 'projected' OR %s) AND a.fired_month IS DISTINCT FROM {_MONTH}
ORDER BY a.id FOR NO KEY UPDATE OF a SKIP LOCKED
"""  # noqa: S608

# Read after the lock: a cap that was changed before it is seen.
_BUDGETS = f"""
SELECT b.*, p.time_zone, now() AS now, {_EXHAUSTED} AS exhausted
FROM budgets b JOIN projects p ON p.id = b.project_id
WHERE b.project_id = ANY (%s) AND b.scope = '{PROJECT_SCOPE}' AND b.month = {_MONTH}
"""  # noqa: S608

_BOOKED = """
SELECT w.project_id, (SELECT l.at FROM ledger l WHERE l.project_id = w.project_id ORDER BY l.at LIMIT 1) AS first_at,
  (SELECT greatest(0, coalesce(sum(CASE WHEN l.kind = 'refunded' THEN -l.amount - l.freed ELSE l.amount END),
                               0))::bigint
   FROM ledger l WHERE l.project_id = w.project_id AND l.at > now() - interval '24 hours'
     AND l.kind IN ('settled', 'late', 'external', 'overrun', 'refunded')) AS last_day
FROM unnest(%s::text[]) AS w (project_id)
"""

_OPEN_BATCHES = """
SELECT b.project_id, b.total, b.done + b.failed AS finished, b.spent,
  (SELECT s.cap - s.spent - s.reserved - s.unconfirmed FROM budgets s
   WHERE s.project_id = b.project_id AND s.scope = b.id AND s.month = '') AS left
FROM batches b WHERE b.status = 'in_progress' AND b.project_id = ANY (%s)
"""

_FIRE = """
UPDATE spend_alerts a SET fired_month = f.month, fired_at = now(), fired_threshold = f.threshold, changed_at = now()
FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS f (id, month, threshold)
WHERE a.id = f.id AND a.fired_month IS DISTINCT FROM f.month
RETURNING a.id
"""

_Seen: TypeAlias = tuple[Any, ...]


class AlertWatch:
    """Looks at the alerts of projects whose budget has changed since it looked last.

    Reading a day's ledger for a projection takes time where there is much of it: projections then rest for `_SHARE`
    times as long, so that they never take more than a twentieth of the sweeper's time.
    """

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}
        self._rests_until = 0.0

    async def look(self, db: Database) -> int:
        """How many alerts fired."""
        async with db.connection() as conn:
            rows = await fetch(conn, _STANDINGS)
        standings = {row["project_id"]: tuple(row.values()) for row in rows}
        changed = [name for name, seen in sorted(standings.items()) if self._seen.get(name) != seen][:_AT_ONCE]
        self._seen = {name: seen for name, seen in self._seen.items() if name in standings}
        if not changed:
            return 0
        numbers = {row["project_id"]: row["number"] for row in rows}
        started = time.monotonic()
        async with db.transaction() as conn:
            alerts = [alert_of(row) for row in await fetch(conn, _LOCK, [changed, started >= self._rests_until])]
            fired = await _fire(conn, alerts)
        # Only after the commit; and a project of which some alerts rest, or were held by another transaction, is looked
        # at again.
        for name in changed:
            if sum(alert.project_id == name for alert in alerts) == numbers[name]:
                self._seen[name] = standings[name]
        took = time.monotonic() - started
        if took > _QUICK_S and started >= self._rests_until:
            self._rests_until = started + _SHARE * took
        return fired


async def _fire(conn: Connection, alerts: Sequence[SpendAlert]) -> int:
    """Judge locked alerts; those that are due are marked and told. How many."""
    standings = await _standings(conn, alerts)
    due = [
        (alert, *standings[alert.project_id])
        for alert in alerts
        if alert.project_id in standings and fires(alert, standings[alert.project_id][0])
    ]
    if not due:
        return 0
    marked = await fetch(
        conn,
        _FIRE,
        [
            [alert.id for alert, _, _ in due],
            [standing.budget.month for _, standing, _ in due],
            [alert.limit(standing.budget.cap) for alert, standing, _ in due],
        ],
    )
    ids = {row["id"] for row in marked}
    notes = [
        Note(alert.project_id, "budget.alert", data=alert_data(alert, standing, now))
        for alert, standing, now in due
        if alert.id in ids
    ]
    await publish(conn, notes)
    return len(notes)


async def _standings(conn: Connection, alerts: Sequence[SpendAlert]) -> dict[str, tuple[Standing, datetime]]:
    rows = await fetch(conn, _BUDGETS, [sorted({alert.project_id for alert in alerts})])
    ahead = await _projections(conn, rows, {alert.project_id for alert in alerts if alert.kind is AlertKind.PROJECTED})
    return {
        row["project_id"]: (Standing(budget_of(row), row["exhausted"], ahead.get(row["project_id"])), row["now"])
        for row in rows
    }


async def _projections(conn: Connection, rows: Iterable[Row], wanted: set[ProjectId]) -> Mapping[str, Projection]:
    projects = {row["project_id"]: row for row in rows if row["project_id"] in wanted and row["cap"] is not None}
    if not projects:
        return {}
    booked = {row["project_id"]: row for row in await fetch(conn, _BOOKED, [sorted(projects)])}
    open_batches = await fetch(conn, _OPEN_BATCHES, [sorted(projects)])
    ahead: dict[str, Projection] = {}
    for name, row in projects.items():
        pace = Pace(
            spent=NanoUSD(row["spent"] + row["overrun"]),
            reserved=NanoUSD(row["reserved"]),
            unconfirmed=NanoUSD(row["unconfirmed"]),
            last_day=NanoUSD(booked[name]["last_day"]),
            first_at=booked[name]["first_at"],
            batches=tuple(
                OpenBatch(b["total"], b["finished"], NanoUSD(b["spent"]), None if b["left"] is None else b["left"])
                for b in open_batches
                if b["project_id"] == name
            ),
        )
        ahead[name] = project(pace, row["now"], row["time_zone"])
    return ahead


async def rearm(conn: Connection, project_id: str, before: NanoUSD | None, budget: Budget) -> None:
    """After a change of the project's cap, in its transaction: alerts whose sum now lies ahead may fire again."""
    # All of the project's: one that a sweep is firing at this moment is not yet marked, and is waited for here.
    rows = await fetch(
        conn, "SELECT * FROM spend_alerts WHERE project_id = %s ORDER BY id FOR NO KEY UPDATE", [project_id]
    )
    armed = [alert.id for alert in map(alert_of, rows) if rearms(alert, before, budget)]
    if armed:
        await conn.execute(
            "UPDATE spend_alerts SET fired_month = NULL, changed_at = clock_timestamp() WHERE id = ANY (%s)", [armed]
        )


def alert_of(row: Row) -> SpendAlert:
    """From `spend_alerts`."""
    return SpendAlert(
        id=AlertId(row["id"]),
        project_id=ProjectId(row["project_id"]),
        kind=AlertKind(row["kind"]),
        threshold=row["threshold"],
        recipients=tuple(row["recipients"]),
        subject_prefix=row["subject_prefix"],
        created_at=row["created_at"],
        fired_month=row["fired_month"],
        fired_at=row["fired_at"],
        fired_threshold=None if row["fired_threshold"] is None else NanoUSD(row["fired_threshold"]),
    )
