"""How fast batches go: samples by the sweep, every few seconds, of those that are in progress and not held."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

from cope.adapters.postgres.database import Connection, Database, fetch
from cope.core.eta import LOOK_BACK_S, SAMPLED_EVERY_S, PaceSample
from cope.core.ids import BatchId

# The tasks under lease are few: as many as there are calls in flight, whatever the batches' sizes.
_SAMPLE = """
INSERT INTO batch_pace (batch_id, project_id, small_steps, large_steps, leased)
SELECT b.id, b.project_id, b.small_steps, b.large_steps, coalesce(l.leased, 0)
FROM batches b LEFT JOIN (
  SELECT batch_id, count(*) AS leased FROM tasks WHERE state = 'leased' AND batch_id IS NOT NULL GROUP BY batch_id
) l ON l.batch_id = b.id
WHERE b.status = 'in_progress' AND b.held_since IS NULL
ON CONFLICT DO NOTHING
"""

_FORGET = "DELETE FROM batch_pace WHERE at < now() - %s * interval '1 second'"

_OF = """
SELECT batch_id, at, small_steps, large_steps, leased FROM batch_pace
WHERE project_id = %s AND batch_id = ANY (%s) ORDER BY batch_id, at
"""


class PaceWatch:
    """Takes a sample of every batch in progress, at most every `SAMPLED_EVERY_S` seconds in this process."""

    def __init__(self) -> None:
        self._due_at = 0.0
        self._forget_at = 0.0

    async def look(self, db: Database) -> None:
        """One sample of each, if it is time."""
        now = time.monotonic()
        if now < self._due_at:
            return
        self._due_at = now + SAMPLED_EVERY_S
        async with db.transaction() as conn:
            await conn.execute(_SAMPLE)
        if now >= self._forget_at:
            self._forget_at = now + LOOK_BACK_S / 10
            async with db.transaction() as conn:
                await conn.execute(_FORGET, [LOOK_BACK_S])


async def paces(
    conn: Connection, project_id: str, batch_ids: Sequence[BatchId]
) -> Mapping[BatchId, tuple[PaceSample, ...]]:
    """The samples of these batches, by time."""
    found: dict[BatchId, list[PaceSample]] = defaultdict(list)
    for row in await fetch(conn, _OF, [project_id, list(batch_ids)]):
        found[BatchId(row["batch_id"])].append(
            PaceSample(row["at"], row["small_steps"], row["large_steps"], row["leased"])
        )
    return {batch_id: tuple(samples) for batch_id, samples in found.items()}
