"""Counters repaired: one batch per sweep is counted again from its tasks."""

from cope.adapters.postgres.counters import BatchDeltas
from cope.adapters.postgres.database import Connection, fetch_one
from cope.adapters.postgres.results import number_lines

# The larger the batch, the more seldom: a recount reads all its tasks while its commits wait.
_NEXT = """
SELECT id, project_id FROM batches
WHERE status IN ('in_progress', 'finalizing', 'cancelling')
  AND coalesce(counted_at, in_progress_at) < now() - interval '1 minute' - total * interval '1 millisecond'
ORDER BY counted_at NULLS FIRST, id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
"""

_COUNT = """
WITH t AS (
  SELECT
    count(*) AS total,
    count(*) FILTER (WHERE state = 'done') AS done,
    count(*) FILTER (WHERE state IN ('failed', 'cancelled', 'expired')) AS failed,
    count(*) FILTER (WHERE state = 'done' AND stage = 1) AS stage1,
    count(*) FILTER (WHERE state = 'done' AND stage = 2) AS stage2,
    count(*) FILTER (WHERE state = 'done' AND stage = 3) AS stage3,
    count(*) FILTER (WHERE hold = 'budget') AS held_budget,
    count(*) FILTER (WHERE hold = 'provider_quota') AS held_quota,
    count(*) FILTER (WHERE hold = 'paused') AS held_paused,
    count(*) FILTER (WHERE hold = 'unparsable') AS held_unparsable,
    count(*) FILTER (WHERE queue = 'large' AND state IN ('ready', 'leased', 'held', 'submitted')) AS at_large
  FROM tasks WHERE batch_id = %(id)s
), was AS (
  SELECT total, done, failed, stage1, stage2, stage3, held_budget, held_quota, held_paused, held_unparsable
  FROM batches WHERE id = %(id)s
)
UPDATE batches b SET counted_at = now(), total = t.total, done = t.done, failed = t.failed, stage1 = t.stage1,
  stage2 = t.stage2, stage3 = t.stage3, held_budget = t.held_budget, held_quota = t.held_quota,
  held_paused = t.held_paused, held_unparsable = t.held_unparsable, at_large = t.at_large
FROM t, was WHERE b.id = %(id)s
RETURNING (was.total, was.done, was.failed, was.stage1, was.stage2, was.stage3, was.held_budget, was.held_quota,
           was.held_paused, was.held_unparsable)
  IS DISTINCT FROM (t.total, t.done, t.failed, t.stage1, t.stage2, t.stage3, t.held_budget, t.held_quota,
                    t.held_paused, t.held_unparsable) AS differed,
  b.ends IS DISTINCT FROM t.done + t.failed AS unnumbered
"""


async def recount_one(conn: Connection) -> int:
    """1 if a batch's counters were wrong and have been set right, else 0.

    The batch's row is locked first: a commit that has changed tasks but not yet the counters waits for it, is not
    seen by the count, and adds its own part afterwards.
    """
    batch = await fetch_one(conn, _NEXT)
    if batch is None:
        return 0
    row = await fetch_one(conn, _COUNT, {"id": batch["id"]})
    if row is not None and row["unnumbered"]:  # ended by a worker of a version that numbered no lines
        await number_lines(conn, batch["id"])
    deltas = BatchDeltas()
    deltas.touch([(batch["id"], batch["project_id"])])
    await deltas.write(conn)
    return int(row is not None and row["differed"])
