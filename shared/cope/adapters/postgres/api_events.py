"""Reading the event log as role `cope_api`, and waiting for it to grow."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime

import psycopg

from cope.adapters.postgres.database import Connection, Database, fetch, fetch_one
from cope.adapters.postgres.records import event_of
from cope.adapters.postgres.sequencer import WORDS
from cope.core.errors import StoreUnavailable
from cope.core.event_log import Bounds, EventPage
from cope.core.ids import BatchId, ProjectId
from cope.core.records import Event

SCANNED = 20_000
"""Events looked at in one page where a filter of types leaves some out."""

_BOUNDS = """
SELECT coalesce((SELECT last FROM event_heads WHERE project_id = %(project)s), 0) AS head,
  (SELECT min("offset") FROM event_log WHERE project_id = %(project)s) AS start
"""

_MINE = """
project_id = %(project)s AND "offset" > %(after)s AND "offset" <= %(upto)s
  AND (%(batch)s::text IS NULL OR batch_id = %(batch)s)
"""
_MINE_OF_BATCH = _MINE.replace("(%(batch)s::text IS NULL OR batch_id = %(batch)s)", "batch_id = %(batch)s")

_TAILS = """
SELECT e.* FROM unnest(%(projects)s::text[], %(after)s::bigint[]) AS p (project_id, after)
JOIN event_heads h ON h.project_id = p.project_id AND h.last > p.after
CROSS JOIN LATERAL (
  SELECT * FROM event_log l WHERE l.project_id = p.project_id AND l."offset" > p.after AND l."offset" <= h.last
  ORDER BY l."offset" LIMIT %(limit)s
) e ORDER BY e.project_id, e."offset"
"""


class ApiEvents:
    """`EventLog`'s reading side."""

    _db: Database

    async def list_events(
        self, project_id: ProjectId, *, after: int, limit: int, batch_id: BatchId | None
    ) -> tuple[Event, ...]:
        """Beyond offset `after` (0: from the first kept)."""
        return (await self.read_events(project_id, after=after, limit=limit, batch_id=batch_id)).events

    async def read_events(
        self,
        project_id: ProjectId,
        *,
        after: int,
        limit: int,
        types: frozenset[str] | None = None,
        batch_id: BatchId | None = None,
    ) -> EventPage:
        """In one transaction: the head is read first, and nothing beyond it."""
        async with self._db.transaction(project=project_id) as conn:
            bounds = await _bounds(conn, project_id)
            upto, mine = bounds.head, _MINE if batch_id is None else _MINE_OF_BATCH
            asked = {"project": project_id, "after": after, "batch": batch_id, "upto": upto, "limit": limit}
            if types is not None:
                upto = asked["upto"] = await _scan(conn, mine, asked)
            rows = await fetch(
                conn,
                f"SELECT * FROM event_log WHERE {mine} AND (%(types)s::text[] IS NULL OR type = ANY (%(types)s)) "  # noqa: S608
                'ORDER BY "offset" LIMIT %(limit)s',
                {**asked, "types": None if types is None else sorted(types)},
            )
        events = tuple(event_of(row) for row in rows)
        reached = events[-1].offset or 0 if len(events) == limit else upto
        return EventPage(events, max(after, reached), bounds.start, bounds.head)

    async def event_bounds(self, project_id: ProjectId) -> Bounds:
        """Two look-ups by index."""
        async with self._db.transaction(project=project_id) as conn:
            return await _bounds(conn, project_id)

    async def offset_at(self, project_id: ProjectId, moment: datetime) -> int:
        """By halving: some 25 look-ups in a log of 30 million."""
        async with self._db.transaction(project=project_id) as conn:
            bounds = await _bounds(conn, project_id)
            low, high = bounds.start, bounds.head + 1
            while low < high:
                middle = (low + high) // 2
                row = await fetch_one(
                    conn,
                    'SELECT logged_at FROM event_log WHERE project_id = %s AND "offset" = %s',
                    [project_id, middle],
                )
                if row is None or row["logged_at"] < moment:  # None: pruned just now, so it is older than what is kept
                    low = middle + 1
                else:
                    high = middle
        return low - 1

    async def tail_events(self, after: Mapping[ProjectId, int], *, limit: int) -> tuple[Event, ...]:
        """Of a log that has not grown, only its head is looked at."""
        if not after:
            return ()
        async with self._db.transaction(projects=",".join(after)) as conn:
            rows = await fetch(conn, _TAILS, {"projects": list(after), "after": list(after.values()), "limit": limit})
        return tuple(event_of(row) for row in rows)

    async def event_words(self) -> AsyncIterator[frozenset[ProjectId]]:
        """LISTEN on a connection of its own, which no transaction pooler may stand before."""
        try:
            async with await psycopg.AsyncConnection.connect(
                self._db.url, autocommit=True, application_name="cope-events", connect_timeout=10
            ) as conn:
                await conn.execute(f"LISTEN {WORDS}")
                yield frozenset()  # whatever happened before the line stood
                async for word in conn.notifies():
                    yield frozenset(ProjectId(name) for name in word.payload.split(",") if name)
        except psycopg.Error as cut:
            raise StoreUnavailable(f"the database no longer says what is new: {cut}") from cut


async def _bounds(conn: Connection, project_id: ProjectId) -> Bounds:
    row = await fetch_one(conn, _BOUNDS, {"project": project_id})
    assert row is not None
    return Bounds(start=row["head"] + 1 if row["start"] is None else row["start"], head=row["head"])


async def _scan(conn: Connection, mine: str, asked: Mapping[str, object]) -> int:
    """The offset up to which to look for the types asked for."""
    row = await fetch_one(
        conn,
        f'SELECT count(*) AS n, max("offset") AS upto FROM (SELECT "offset" FROM event_log WHERE {mine} '  # noqa: S608
        f'ORDER BY "offset" LIMIT {SCANNED}) seen',
        asked,
    )
    return int(row["upto"]) if row is not None and row["n"] == SCANNED else int(str(asked["upto"]))
