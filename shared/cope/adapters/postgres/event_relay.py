"""The relay's place in every project's log, and its election."""

import contextlib
from collections.abc import Mapping

import psycopg

from cope.adapters.postgres.database import Connection, Database, fetch
from cope.adapters.postgres.records import event_of
from cope.core.ids import ProjectId
from cope.core.records import Event

_RELAY_LOCK = 0x72656C79

# By chance: an order would let those in front keep the others waiting for ever. A project without a place yet begins
# at its first kept event; where the log's beginning was pruned, likewise.
_PAGE = """
SELECT e.* FROM (
  SELECT h.project_id, h.last, coalesce(p.committed, 0) AS committed
  FROM event_heads h LEFT JOIN relay_places p ON p.project_id = h.project_id
  WHERE h.last > coalesce(p.committed, 0) ORDER BY random() LIMIT %(projects)s
) b CROSS JOIN LATERAL (
  SELECT * FROM event_log l
  WHERE l.project_id = b.project_id AND l."offset" > b.committed AND l."offset" <= b.last
  ORDER BY l."offset" LIMIT %(each)s
) e ORDER BY e.project_id, e."offset"
"""

_DONE = """
INSERT INTO relay_places AS p (project_id, committed)
SELECT * FROM unnest(%s::text[], %s::bigint[]) AS n (project_id, committed) ORDER BY 1
ON CONFLICT (project_id) DO UPDATE SET committed = greatest(p.committed, excluded.committed)
"""


class EventRelay:
    """`RelayStore` as role `cope_worker`."""

    _db: Database
    _relaying: Connection | None = None

    async def try_lead_relay(self) -> bool:
        """The lock lives as long as its session, as the sweep's does."""
        try:
            if self._relaying is not None:
                await self._relaying.execute("SELECT 1")
                return True
            conn = await psycopg.AsyncConnection.connect(
                self._db.url, autocommit=True, application_name="cope-relay", connect_timeout=10
            )
            row = await (await conn.execute("SELECT pg_try_advisory_lock(%s)", [_RELAY_LOCK])).fetchone()
            if row is not None and row[0]:
                self._relaying = conn
                return True
            await conn.close()
        except psycopg.Error:
            await self._stop_relaying()
        return False

    async def _stop_relaying(self) -> None:
        conn, self._relaying = self._relaying, None
        if conn is not None:
            with contextlib.suppress(psycopg.Error):
                await conn.close()

    async def relay_page(self, *, limit: int) -> tuple[Event, ...]:
        """At most `limit`: up to 100 projects, each with an equal share."""
        async with self._db.transaction() as conn:
            waiting = await fetch(
                conn,
                "SELECT count(*) AS n FROM event_heads h LEFT JOIN relay_places p ON p.project_id = h.project_id"
                " WHERE h.last > coalesce(p.committed, 0)",
            )
            projects = max(1, min(100, limit, waiting[0]["n"]))
            rows = await fetch(conn, _PAGE, {"projects": projects, "each": limit // projects})
        return tuple(event_of(row) for row in rows)

    async def relay_done(self, places: Mapping[ProjectId, int]) -> None:
        """In one statement."""
        if places:
            async with self._db.transaction() as conn:
                await conn.execute(_DONE, [list(places), list(places.values())])
