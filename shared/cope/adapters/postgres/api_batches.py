"""Batches: create once, see, list, cancel, hold by hand and resume."""

from collections.abc import Mapping
from typing import Any

import orjson

from cope.adapters.postgres.api_projects import ApiProjects
from cope.adapters.postgres.counters import BatchDeltas
from cope.adapters.postgres.database import Connection, fetch, fetch_one
from cope.adapters.postgres.ending import end_batch_tasks
from cope.adapters.postgres.journal import Note, write_notes
from cope.adapters.postgres.paging import page_of
from cope.adapters.postgres.records import BATCH, batch_of
from cope.core.errors import Conflict
from cope.core.ids import BatchId, ProjectId
from cope.core.lifecycle import HoldReason, TaskState
from cope.core.records import Batch
from cope.ports.store import NewBatch, Page

_INSERT = """
INSERT INTO batches (id, project_id, key_id, endpoint, input_file_id, completion_window, status, created_at, defaults,
  metadata, webhook_url, model, output_expires_after_s, body_hash, idempotency_key, cap, audit_share)
VALUES (%(id)s, %(project_id)s, %(key_id)s, %(endpoint)s, %(input_file_id)s, %(completion_window)s, %(status)s,
  %(created_at)s, %(defaults)s, %(metadata)s, %(webhook_url)s, %(model)s, %(output_expires_after_s)s, %(body_hash)s,
  %(idempotency_key)s, %(cap)s, %(audit_share)s)
"""

# A dry run is not watched: it makes no paid call that could wait.
_INSERT_QUOTE = """
WITH unwatched AS (UPDATE batches SET parse_watch = 'passed' WHERE id = %(id)s)
INSERT INTO quotes (batch_id, project_id, pilot_lines) VALUES (%(id)s, %(project_id)s, %(pilot_lines)s)
"""

_OPEN = """
UPDATE batches SET open = true, status = 'in_progress', in_progress_at = now(),
  expires_at = now() + %(window)s::interval
WHERE id = %(id)s
"""

# Two requests with one body, or one key, wait for each other: the second must see what the first has created.
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))"

_SAME_KEY = """
SELECT id, body_hash, created_at < now() - interval '24 hours' AS forgotten FROM batches
WHERE project_id = %s AND idempotency_key = %s
"""

# The n-th retry of one call finds a batch that no n-th retry has found yet: of two equal batches that were both meant,
# each keeps its own.
_SAME_BODY = """
UPDATE batches SET retries = %(retry)s WHERE id = (
  SELECT id FROM batches WHERE project_id = %(project)s AND body_hash = %(body)s AND retries < %(retry)s
    AND created_at >= now() - interval '15 minutes'
  ORDER BY id DESC LIMIT 1)
RETURNING id
"""


