"""Upkeep jobs on batches: leased by `job_fence` and `job_until`, ended by the write that only the holder can make."""

from collections.abc import Sequence
from dataclasses import asdict

import orjson

from cope.adapters.postgres.blobs import insert_file
from cope.adapters.postgres.database import Connection, fetch_one
from cope.adapters.postgres.journal import note_and_deliver
from cope.adapters.postgres.quotes import put_quote
from cope.adapters.postgres.records import BATCH, batch_of
from cope.adapters.postgres.taskrows import WIPED
from cope.core.lifecycle import BatchStatus
from cope.core.records import LineError, StoredFile
from cope.ports.store import BatchJob

NEW = "status = 'validating'"
LACKS_FILES = "status IN ('finalizing', 'cancelling') AND done + failed >= total"

_OWNED = "id = %(id)s AND job_fence = %(fence)s AND job_until IS NOT NULL"


async def claim_job(conn: Connection, due: str, *, lease_s: float) -> BatchJob | None:
    """Lease the oldest batch of condition `due` that nobody works on."""
    row = await fetch_one(
        conn,
        f"""
        UPDATE batches SET job_fence = job_fence + 1, job_until = now() + %s * interval '1 second'
        WHERE id = (SELECT id FROM batches WHERE {due} AND (job_until IS NULL OR job_until <= now())
                    ORDER BY id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)
        RETURNING id, job_fence
        """,  # noqa: S608
        [lease_s],
    )
    if row is None:
        return None
    batch = await fetch_one(conn, BATCH + "WHERE b.id = %s", [row["id"]])
    assert batch is not None
    return BatchJob(batch_of(batch), row["job_fence"])


async def renew_job(conn: Connection, job: BatchJob, *, lease_s: float) -> bool:
    """Whether the job was still held."""
    renewed = await conn.execute(
        f"UPDATE batches SET job_until = now() + %(lease_s)s * interval '1 second' WHERE {_OWNED}",  # noqa: S608
        {"id": job.batch.id, "fence": job.fence, "lease_s": lease_s},
    )
    return renewed.rowcount == 1


async def fail_validation(
    conn: Connection, job: BatchJob, errors: Sequence[LineError], *, output: StoredFile | None
) -> bool:
    """Nothing happens, and False, if the job was lost."""
    row = await fetch_one(
        conn,
        f"""
        UPDATE batches SET status = 'failed', failed_at = now(), errors = %(errors)s, job_until = NULL,
          output_file_id = %(output)s
        WHERE {_OWNED} AND {NEW} RETURNING project_id, webhook_url
        """,  # noqa: S608
        {
            "id": job.batch.id,
            "fence": job.fence,
            "errors": orjson.dumps([asdict(error) for error in errors]).decode(),
            "output": None if output is None else output.id,
        },
    )
    if row is None:
        return False
    if output is not None:
        await insert_file(conn, output)
    await note_and_deliver(
        conn, project_id=row["project_id"], batch_id=job.batch.id, status="failed", url=row["webhook_url"]
    )
    return True


async def finish_batch(
    conn: Connection, job: BatchJob, *, output: StoredFile | None, error: StoredFile | None, quote: str | None
) -> BatchStatus | None:
    """`cancelled` or `expired` where that is why it ended, else `completed`."""
    row = await fetch_one(
        conn,
        f"""
        UPDATE batches SET
          status = coalesce(ending, 'completed'),
          completed_at = CASE WHEN ending IS NULL THEN now() END,
          cancelled_at = CASE WHEN ending = 'cancelled' THEN now() END,
          expired_at = CASE WHEN ending = 'expired' THEN now() END,
          finalizing_at = coalesce(finalizing_at, now()), job_until = NULL,
          output_file_id = %(output)s, error_file_id = %(error)s
        WHERE {_OWNED} AND {LACKS_FILES} RETURNING project_id, webhook_url, status
        """,  # noqa: S608
        {
            "id": job.batch.id,
            "fence": job.fence,
            "output": None if output is None else output.id,
            "error": None if error is None else error.id,
        },
    )
    if row is None:
        return None
    for file in (output, error):
        if file is not None:
            await insert_file(conn, file)
    if quote is not None:
        await put_quote(conn, job.batch.id, quote)
    await _drop_texts(conn, job.batch.id)
    await conn.execute("DELETE FROM appended_lines WHERE batch_id = %s", [job.batch.id])
    await note_and_deliver(
        conn, project_id=row["project_id"], batch_id=job.batch.id, status=row["status"], url=row["webhook_url"]
    )
    return BatchStatus(row["status"])


async def _drop_texts(conn: Connection, batch_id: str) -> None:
    """What `store: none` promises: with the files written, neither question nor answer stays in the task's row."""
    await conn.execute(
        f"UPDATE tasks SET result = NULL, payload = {WIPED} WHERE batch_id = %s "  # noqa: S608
        """AND payload LIKE '%%"st":"none"%%'""",
        [batch_id],
    )
