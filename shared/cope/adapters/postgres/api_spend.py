"""Alerts, and spend measured elsewhere: `ApiStore`'s part that moves or watches money beside the calls."""

from cope.adapters.postgres.alerts import alert_of
from cope.adapters.postgres.api_tasks import ApiTasks
from cope.adapters.postgres.budgets import budget_keys, ensure_budgets
from cope.adapters.postgres.database import Connection, Row, fetch, fetch_one
from cope.adapters.postgres.journal import Note, write_notes
from cope.core.alerts import MOST_ALERTS, AlertKind, SpendAlert
from cope.core.errors import Conflict
from cope.core.ids import AlertId, KeyId, ProjectId, UsageId
from cope.core.money import NanoUSD
from cope.core.records import UsageRecord
from cope.ports.spend import NewUsage

_EXTERNAL = "external"
"""The price version of what was not priced here."""

# Already spent, so it counts whatever the caps say; the ceiling is the highest sum that was ever let through.
_COUNT = """
WITH w AS (
  SELECT * FROM unnest(%s::text[], %s::text[], %s::text[]) AS w (scope, project_id, month)
), locked AS (
  SELECT b.scope, b.project_id, b.month FROM budgets b JOIN w USING (scope, project_id, month)
  ORDER BY b.scope, b.project_id, b.month FOR NO KEY UPDATE OF b
)
UPDATE budgets b SET spent = b.spent + %s,
  ceiling = greatest(b.ceiling, CASE WHEN b.ceiling IS NOT NULL THEN b.spent + b.reserved + b.unconfirmed + %s END)
FROM locked l WHERE b.scope = l.scope AND b.project_id = l.project_id AND b.month = l.month
"""


