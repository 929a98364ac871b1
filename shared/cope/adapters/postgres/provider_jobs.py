"""Provider batches as leased jobs: claimed, renewed and changed by whoever holds the fence."""

from cope.adapters.postgres.claim import WINDOW_LEFT
from cope.adapters.postgres.database import Connection, Row, fetch, fetch_one
from cope.core.ids import ProviderBatchId
from cope.ports.provider_batches import Gathered, JobChange, ProviderJob, ProviderState

OWNED = "id = %(id)s AND job_fence = %(fence)s AND job_until IS NOT NULL AND state <> 'ended'"

# A line waits while its task does, under the fence that it was gathered with.
WAITING = "t.state = 'submitted' AND t.fence = l.fence"

_STOPPED = """
  (SELECT p.paused OR p.archived_at IS NOT NULL FROM projects p WHERE p.id = t.project_id)
  OR t.batch_id IS NOT NULL AND (SELECT b.paused OR b.parse_watch = 'paused' OR b.ending IS NOT NULL
                                 FROM batches b WHERE b.id = t.batch_id)
"""
SENDABLE = f"{WAITING} AND t.ending IS NULL AND NOT ({_STOPPED})"

_CLAIM = """
UPDATE provider_batches SET job_fence = job_fence + 1, job_until = now() + %s * interval '1 second'
WHERE id = (SELECT id FROM provider_batches WHERE state <> 'ended' AND due_at <= now()
              AND (job_until IS NULL OR job_until <= now())
            ORDER BY due_at, id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)
RETURNING id
"""

_JOB = f"""
SELECT pb.*, extract(epoch FROM now() - pb.doubt_at)::float8 AS doubt_s,
  extract(epoch FROM now() - pb.cancelling_at)::float8 AS cancel_s, c.*
FROM provider_batches pb, LATERAL (
  SELECT count(*) AS unsettled, count(*) FILTER (WHERE {WAITING}) AS waiting,
    count(*) FILTER (WHERE {WAITING} AND t.ending IS NULL) AS wanted,
    min({WINDOW_LEFT}) FILTER (WHERE {WAITING}) AS window_left_s
  FROM provider_lines l JOIN tasks t ON t.id = l.task_id WHERE l.provider_batch = pb.id) c
WHERE pb.id = %s
"""  # noqa: S608

_FORM = f"""
WITH first AS MATERIALIZED (
  SELECT l.attempt_id, l.size FROM provider_lines l JOIN tasks t ON t.id = l.task_id
  WHERE l.model = %(model)s AND l.provider_batch IS NULL AND {SENDABLE} ORDER BY l.attempt_id LIMIT %(lines)s
), upto AS (
  SELECT attempt_id, size, sum(size) OVER (ORDER BY attempt_id) AS total FROM first
)
UPDATE provider_lines l SET provider_batch = %(id)s FROM upto
WHERE l.attempt_id = upto.attempt_id AND upto.total - upto.size < %(size)s
"""  # noqa: S608

_CHANGE = f"""
UPDATE provider_batches SET
  state = coalesce(%(state)s, state), file_id = coalesce(%(file_id)s, file_id),
  provider_id = coalesce(%(provider_id)s, provider_id), status = coalesce(%(status)s, status),
  polls = coalesce(%(polls)s, polls), note = coalesce(%(note)s, note),
  doubt_at = CASE WHEN %(doubt)s::bool THEN now() WHEN NOT %(doubt)s::bool THEN NULL ELSE doubt_at END,
  creates = creates + coalesce(%(doubt)s::bool, false)::int,
  cancelling_at = CASE WHEN %(cancelling)s::bool THEN coalesce(cancelling_at, now()) ELSE cancelling_at END,
  due_at = coalesce(now() + %(delay_s)s::float8 * interval '1 second', due_at),
  job_until = CASE WHEN %(delay_s)s::float8 IS NULL THEN job_until END,
  ended_at = CASE WHEN %(state)s = 'ended' THEN now() END
WHERE {OWNED}
"""  # noqa: S608