class ApiBatches(ApiProjects):
    """What a project's key may do with batches."""

    async def create_batch(self, new: NewBatch) -> Batch:
        """An explicit key is remembered for 24 hours."""
        project_id = new.batch.project_id
        async with self._db.transaction(project=project_id) as conn:
            first = await self._known(conn, new) or await self._insert(conn, new)
            batch = await see(conn, project_id, first)
        assert batch is not None
        return batch

    async def _known(self, conn: Connection, new: NewBatch) -> BatchId | None:
        """The batch that this repeats, else None. Who asks the same at the same time waits for this transaction."""
        asked = new.idempotency_key or new.body_hash.hex()
        await conn.execute(_ONE_AT_A_TIME, [f"{new.batch.project_id} {asked}"])
        return await self._first_of(conn, new)

    async def _insert(self, conn: Connection, new: NewBatch) -> BatchId:
        batch = new.batch
        if not batch.open and batch.retry_of is None:  # neither reads a file
            await _keep_input(conn, batch)
        await conn.execute(_INSERT, _values(new))
        if batch.dry_run is not None:
            values = {"id": batch.id, "project_id": batch.project_id, "pilot_lines": batch.dry_run}
            await conn.execute(_INSERT_QUOTE, values)
        await write_notes(conn, [Note(batch.project_id, "batch.created", batch.id, data={"id": batch.id})])
        if batch.open:
            await conn.execute(_OPEN, {"id": batch.id, "window": new.open_for})
            await stand_still_or_go_on(conn, batch.project_id, batch.id)
            await write_notes(conn, [Note(batch.project_id, "batch.in_progress", batch.id, data={"total": 0})])
        return batch.id

    async def get_batch(self, project_id: ProjectId, batch_id: BatchId) -> Batch | None:
        """This project's batch, or None."""
        async with self._db.transaction(project=project_id) as conn:
            return await see(conn, project_id, batch_id)

    async def list_batches(self, project_id: ProjectId, *, after: BatchId | None, limit: int) -> Page[Batch]:
        """Newest first."""
        async with self._db.transaction(project=project_id) as conn:
            rows = await fetch(
                conn,
                BATCH
                + """
                WHERE b.project_id = %(project)s AND (%(after)s::text IS NULL OR b.id < %(after)s)
                ORDER BY b.id DESC LIMIT %(limit)s
                """,
                {"project": project_id, "after": after, "limit": limit + 1},
            )
        return page_of([batch_of(row) for row in rows], limit)

    async def cancel_batch(self, project_id: ProjectId, batch_id: BatchId) -> Batch | None:
        """A batch that is already finalizing is returned as it is: its work is done.

        No task of it is claimed from the first transaction on. The second ends tasks (`ending.AT_ONCE` of them, the
        sweep the rest); it comes apart because tasks are locked before their batch.
        """
        async with self._db.transaction(project=project_id) as conn:
            cancelling = await conn.execute(
                """
                UPDATE batches SET status = 'cancelling', cancelling_at = now(), ending = 'cancelled', open = false,
                  expires_at = CASE WHEN held_since IS NULL THEN expires_at
                                    ELSE expires_at + (now() - held_since) END,
                  held_since = NULL, job_until = NULL
                WHERE id = %s AND project_id = %s AND status IN ('validating', 'in_progress')
                """,
                [batch_id, project_id],
            )
            if cancelling.rowcount:
                await write_notes(conn, [Note(project_id, "batch.cancelling", batch_id, data={"id": batch_id})])
        async with self._db.transaction(project=project_id) as conn:
            if cancelling.rowcount:
                await end_batch_tasks(conn, batch_id, TaskState.CANCELLED)
            return await see(conn, project_id, batch_id)

    async def hold_batch(self, project_id: ProjectId, batch_id: BatchId) -> Batch | None:
        """A batch that has ended, or is ending, is returned as it is."""
        async with self._db.transaction(project=project_id) as conn:
            held = await conn.execute(
                """
                UPDATE batches SET paused = true
                WHERE id = %s AND project_id = %s AND NOT paused AND status IN ('validating', 'in_progress')
                """,
                [batch_id, project_id],
            )
            if held.rowcount:
                await stand_still_or_go_on(conn, project_id, batch_id)
                data = {"id": batch_id, "reason": HoldReason.PAUSED.value}
                await write_notes(conn, [Note(project_id, "batch.paused", batch_id, data=data)])
            return await see(conn, project_id, batch_id)

    async def resume_batch(self, project_id: ProjectId, batch_id: BatchId) -> Batch | None:
        """The sweep makes its held tasks ready again."""
        async with self._db.transaction(project=project_id) as conn:
            resumed = await conn.execute(
                """
                UPDATE batches SET paused = false,
                  parse_watch = CASE parse_watch WHEN 'paused' THEN 'passed' ELSE parse_watch END
                WHERE id = %s AND project_id = %s AND (paused OR parse_watch = 'paused')
                """,
                [batch_id, project_id],
            )
            if resumed.rowcount:
                await stand_still_or_go_on(conn, project_id, batch_id)
                await write_notes(conn, [Note(project_id, "batch.resumed", batch_id, data={"id": batch_id})])
            return await see(conn, project_id, batch_id)

    @staticmethod
    async def _first_of(conn: Connection, new: NewBatch) -> BatchId | None:
        project_id = new.batch.project_id
        if new.idempotency_key is not None:
            known = await fetch_one(conn, _SAME_KEY, [project_id, new.idempotency_key])
            if known is None:
                return None
            if known["forgotten"]:
                await conn.execute("UPDATE batches SET idempotency_key = NULL WHERE id = %s", [known["id"]])
                return None
            if bytes(known["body_hash"]) != new.body_hash:
                raise Conflict("This idempotency key was used for another body.", code="idempotency_key_reused")
            return BatchId(known["id"])
        if new.retry == 0:
            return None
        asked = {"project": project_id, "body": new.body_hash, "retry": new.retry}
        same = await fetch_one(conn, _SAME_BODY, asked)
        return None if same is None else BatchId(same["id"])


async def _keep_input(conn: Connection, batch: Batch) -> None:
    """Whoever deletes the input file now waits for this transaction, and then finds a batch that reads it."""
    found = await fetch_one(
        conn,
        "SELECT FROM files WHERE id = %s AND project_id = %s FOR KEY SHARE",
        [batch.input_file_id, batch.project_id],
    )
    if found is None:
        raise Conflict(f"File {batch.input_file_id!r} was deleted.", code="file_not_found")


async def stand_still_or_go_on(conn: Connection, project_id: ProjectId, batch_id: BatchId) -> None:
    """The completion window stops or goes on, as the batch's row now says."""
    deltas = BatchDeltas()
    deltas.touch([(batch_id, project_id)])
    await deltas.write(conn)


async def see(conn: Connection, project_id: ProjectId, batch_id: BatchId) -> Batch | None:
    """This project's batch, or None."""
    row = await fetch_one(conn, BATCH + "WHERE b.id = %s AND b.project_id = %s", [batch_id, project_id])
    return None if row is None else batch_of(row)


def _values(new: NewBatch) -> Mapping[str, Any]:
    batch = new.batch
    return {
        "id": batch.id,
        "project_id": batch.project_id,
        "key_id": batch.key_id,
        "endpoint": batch.endpoint,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status.value,
        "created_at": batch.created_at,
        "defaults": batch.defaults,
        "metadata": None if batch.metadata is None else orjson.dumps(dict(batch.metadata)).decode(),
        "webhook_url": batch.webhook_url,
        "cap": batch.cap,
        "audit_share": batch.audit_share,
        "model": batch.model,
        "output_expires_after_s": batch.output_expires_after_s,
        "body_hash": new.body_hash,
        "idempotency_key": new.idempotency_key,
    }
