"""`ApiStore`'s part about webhook endpoints' settings and their messages, as role `cope_api`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from cope.adapters.postgres.database import Connection, Database, Row, fetch, fetch_one
from cope.adapters.postgres.journal import Note, write_notes
from cope.adapters.postgres.records import endpoint_of
from cope.adapters.postgres.sealing import Sealer
from cope.adapters.postgres.webhook_notes import disabled_note
from cope.core.deliveries import (
    DeliveryAttempt,
    DeliveryFilter,
    DeliveryRecord,
    DeliveryState,
    Disabled,
    Redelivery,
    WebhookBacklog,
)
from cope.core.ids import DeliveryId, EndpointId, EventId, ProjectId
from cope.core.records import WebhookEndpoint
from cope.core.webhooks import OLD_SECRETS
from cope.ports.webhooks import EndpointChange

_COUNTED = 100_000

ENDPOINT = """
SELECT e.*, t.failures, t.failing_since, t.failed_at, t.blocked_until, t.status, t.error,
  (SELECT max(s.until) FROM webhook_old_secrets s WHERE s.endpoint_id = e.id AND s.until > now()) AS old_secrets_until
FROM webhook_endpoints e LEFT JOIN webhook_troubles t ON t.lane = e.id
"""

_LIST = """
SELECT * FROM deliveries WHERE project_id = %(project)s
  AND (%(endpoint)s::text IS NULL OR endpoint_id = %(endpoint)s) AND (%(state)s::text IS NULL OR state = %(state)s)
  AND (%(since)s::timestamptz IS NULL OR created_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR created_at < %(until)s) AND (%(after)s::text IS NULL OR id < %(after)s)
ORDER BY id DESC LIMIT %(limit)s
"""

# What is under way is passed over, and of a time range what has not been tried: it goes by itself.
_AGAIN = """
UPDATE deliveries d SET state = 'pending', due_at = now(), attempt = 0, finished_at = NULL, sending_until = NULL
FROM (
  SELECT id FROM deliveries x WHERE project_id = %(project)s
    AND (%(endpoint)s::text IS NULL OR endpoint_id = %(endpoint)s) AND (%(ids)s::text[] IS NULL OR id = ANY (%(ids)s))
    AND (%(since)s::timestamptz IS NULL OR created_at >= %(since)s)
    AND (%(until)s::timestamptz IS NULL OR created_at < %(until)s) AND (%(after)s::text IS NULL OR id > %(after)s)
    AND NOT (state = 'pending' AND sending_until IS NOT NULL AND sending_until > now())
    AND CASE WHEN %(ids)s::text[] IS NOT NULL THEN true
             WHEN %(only_failed)s THEN state = 'dead' OR (state = 'pending' AND attempt > 0)
             ELSE state <> 'pending' OR attempt > 0 END
  ORDER BY id LIMIT %(limit)s FOR NO KEY UPDATE
) again WHERE d.id = again.id RETURNING d.id, d.endpoint_id, d.event_id
"""

_DISABLE = f"""
UPDATE webhook_endpoints SET updated_at = now(), disabled_at = now(), disabled_reason = '{Disabled.BY_HAND}'
WHERE id = %s
"""  # noqa: S608

_ENABLE = "UPDATE webhook_endpoints SET updated_at = now(), disabled_at = NULL, disabled_reason = NULL WHERE id = %s"

_BACKLOG = f"""
SELECT
  (SELECT count(*) FROM (SELECT FROM deliveries WHERE state = 'pending' LIMIT {_COUNTED}) d) AS pending,
  (SELECT count(*) FROM (SELECT FROM deliveries WHERE state = 'pending' AND due_at <= now() LIMIT {_COUNTED}) d) AS due,
  (SELECT min(due_at) FROM deliveries WHERE state = 'pending' AND due_at <= now()) AS oldest_due_at,
  (SELECT count(*) FROM deliveries WHERE sending_until > now()) AS sending,
  (SELECT count(*) FROM webhook_troubles) AS failing,
  (SELECT count(*) FROM webhook_troubles WHERE blocked_until > now()) AS blocked,
  (SELECT count(*) FROM webhook_endpoints WHERE disabled_at IS NOT NULL) AS disabled
