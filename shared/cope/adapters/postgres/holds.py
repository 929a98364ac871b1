"""Holds that may end: only as many tasks as the headroom covers, in their order, and nobody overtakes."""

from collections.abc import Sequence

from cope.adapters.postgres.counters import BatchDeltas
from cope.adapters.postgres.database import Connection, Row, fetch
from cope.adapters.postgres.journal import Note, write_notes
from cope.core.lifecycle import HoldReason

_AT_ONCE = 5000

# Needs of tasks resumed earlier that have not reserved yet count against the headroom, else each sweep would resume
# as many again. `waiting` is the running sum in the queue's order: once it exceeds the room, everything behind waits.
_BUDGET = """
WITH held AS (
  SELECT p.id, p.cap, p.time_zone FROM projects p
  WHERE NOT p.paused AND p.archived_at IS NULL
    AND EXISTS (SELECT FROM tasks t WHERE t.state = 'held' AND t.hold = 'budget' AND t.project_id = p.id)
), room AS (
  SELECT h.id, CASE WHEN b.month IS NULL THEN h.cap ELSE b.cap - b.spent - b.reserved - b.unconfirmed END
    - (SELECT coalesce(sum(n.needed), 0) FROM tasks n
       WHERE n.project_id = h.id AND n.needed IS NOT NULL AND n.state IN ('ready', 'leased')) AS spare
  FROM held h LEFT JOIN budgets b
    ON b.project_id = h.id AND b.month = to_char(now() AT TIME ZONE h.time_zone, 'YYYY-MM')
), waiting AS (
  SELECT t.id, r.spare, sum(coalesce(t.needed, 0)) OVER (PARTITION BY r.id ORDER BY t.priority, t.turn, t.id) AS wanted
  FROM room r, LATERAL (
    SELECT * FROM tasks t WHERE t.state = 'held' AND t.hold = 'budget' AND t.project_id = r.id
    ORDER BY t.priority, t.turn, t.id LIMIT %s) t
)
SELECT id FROM waiting WHERE spare IS NULL OR wanted <= spare
"""

_QUOTA = "SELECT id FROM tasks WHERE state = 'held' AND hold = 'provider_quota' AND not_before <= now() LIMIT %s"
_QUOTA_IS_BACK = "SELECT id FROM tasks WHERE state = 'held' AND hold = 'provider_quota' LIMIT %s"

_PAUSED = """
SELECT t.id FROM tasks t JOIN projects p ON p.id = t.project_id
WHERE t.state = 'held' AND t.hold = 'paused' AND NOT p.paused AND p.archived_at IS NULL LIMIT %s
"""


_UNPARSABLE = """
SELECT t.id FROM tasks t JOIN batches b ON b.id = t.batch_id
WHERE t.state = 'held' AND t.hold = 'unparsable' AND b.parse_watch <> 'paused' LIMIT %s
"""


async def resume_holds(conn: Connection, *, quota_is_back: bool = False) -> int:
    """Held → ready where the reason is gone; how many."""
    chosen: list[str] = []
    for query in (_BUDGET, _QUOTA_IS_BACK if quota_is_back else _QUOTA, _PAUSED, _UNPARSABLE):
        chosen += [row["id"] for row in await fetch(conn, query, [_AT_ONCE])]
    if not chosen:
        return 0
    rows = await fetch(
        conn,
        """
        UPDATE tasks t SET state = 'ready', hold = NULL, not_before = now()
        FROM (SELECT t.id, t.hold FROM tasks t JOIN projects p ON p.id = t.project_id
              WHERE t.id = ANY (%s) AND t.state = 'held' AND NOT p.paused AND p.archived_at IS NULL
              ORDER BY t.id FOR NO KEY UPDATE OF t SKIP LOCKED) held
        WHERE t.id = held.id
        RETURNING t.id, t.project_id, t.batch_id, held.hold
        """,
        [chosen],
    )
    await _record(conn, rows)
    return len(rows)


async def _record(conn: Connection, rows: Sequence[Row]) -> None:
    deltas = BatchDeltas()
    for row in rows:
        deltas.of(row["batch_id"], row["project_id"]).held[HoldReason(row["hold"])] -= 1
    await write_notes(conn, [Note(r["project_id"], "task.resumed", r["batch_id"], r["id"]) for r in rows])
    await deltas.lock(conn)
    await deltas.write(conn)
