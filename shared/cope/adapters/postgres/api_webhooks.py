"""`ApiStore`'s part about webhook endpoints and what became of their deliveries."""

from typing import Any

from cope.adapters.postgres.database import Database, fetch, fetch_one
from cope.adapters.postgres.journal import Note, write_notes
from cope.adapters.postgres.records import endpoint_of
from cope.adapters.postgres.sealing import Sealer
from cope.core.deliveries import (
    MOST_AGAIN,
    OVERLAP,
    Again,
    DeliveryAttempt,
    DeliveryRecord,
    DeliveryState,
    disabled,
)
from cope.core.ids import DeliveryId, EndpointId, EventId, ProjectId
from cope.core.records import WebhookEndpoint

_UPDATE = """
UPDATE webhook_endpoints SET name = coalesce(%(name)s, name), url = coalesce(%(url)s, url),
  event_types = coalesce(%(types)s, event_types), updated_at = now(), disabled_at = NULL, disabled_reason = NULL,
  failing_since = NULL
WHERE id = %(id)s AND project_id = %(project)s RETURNING *
"""

_ROTATE = """
UPDATE webhook_endpoints SET previous_secret = CASE WHEN %(keep)s THEN secret END,
  previous_until = CASE WHEN %(keep)s THEN now() + %(overlap)s END, secret = %(secret)s, updated_at = now()
WHERE id = %(id)s AND project_id = %(project)s RETURNING *
"""

_LIST = """
SELECT * FROM deliveries WHERE project_id = %(project)s
  AND (%(endpoint)s::text IS NULL OR endpoint_id = %(endpoint)s) AND (%(state)s::text IS NULL OR state = %(state)s)
  AND (%(after)s::text IS NULL OR id < %(after)s)
ORDER BY id DESC LIMIT %(limit)s
"""

_AGAIN = """
UPDATE deliveries d SET state = 'pending', due_at = now(), attempt = 0, finished_at = NULL, url = %(url)s
FROM (
  SELECT id FROM deliveries WHERE project_id = %(project)s AND endpoint_id = %(endpoint)s AND state <> 'pending'
    AND (%(ids)s::text[] IS NULL OR id = ANY (%(ids)s))
    AND (%(since)s::timestamptz IS NULL OR created_at >= %(since)s)
    AND (%(until)s::timestamptz IS NULL OR created_at < %(until)s)
    AND (NOT %(failed)s OR state = 'dead')
  ORDER BY id LIMIT %(limit)s FOR NO KEY UPDATE
) again WHERE d.id = again.id RETURNING d.id, d.endpoint_id, d.event_id
"""


class ApiWebhooks:
    """Over one project's rows."""

    _db: Database
    _sealer: Sealer

    async def update_endpoint(
        self,
        project_id: ProjectId,
        endpoint_id: EndpointId,
        *,
        name: str | None = None,
        url: str | None = None,
        event_types: tuple[str, ...] | None = None,
    ) -> WebhookEndpoint | None:
        """Messages that wait for it go to the new address."""
        asked = {"id": endpoint_id, "project": project_id, "name": name, "url": url}
        async with self._db.transaction(project=project_id) as conn:
            row = await fetch_one(conn, _UPDATE, {**asked, "types": None if event_types is None else list(event_types)})
            if row is None:
                return None
            if url is not None:
                await conn.execute(
                    "UPDATE deliveries SET url = %s WHERE endpoint_id = %s AND state = 'pending'", [url, endpoint_id]
                )
            await write_notes(conn, [Note(project_id, "webhook_endpoint.updated", data={"id": endpoint_id})])
        return endpoint_of(row, self._sealer)

    async def rotate_secret(
        self, project_id: ProjectId, endpoint_id: EndpointId, secret: str, *, keep_old: bool
    ) -> WebhookEndpoint | None:
        """Both sealed."""
        asked = {"id": endpoint_id, "project": project_id, "keep": keep_old, "overlap": OVERLAP}
        async with self._db.transaction(project=project_id) as conn:
            row = await fetch_one(conn, _ROTATE, {**asked, "secret": self._sealer.seal(secret)})
            if row is not None:
                await write_notes(conn, [Note(project_id, "webhook_endpoint.updated", data={"id": endpoint_id})])
        return None if row is None else endpoint_of(row, self._sealer)

    async def list_deliveries(
        self,
        project_id: ProjectId,
        *,
        endpoint_id: EndpointId | None,
        state: DeliveryState | None,
        after: DeliveryId | None,
        limit: int,
    ) -> tuple[DeliveryRecord, ...]:
        """Newest first."""
        asked = {"project": project_id, "endpoint": endpoint_id, "after": after, "limit": limit}
        async with self._db.transaction(project=project_id) as conn:
            rows = await fetch(conn, _LIST, {**asked, "state": None if state is None else state.value})
        return tuple(_record(row, ()) for row in rows)

    async def get_delivery(self, project_id: ProjectId, delivery_id: DeliveryId) -> DeliveryRecord | None:
        """With its attempts, oldest first."""
        async with self._db.transaction(project=project_id) as conn:
            row = await fetch_one(
                conn, "SELECT * FROM deliveries WHERE id = %s AND project_id = %s", [delivery_id, project_id]
            )
            tried = await fetch(
                conn, "SELECT * FROM delivery_attempts WHERE delivery_id = %s ORDER BY at, attempt", [delivery_id]
            )
        return None if row is None else _record(row, tuple(_attempt(one) for one in tried))

    async def send_again(self, project_id: ProjectId, endpoint_id: EndpointId, which: Again) -> int:
        """Each with an event."""
        async with self._db.transaction(project=project_id) as conn:
            endpoint = await fetch_one(
                conn,
                "SELECT url, disabled_at FROM webhook_endpoints WHERE id = %s AND project_id = %s FOR KEY SHARE",
                [endpoint_id, project_id],
            )
            if endpoint is None:
                return 0
            if endpoint["disabled_at"] is not None:
                raise disabled()
            asked = {
                "project": project_id,
                "endpoint": endpoint_id,
                "url": endpoint["url"],
                "ids": None if which.ids is None else list(which.ids),
                "since": which.since,
                "until": which.until,
                "failed": which.only_failed,
                "limit": MOST_AGAIN,
            }
            rows = sorted(await fetch(conn, _AGAIN, asked), key=lambda row: str(row["id"]))
            await write_notes(conn, [Note(project_id, "webhook_delivery.replayed", data=row) for row in rows])
        return len(rows)


def _record(row: dict[str, Any], log: tuple[DeliveryAttempt, ...]) -> DeliveryRecord:
    state = DeliveryState(row["state"])
    return DeliveryRecord(
        id=DeliveryId(row["id"]),
        event_id=EventId(row["event_id"]),
        endpoint_id=None if row["endpoint_id"] is None else EndpointId(row["endpoint_id"]),
        url=row["url"],
        body=row["body"],
        state=state,
        attempts=row["attempt"],
        due_at=row["due_at"] if state is DeliveryState.PENDING else None,
        created_at=row["created_at"],
        finished_at=row["finished_at"],
        status=row["status"],
        error=row["error"],
        log=log,
    )


def _attempt(row: dict[str, Any]) -> DeliveryAttempt:
    return DeliveryAttempt(row["attempt"], row["at"], row["took_ms"], row["status"], row["error"], row["excerpt"] or "")
