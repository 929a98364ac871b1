"""Webhook deliveries that were given up: listed, and sent again."""

from collections.abc import Sequence

from cope.adapters.postgres.database import Database, Row, fetch, fetch_one
from cope.adapters.postgres.journal import Note, write_notes
from cope.core.event_log import DeadLetter
from cope.core.ids import DeliveryId, EndpointId, EventId, ProjectId

_AT_ONCE = 1000

_LIST = """
SELECT * FROM deliveries WHERE project_id = %(project)s AND state = 'dead'
  AND (%(endpoint)s::text IS NULL OR endpoint_id = %(endpoint)s) AND (%(after)s::text IS NULL OR id > %(after)s)
ORDER BY id LIMIT %(limit)s
"""

_REPLAY = """
UPDATE deliveries d SET state = 'pending', due_at = now(), attempt = 0, finished_at = NULL
FROM (
  SELECT id FROM deliveries x WHERE project_id = %(project)s AND state = 'dead'
    AND (%(ids)s::text[] IS NULL OR id = ANY (%(ids)s))
    AND (%(endpoint)s::text IS NULL OR endpoint_id = %(endpoint)s)
    AND (endpoint_id IS NULL OR EXISTS (
      SELECT FROM webhook_endpoints e WHERE e.id = x.endpoint_id AND e.disabled_at IS NULL))
  ORDER BY id LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
) again WHERE d.id = again.id RETURNING d.id, d.endpoint_id, d.event_id
"""


class ApiDeadLetters:
    """`EventLog`'s dead letters, as role `cope_api`."""

    _db: Database

    async def list_dead_letters(
        self, project_id: ProjectId, *, endpoint_id: EndpointId | None, after: DeliveryId | None, limit: int
    ) -> tuple[DeadLetter, ...]:
        """By id, which is by age."""
        asked = {"project": project_id, "endpoint": endpoint_id, "after": after, "limit": limit}
        async with self._db.transaction(project=project_id) as conn:
            return tuple(_letter(row) for row in await fetch(conn, _LIST, asked))

    async def get_dead_letter(self, project_id: ProjectId, delivery_id: DeliveryId) -> DeadLetter | None:
        """None where it was never given up."""
        async with self._db.transaction(project=project_id) as conn:
            row = await fetch_one(
                conn,
                "SELECT * FROM deliveries WHERE id = %s AND project_id = %s AND state = 'dead'",
                [delivery_id, project_id],
            )
        return None if row is None else _letter(row)

    async def replay_dead_letters(
        self, project_id: ProjectId, *, ids: Sequence[DeliveryId] | None, endpoint_id: EndpointId | None
    ) -> tuple[DeliveryId, ...]:
        """Each with an event."""
        asked = {
            "project": project_id,
            "endpoint": endpoint_id,
            "ids": None if ids is None else list(ids),
            "limit": _AT_ONCE,
        }
        async with self._db.transaction(project=project_id) as conn:
            rows = sorted(await fetch(conn, _REPLAY, asked), key=lambda row: str(row["id"]))
            await write_notes(conn, [_replayed(project_id, row) for row in rows])
        return tuple(DeliveryId(row["id"]) for row in rows)


def _replayed(project_id: ProjectId, row: Row) -> Note:
    data = {"id": row["id"], "endpoint_id": row["endpoint_id"], "event_id": row["event_id"]}
    return Note(project_id, "webhook_delivery.replayed", data=data)


def _letter(row: Row) -> DeadLetter:
    return DeadLetter(
        id=DeliveryId(row["id"]),
        event_id=EventId(row["event_id"]),
        endpoint_id=None if row["endpoint_id"] is None else EndpointId(row["endpoint_id"]),
        url=row["url"],
        body=row["body"],
        attempts=row["attempt"],
        status=row["status"],
        error=row["error"],
        excerpt=row["excerpt"] or "",
        created_at=row["created_at"],
        finished_at=row["finished_at"],
    )
