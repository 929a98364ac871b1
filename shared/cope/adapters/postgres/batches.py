"""Upkeep jobs on batches: leased by `job_fence` and `job_until`, ended by the write that only the holder can make."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict

import orjson

from cope.adapters.postgres.blobs import insert_file
from cope.adapters.postgres.database import Connection, Database, Row, fetch, fetch_one
from cope.adapters.postgres.journal import note_and_deliver
from cope.adapters.postgres.quotes import put_quote
from cope.adapters.postgres.records import BATCH, batch_of
from cope.adapters.postgres.taskrows import WIPED, decode_error
from cope.core.ids import BatchId, TaskId
from cope.core.lifecycle import BatchStatus
from cope.core.records import LineError, StoredFile
from cope.ports.store import BatchJob, ResultLine

_PAGE_LINES = 1000

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


async def fail_validation(conn: Connection, job: BatchJob, errors: Sequence[LineError]) -> None:
    """Nothing happens if the job was lost."""
    row = await fetch_one(
        conn,
        f"""
        UPDATE batches SET status = 'failed', failed_at = now(), errors = %(errors)s, job_until = NULL
        WHERE {_OWNED} AND {NEW} RETURNING project_id, webhook_url
        """,  # noqa: S608
        {
            "id": job.batch.id,
            "fence": job.fence,
            "errors": orjson.dumps([asdict(error) for error in errors]).decode(),
        },
    )
    if row is not None:
        await note_and_deliver(
            conn, project_id=row["project_id"], batch_id=job.batch.id, status="failed", url=row["webhook_url"]
        )


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
    await note_and_deliver(
        conn, project_id=row["project_id"], batch_id=job.batch.id, status=row["status"], url=row["webhook_url"]
    )
    return BatchStatus(row["status"])


async def results(
    db: Database, batch_id: BatchId, *, failed: bool, by_input: bool
) -> AsyncIterator[Sequence[ResultLine]]:
    """Pages in the order of the input lines, or in the order the tasks ended.

    A cursor over the sorted ids alone, then a page of bodies at a time: neither side ever holds them all.
    """
    states = ["failed", "cancelled", "expired"] if failed else ["done"]
    order = "line" if by_input else "finished_at, line"
    async with db.transaction() as conn, conn.cursor(name="results") as cursor:
        await cursor.execute(
            f"SELECT id FROM tasks WHERE batch_id = %s AND state = ANY (%s) ORDER BY {order}",  # noqa: S608
            [batch_id, states],
        )
        while page := [row[0] for row in await cursor.fetchmany(_PAGE_LINES)]:
            rows = {row["id"]: row for row in await fetch(conn, _BODIES, [page])}
            yield [_line(rows[task_id]) for task_id in page]


_BODIES = "SELECT id, custom_id, line, status, result, error FROM tasks WHERE id = ANY (%s)"


def _line(row: Row) -> ResultLine:
    return ResultLine(
        task_id=TaskId(row["id"]),
        custom_id=row["custom_id"],
        line=row["line"],
        status=row["status"],
        body=row["result"],
        error=decode_error(row["error"]),
    )


async def _drop_texts(conn: Connection, batch_id: str) -> None:
    """What `store: none` promises: with the files written, neither question nor answer stays in the task's row."""
    await conn.execute(
        f"UPDATE tasks SET result = NULL, payload = {WIPED} WHERE batch_id = %s "  # noqa: S608
        """AND payload LIKE '%%"st":"none"%%'""",
        [batch_id],
    )
