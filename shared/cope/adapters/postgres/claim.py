"""Claim and renew: leases under the database's clock, and the rows that become tasks again."""

from collections.abc import Mapping, Sequence

from cope.adapters.postgres.database import Connection, Row, fetch
from cope.core.codec import decode_policy, decode_step, decode_task
from cope.core.ids import BatchId, KeyId, ProjectId, TaskId
from cope.core.policies.spec import PolicySpec
from cope.ports.store import NO_END_S, ClaimedTask, Lease

LIVE_FIRST = -1_000_000_000
"""Added to a live call's priority number, so that it comes before every batch's task."""

ALONE_FROM_CRASHES = 2
DUE_SHOWN = 1000

# Looked up per candidate by primary key: an anti-join would invite the planner to read every batch. What is held by
# hand is looked up once per statement and passed over first: its tasks stay where they are in the queue, all of them.
_WORKABLE = """
  t.project_id <> ALL (ARRAY(SELECT id FROM projects WHERE paused))
  AND (t.batch_id IS NULL OR t.batch_id <> ALL (ARRAY(SELECT id FROM batches WHERE paused AND status = 'in_progress')))
  AND NOT (SELECT p.paused OR p.archived_at IS NOT NULL FROM projects p WHERE p.id = t.project_id)
  AND (t.batch_id IS NULL
       OR (SELECT b.status = 'in_progress' AND b.ending IS NULL FROM batches b WHERE b.id = t.batch_id))
"""

# Seconds; a batch that stands still stands still here too. Of a batch without an end, as much as anybody asks for.
WINDOW_LEFT = f"""(SELECT coalesce(extract(epoch FROM b.expires_at - coalesce(b.held_since, now()))::float8, {NO_END_S})
   FROM batches b WHERE b.id = t.batch_id)"""  # noqa: S608

# Every due row that could be taken is locked; of these, a poisoned first one is taken alone, else only sound ones.
CLAIM = f"""
WITH due AS MATERIALIZED (
  SELECT t.id, t.priority, t.turn, t.crashes FROM tasks t
  WHERE t.queue = %(queue)s AND t.state = 'ready' AND t.not_before <= now() AND {_WORKABLE}
  ORDER BY t.priority, t.turn, t.id LIMIT %(limit)s FOR NO KEY UPDATE OF t SKIP LOCKED
), first AS (
  SELECT id, crashes FROM due ORDER BY priority, turn, id LIMIT 1
), picked AS (
  SELECT due.id FROM due, first
  WHERE CASE WHEN first.crashes >= {ALONE_FROM_CRASHES} THEN due.id = first.id
             ELSE due.crashes < {ALONE_FROM_CRASHES} END
)
UPDATE tasks t SET state = 'leased', fence = t.fence + 1, lease_until = now() + %(lease_s)s * interval '1 second',
  lease_owner = %(worker)s
FROM picked WHERE t.id = picked.id
RETURNING t.id, t.project_id, t.batch_id, t.key_id, t.policy_id, t.payload, t.seed, t.on_budget, t.fence, t.tries,
  t.crashes, t.lease_until, t.priority, t.turn, t.batch_off, {WINDOW_LEFT} AS window_left_s,
  ARRAY(SELECT s.data FROM steps s WHERE s.task_id = t.id ORDER BY s.at) AS steps
"""  # noqa: S608

_DUE = f"""
SELECT q.queue, (SELECT count(*) FROM (
  SELECT FROM tasks t WHERE t.queue = q.queue AND t.state = 'ready' AND t.not_before <= now() AND {_WORKABLE}
  LIMIT {DUE_SHOWN}) d) AS due
FROM unnest(ARRAY['large', 'small']) q (queue)
UNION ALL
SELECT 'upkeep', (SELECT count(*) FROM (
  SELECT FROM batches WHERE (job_until IS NULL OR job_until <= now())
    AND (status IN ('validating', 'finalizing') OR status = 'cancelling' AND done + failed >= total)
  LIMIT {DUE_SHOWN}) d)
UNION ALL
SELECT 'webhooks', (SELECT count(*) FROM (
  SELECT FROM deliveries WHERE state = 'pending' AND due_at <= now() LIMIT {DUE_SHOWN}) d)
"""  # noqa: S608