class ApiSpend(ApiTasks):
    """One project at a time."""

    async def create_alert(self, alert: SpendAlert) -> SpendAlert:
        """The alert as stored."""
        async with self._db.transaction(project=alert.project_id) as conn:
            await conn.execute("SELECT FROM projects WHERE id = %s FOR NO KEY UPDATE", [alert.project_id])
            known = await fetch_one(
                conn, "SELECT count(*) AS number FROM spend_alerts WHERE project_id = %s", [alert.project_id]
            )
            if known is not None and known["number"] >= MOST_ALERTS:
                raise Conflict(
                    f"A project has at most {MOST_ALERTS} spend alerts: delete one first.", code="too_many_alerts"
                )
            await conn.execute(
                """
                INSERT INTO spend_alerts (id, project_id, kind, threshold, recipients, subject_prefix, created_at)
                VALUES (%s, %s, %s, %s, %s, %s, %s)
                """,
                [
                    alert.id,
                    alert.project_id,
                    alert.kind.value,
                    alert.threshold,
                    list(alert.recipients),
                    alert.subject_prefix,
                    alert.created_at,
                ],
            )
        return alert

    async def list_alerts(self, project_id: ProjectId) -> tuple[SpendAlert, ...]:
        """Oldest first."""
        async with self._db.transaction(project=project_id) as conn:
            rows = await fetch(conn, "SELECT * FROM spend_alerts WHERE project_id = %s ORDER BY id", [project_id])
        return tuple(alert_of(row) for row in rows)

    async def update_alert(
        self,
        project_id: ProjectId,
        alert_id: AlertId,
        *,
        kind: AlertKind,
        threshold: int | None,
        recipients: tuple[str, ...],
        subject_prefix: str | None,
    ) -> SpendAlert | None:
        """Armed again where what it watches has changed."""
        async with self._db.transaction(project=project_id) as conn:
            row = await fetch_one(
                conn,
                """
                UPDATE spend_alerts SET kind = %(kind)s, threshold = %(threshold)s, recipients = %(recipients)s,
                  subject_prefix = %(prefix)s, changed_at = clock_timestamp(),
                  fired_month = CASE WHEN (kind, threshold) IS NOT DISTINCT FROM (%(kind)s, %(threshold)s::bigint)
                    THEN fired_month END
                WHERE id = %(id)s AND project_id = %(project)s RETURNING *
                """,
                {
                    "id": alert_id,
                    "project": project_id,
                    "kind": kind.value,
                    "threshold": threshold,
                    "recipients": list(recipients),
                    "prefix": subject_prefix,
                },
            )
        return None if row is None else alert_of(row)

    async def delete_alert(self, project_id: ProjectId, alert_id: AlertId) -> bool:
        """False where the project has no such alert."""
        async with self._db.transaction(project=project_id) as conn:
            deleted = await conn.execute(
                "DELETE FROM spend_alerts WHERE id = %s AND project_id = %s", [alert_id, project_id]
            )
        return deleted.rowcount == 1

    async def record_usage(self, new: NewUsage) -> UsageRecord:
        """Two reports of one reference at once: the second waits for the first and returns its record."""
        async with self._db.transaction(project=new.project_id) as conn:
            month = await self._month(conn, new.project_id)
            row = await _insert(conn, new, month)
            if row is None:
                return await _first(conn, new)
            await conn.execute(
                """
                INSERT INTO ledger (project_id, month, key_id, attempt_id, kind, amount, freed, price_version)
                VALUES (%s, %s, %s, %s, 'external', %s, 0, %s)
                """,
                [new.project_id, month, new.key_id, new.id, new.amount, _EXTERNAL],
            )
            data: dict[str, str | int | None] = {"id": new.id, "amount_nanousd": new.amount, "month": month}
            await write_notes(conn, [Note(new.project_id, "budget.usage_reported", data=data)])
            keys = sorted(budget_keys(new.project_id, None, new.key_id, month))
            await ensure_budgets(conn, keys)
            columns = [[key.scope for key in keys], [key.project_id for key in keys], [key.month for key in keys]]
            await conn.execute(_COUNT, [*columns, new.amount, new.amount])
        return usage_of(row)

    async def list_usage(self, project_id: ProjectId, *, after: UsageId | None, limit: int) -> tuple[UsageRecord, ...]:
        """Newest first."""
        async with self._db.transaction(project=project_id) as conn:
            rows = await fetch(
                conn,
                """
                SELECT * FROM usage_records WHERE project_id = %(project)s
                  AND (%(after)s::text IS NULL OR id < %(after)s) ORDER BY id DESC LIMIT %(limit)s
                """,
                {"project": project_id, "after": after, "limit": limit},
            )
        return tuple(usage_of(row) for row in rows)


async def _insert(conn: Connection, new: NewUsage, month: str) -> Row | None:
    """None where its reference is known already."""
    return await fetch_one(
        conn,
        """
        INSERT INTO usage_records (id, project_id, key_id, month, amount, occurred_at, model, description, reference,
                                   body_hash)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (project_id, reference) WHERE reference IS NOT NULL DO NOTHING RETURNING *
        """,
        [
            new.id,
            new.project_id,
            new.key_id,
            month,
            new.amount,
            new.occurred_at,
            new.model,
            new.description,
            new.reference,
            new.body_hash,
        ],
    )


async def _first(conn: Connection, new: NewUsage) -> UsageRecord:
    row = await fetch_one(
        conn,
        "SELECT * FROM usage_records WHERE project_id = %s AND reference = %s",
        [new.project_id, new.reference],
    )
    assert row is not None
    if bytes(row["body_hash"]) != new.body_hash:
        raise Conflict(
            f"Spend of the id {new.reference!r} was reported before, with other values.", code="idempotency_key_reused"
        )
    return usage_of(row)


def usage_of(row: Row) -> UsageRecord:
    """From `usage_records`."""
    return UsageRecord(
        id=UsageId(row["id"]),
        project_id=ProjectId(row["project_id"]),
        key_id=None if row["key_id"] is None else KeyId(row["key_id"]),
        month=row["month"],
        amount=NanoUSD(row["amount"]),
        reported_at=row["reported_at"],
        occurred_at=row["occurred_at"],
        model=row["model"],
        description=row["description"],
        reference=row["reference"],
    )
