"""The sequencer moves events from the outbox into the log: one at a time, under an advisory lock.

Sequence values do not commit in order, so a reader of `seq` could skip a late committer. An offset is given only to
events that are visible, hence committed, and the lock is held until the offsets are committed too. What happened after
something else has a higher `seq` and is visible no sooner (both hang on the locks of the rows they tell of), so in each
batch the offsets are in the order of what happened.
"""

from cope.adapters.postgres.database import Connection, fetch_one

WORDS = "cope_events"
"""The channel on which readers are told whose logs have grown."""

_SEQUENCER_LOCK = 0x73657175
_AT_ONCE = 20_000
_LONGEST_WORD = 7_000

# One snapshot for all parts: what is deleted is what is counted is what is numbered.
_MOVE = """
WITH fresh AS (
  DELETE FROM events WHERE seq <= (SELECT max(seq) FROM (SELECT seq FROM events ORDER BY seq LIMIT %s) e)
  RETURNING seq, id, project_id, batch_id, task_id, type, at, data
), counted AS (
  SELECT project_id, count(*) AS n FROM fresh GROUP BY project_id
), heads AS (
  INSERT INTO event_heads AS h (project_id, last) SELECT project_id, n FROM counted ORDER BY project_id
  ON CONFLICT (project_id) DO UPDATE SET last = h.last + excluded.last RETURNING project_id, last
), clock AS (
  UPDATE event_head SET logged_at = greatest(logged_at, clock_timestamp())
  WHERE id = 1 AND EXISTS (SELECT FROM fresh) RETURNING logged_at
), logged AS (
  INSERT INTO event_log (project_id, "offset", logged_at, at, id, batch_id, task_id, type, data)
  SELECT f.project_id, h.last - c.n + row_number() OVER (PARTITION BY f.project_id ORDER BY f.seq), k.logged_at,
    f.at, f.id, f.batch_id, f.task_id, f.type, f.data
  FROM fresh f JOIN counted c USING (project_id) JOIN heads h USING (project_id) CROSS JOIN clock k
  ORDER BY f.project_id, f.seq RETURNING 1
)
SELECT (SELECT count(*) FROM logged) AS moved, (SELECT array_agg(project_id) FROM counted) AS projects
"""


async def sequence_events(conn: Connection) -> int:
    """Give new events their offsets; how many there were. Another sequencer at work: 0."""
    locked = await (await conn.execute("SELECT pg_try_advisory_xact_lock(%s)", [_SEQUENCER_LOCK])).fetchone()
    if locked is None or not locked[0]:
        return 0
    row = await fetch_one(conn, _MOVE, [_AT_ONCE])
    if row is None or not row["moved"]:
        return 0
    names = ",".join(row["projects"])
    await conn.execute("SELECT pg_notify(%s, %s)", [WORDS, names if len(names) < _LONGEST_WORD else ""])
    return int(row["moved"])