"""  # noqa: S608


class ApiWebhooks:
    """`WebhookDesk` on Postgres."""

    _db: Database
    _sealer: Sealer

    async def update_endpoint(
        self, project_id: ProjectId, endpoint_id: EndpointId, change: EndpointChange
    ) -> WebhookEndpoint | None:
        """Disabling and enabling are told as events."""
        async with self._db.transaction(project=project_id) as conn:
            row = await fetch_one(
                conn,
                "SELECT * FROM webhook_endpoints WHERE id = %s AND project_id = %s FOR NO KEY UPDATE",
                [endpoint_id, project_id],
            )
            if row is None:
                return None
            fresh = _changed(row, change)
            if fresh:
                await _set(conn, endpoint_id, fresh)
            if change.disabled is not None and change.disabled is not (row["disabled_at"] is not None):
                await conn.execute(_DISABLE if change.disabled else _ENABLE, [endpoint_id])
            if change.disabled is False:
                await conn.execute("DELETE FROM webhook_troubles WHERE lane = %s", [endpoint_id])
            await write_notes(conn, _turns(project_id, endpoint_id, row, change))
            return await self._endpoint(conn, project_id, endpoint_id)

    async def rotate_endpoint_secret(
        self, project_id: ProjectId, endpoint_id: EndpointId, secret: str, *, keep_old_s: float | None
    ) -> WebhookEndpoint | None:
        """Of many rotations in a day, the latest secrets are kept."""
        async with self._db.transaction(project=project_id) as conn:
            row = await fetch_one(
                conn,
                "SELECT secret FROM webhook_endpoints WHERE id = %s AND project_id = %s FOR NO KEY UPDATE",
                [endpoint_id, project_id],
            )
            if row is None:
                return None
            if keep_old_s is not None:
                await conn.execute(
                    "INSERT INTO webhook_old_secrets (endpoint_id, project_id, secret, until)"
                    " VALUES (%s, %s, %s, now() + %s * interval '1 second')",
                    [endpoint_id, project_id, row["secret"], keep_old_s],
                )
            await conn.execute(
                """
                DELETE FROM webhook_old_secrets WHERE endpoint_id = %(id)s AND (until <= now() OR secret NOT IN (
                  SELECT secret FROM webhook_old_secrets WHERE endpoint_id = %(id)s ORDER BY until DESC LIMIT %(kept)s))
                """,
                {"id": endpoint_id, "kept": 0 if keep_old_s is None else OLD_SECRETS},
            )
            await _set(conn, endpoint_id, {"secret": self._sealer.seal(secret)})
            data: dict[str, str | int | None] = {"id": endpoint_id, "keep_old": int(keep_old_s is not None)}
            await write_notes(conn, [Note(project_id, "webhook_endpoint.secret_rotated", data=data)])
            return await self._endpoint(conn, project_id, endpoint_id)

    async def list_deliveries(
        self, project_id: ProjectId, which: DeliveryFilter, *, after: DeliveryId | None, limit: int
    ) -> tuple[DeliveryRecord, ...]:
        """By id, which is by age."""
        asked = {
            "project": project_id,
            "endpoint": which.endpoint_id,
            "state": which.state,
            "since": which.since,
            "until": which.until,
            "after": after,
            "limit": limit,
        }
        async with self._db.transaction(project=project_id) as conn:
            return tuple(_record(row) for row in await fetch(conn, _LIST, asked))

    async def get_delivery(self, project_id: ProjectId, delivery_id: DeliveryId) -> DeliveryRecord | None:
        """This project's, or None."""
        async with self._db.transaction(project=project_id) as conn:
            row = await fetch_one(
                conn, "SELECT * FROM deliveries WHERE id = %s AND project_id = %s", [delivery_id, project_id]
            )
        return None if row is None else _record(row)

    async def redeliver(
        self, project_id: ProjectId, endpoint_id: EndpointId | None, what: Redelivery
    ) -> Sequence[DeliveryId]:
        """Each with an event."""
        asked = {
            "project": project_id,
            "endpoint": endpoint_id,
            "ids": None if what.ids is None else list(what.ids),
            "since": what.since,
            "until": what.until,
            "only_failed": what.only_failed,
            "after": what.after,
            "limit": what.limit,
        }
        async with self._db.transaction(project=project_id) as conn:
            rows = sorted(await fetch(conn, _AGAIN, asked), key=lambda row: str(row["id"]))
            await write_notes(conn, [_replayed(project_id, row) for row in rows])
        return [DeliveryId(row["id"]) for row in rows]

    async def webhook_backlog(self) -> WebhookBacklog:
        """In the operator's view."""
        async with self._db.transaction(operator="on") as conn:
            row = await fetch_one(conn, _BACKLOG)
        assert row is not None
        return WebhookBacklog(**row)

    async def _endpoint(
        self, conn: Connection, project_id: ProjectId, endpoint_id: EndpointId
    ) -> WebhookEndpoint | None:
        row = await fetch_one(conn, f"{ENDPOINT} WHERE e.id = %s AND e.project_id = %s", [endpoint_id, project_id])
        return None if row is None else endpoint_of(row, self._sealer)