class Policies:
    """Decoded policies by id. A policy's id is its hash, so an entry never changes."""

    def __init__(self) -> None:
        self._known: dict[str, PolicySpec] = {}

    async def load(self, conn: Connection, policy_ids: set[str]) -> None:
        """Make these known."""
        missing = sorted(policy_ids - self._known.keys())
        if missing:
            for row in await fetch(conn, "SELECT id, spec FROM policies WHERE id = ANY (%s)", [missing]):
                self._known[row["id"]] = decode_policy(row["spec"])

    def __getitem__(self, policy_id: str) -> PolicySpec:
        return self._known[policy_id]


async def claim(conn: Connection, queue: str, *, worker: str, limit: int, lease_s: float) -> list[Row]:
    """Rows now under lease, in order."""
    rows = await fetch(conn, CLAIM, {"queue": queue, "limit": limit, "lease_s": lease_s, "worker": worker})
    return [dict(row) for row in sorted(rows, key=lambda row: (row["priority"], row["turn"], row["id"]))]


def claimed_task(row: Row, policies: Policies) -> ClaimedTask:
    """The task of a claimed row."""
    return ClaimedTask(
        spec=decode_task(
            TaskId(row["id"]),
            payload=row["payload"],
            policy=policies[row["policy_id"]],
            seed=row["seed"],
            on_budget=row["on_budget"],
        ),
        history=tuple(decode_step(step) for step in row["steps"]),
        project_id=ProjectId(row["project_id"]),
        batch_id=None if row["batch_id"] is None else BatchId(row["batch_id"]),
        key_id=None if row["key_id"] is None else KeyId(row["key_id"]),
        fence=row["fence"],
        tries=row["tries"],
        crashes=row["crashes"],
        lease_until=row["lease_until"],
        window_left_s=row["window_left_s"],
        batch_off=row["batch_off"] or "",
    )


async def renew(conn: Connection, leases: Sequence[Lease], *, lease_s: float) -> set[TaskId]:
    """Extend what is still held; returns the rest. Rows are locked in order, beside commits and claims."""
    rows = await fetch(
        conn,
        """
        WITH held AS (
          SELECT t.id FROM tasks t JOIN unnest(%s::text[], %s::int[]) AS l (id, fence) ON t.id = l.id
          WHERE t.state = 'leased' AND t.fence = l.fence ORDER BY t.id FOR NO KEY UPDATE OF t
        )
        UPDATE tasks t SET lease_until = now() + %s * interval '1 second' FROM held WHERE t.id = held.id
        RETURNING t.id
        """,
        [[lease.task_id for lease in leases], [lease.fence for lease in leases], lease_s],
    )
    return {lease.task_id for lease in leases} - {TaskId(row["id"]) for row in rows}


async def lost(conn: Connection, leases: Sequence[Lease]) -> set[TaskId]:
    """A batch that ends is looked at too: its tasks are ended a page at a time, and those at work need not wait."""
    rows = await fetch(
        conn,
        """
        SELECT t.id FROM tasks t JOIN unnest(%s::text[], %s::int[]) AS l (id, fence) ON t.id = l.id
        WHERE t.state = 'leased' AND t.fence = l.fence
          AND (SELECT b.ending FROM batches b WHERE b.id = t.batch_id) IS NULL
        """,
        [[lease.task_id for lease in leases], [lease.fence for lease in leases]],
    )
    return {lease.task_id for lease in leases} - {TaskId(row["id"]) for row in rows}


async def due(conn: Connection) -> Mapping[str, int]:
    """Queues with something due, and how much of it, capped."""
    return {row["queue"]: row["due"] for row in await fetch(conn, _DUE) if row["due"]}