async def gathered(conn: Connection) -> list[Gathered]:
    """What waits to be sent, by model; lines of stopped projects count too."""
    rows = await fetch(
        conn,
        """
        SELECT model, count(*) AS lines, extract(epoch FROM now() - min(gathered_at))::float8 AS oldest_s
        FROM provider_lines WHERE provider_batch IS NULL GROUP BY model ORDER BY model
        """,
    )
    return [Gathered(row["model"], row["lines"], row["oldest_s"]) for row in rows]


async def form(
    conn: Connection, batch_id: ProviderBatchId, model: str, *, lines: int, size: int, lease_s: float
) -> ProviderJob | None:
    """One former per model at a time: two would make two half batches."""
    row = await fetch_one(
        conn, "SELECT pg_try_advisory_xact_lock(hashtext('cope provider batch'), hashtext(%s))", [model]
    )
    if row is None or not row["pg_try_advisory_xact_lock"]:
        return None
    taken = await conn.execute(_FORM, {"id": batch_id, "model": model, "lines": lines, "size": size})
    if taken.rowcount < 1:
        return None
    await conn.execute(
        """
        INSERT INTO provider_batches (id, model, job_fence, job_until)
        VALUES (%s, %s, 1, now() + %s * interval '1 second')
        """,
        [batch_id, model, lease_s],
    )
    return await _job(conn, batch_id)


async def claim(conn: Connection, *, lease_s: float) -> ProviderJob | None:
    """The longest due one that nobody works on."""
    row = await fetch_one(conn, _CLAIM, [lease_s])
    return None if row is None else await _job(conn, row["id"])


async def renew(conn: Connection, job: ProviderJob, *, lease_s: float) -> bool:
    """Whether the job was still held."""
    renewed = await conn.execute(
        f"UPDATE provider_batches SET job_until = now() + %(lease_s)s * interval '1 second' WHERE {OWNED}",  # noqa: S608
        {"id": job.id, "fence": job.fence, "lease_s": lease_s},
    )
    return renewed.rowcount == 1


async def own(conn: Connection, job: ProviderJob) -> bool:
    """Lock the job's row; whether it was still held. Comes before tasks in every transaction."""
    query = f"SELECT FROM provider_batches WHERE {OWNED} FOR NO KEY UPDATE"
    return await fetch_one(conn, query, {"id": job.id, "fence": job.fence}) is not None


async def change(conn: Connection, job: ProviderJob, change: JobChange) -> bool:
    """Whether the job was still held."""
    done = await conn.execute(
        _CHANGE,
        {
            "id": job.id,
            "fence": job.fence,
            "state": None if change.state is None else change.state.value,
            "file_id": change.file_id,
            "provider_id": change.provider_id,
            "status": change.status,
            "doubt": change.doubt,
            "cancelling": change.cancelling,
            "polls": change.polls,
            "note": change.note,
            "delay_s": change.delay_s,
        },
    )
    return done.rowcount == 1


async def _job(conn: Connection, batch_id: str) -> ProviderJob:
    row = await fetch_one(conn, _JOB, [batch_id])
    assert row is not None
    return _job_of(row)


def _job_of(row: Row) -> ProviderJob:
    return ProviderJob(
        id=ProviderBatchId(row["id"]),
        model=row["model"],
        state=ProviderState(row["state"]),
        fence=row["job_fence"],
        file_id=row["file_id"],
        provider_id=row["provider_id"],
        status=row["status"],
        created_at=row["created_at"],
        unsettled=row["unsettled"],
        waiting=row["waiting"],
        wanted=row["wanted"],
        window_left_s=row["window_left_s"],
        doubt_s=row["doubt_s"],
        cancel_s=row["cancel_s"],
        polls=row["polls"],
        creates=row["creates"],
    )