def _changed(row: Row, change: EndpointChange) -> dict[str, Any]:
    """The columns that get another value."""
    types = None if change.event_types is None else list(change.event_types)
    wanted = {"name": change.name, "url": change.url, "event_types": types, "concurrency": change.concurrency}
    return {name: value for name, value in wanted.items() if value is not None and value != row[name]}


async def _set(conn: Connection, endpoint_id: EndpointId, fresh: dict[str, Any]) -> None:
    columns = ", ".join(f"{name} = %({name})s" for name in fresh)
    query = f"UPDATE webhook_endpoints SET updated_at = now(), {columns} WHERE id = %(of)s"  # noqa: S608 - our names
    await conn.execute(query.encode(), {**fresh, "of": endpoint_id})


def _turns(project_id: ProjectId, endpoint_id: EndpointId, row: Row, change: EndpointChange) -> list[Note]:
    was = row["disabled_at"] is not None
    if change.disabled is None or change.disabled is was:
        return []
    if change.disabled:
        return [disabled_note({"project_id": project_id, "id": endpoint_id}, Disabled.BY_HAND.value)]
    return [Note(project_id, "webhook_endpoint.enabled", data={"id": endpoint_id})]


def _replayed(project_id: ProjectId, row: Row) -> Note:
    data = {"id": row["id"], "endpoint_id": row["endpoint_id"], "event_id": row["event_id"]}
    return Note(project_id, "webhook_delivery.replayed", data=data)


def _record(row: Row) -> DeliveryRecord:
    state = DeliveryState(row["state"])
    return DeliveryRecord(
        id=DeliveryId(row["id"]),
        project_id=ProjectId(row["project_id"]),
        event_id=EventId(row["event_id"]),
        endpoint_id=None if row["endpoint_id"] is None else EndpointId(row["endpoint_id"]),
        url=row["url"],
        body=row["body"],
        state=state,
        created_at=row["created_at"],
        next_at=row["due_at"] if state is DeliveryState.PENDING else None,
        finished_at=row["finished_at"],
        attempts=tuple(
            DeliveryAttempt(
                number=one["n"],
                ended_at=datetime.fromtimestamp(one["ms"] / 1000, UTC),
                took_ms=one["took"],
                status=one["status"],
                error=one["error"],
                excerpt=one["excerpt"] or "",
            )
            for one in row["log"]
        ),
    )
