"""Gapless event offsets: one sequencer at a time, under an advisory lock.

Sequence values do not commit in order, so a reader of `seq` could skip a late committer. The offset is given only to
events that are visible, hence committed, and the lock is held until the offsets are committed too.
"""

from cope.adapters.postgres.database import Connection

_SEQUENCER_LOCK = 0x73657175
_AT_ONCE = 20_000


async def sequence_events(conn: Connection) -> int:
    """Give new events their offsets; how many there were. Another sequencer at work: 0."""
    locked = await (await conn.execute("SELECT pg_try_advisory_xact_lock(%s)", [_SEQUENCER_LOCK])).fetchone()
    if locked is None or not locked[0]:
        return 0
    cursor = await conn.execute(
        """
        WITH fresh AS (
          SELECT seq, row_number() OVER (ORDER BY seq) AS place
          FROM (SELECT seq FROM events WHERE "offset" IS NULL ORDER BY seq LIMIT %s) e
        ), head AS (
          UPDATE event_head SET last = last + (SELECT count(*) FROM fresh)
          WHERE id = 1 AND EXISTS (SELECT FROM fresh) RETURNING last
        )
        UPDATE events e SET "offset" = head.last - (SELECT count(*) FROM fresh) + fresh.place
        FROM fresh, head WHERE e.seq = fresh.seq
        """,
        [_AT_ONCE],
    )
    return cursor.rowcount
