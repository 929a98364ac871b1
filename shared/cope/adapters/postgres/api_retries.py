"""A batch made of another's lines: created here, once; its tasks are upkeep's to take over."""

from cope.adapters.postgres.api_batches import ApiBatches, see
from cope.adapters.postgres.database import Connection, fetch, fetch_one
from cope.adapters.postgres.line_retry import CAN_BE_RETRIED, TEXT_IS_GONE, wanted
from cope.core.errors import NotFound
from cope.core.ids import BatchId, ProjectId
from cope.core.line_retry import LineRetry, encode_line_retry
from cope.core.line_retry_refusals import NamedLine, refuse_lines, refuse_none, refuse_parent, refuse_texts
from cope.core.records import Batch
from cope.ports.store import NewBatch

_INSERT = "INSERT INTO batch_retries (batch_id, project_id, parent_id, lines) VALUES (%s, %s, %s, %s)"

_NAMED = f"""
SELECT c.custom_id, t.state, t.retried_in FROM unnest(%(custom_ids)s::text[]) AS c (custom_id)
LEFT JOIN tasks t ON t.batch_id = %(parent)s AND t.custom_id = c.custom_id
WHERE t.id IS NULL OR NOT coalesce({CAN_BE_RETRIED}, false) LIMIT 5
"""  # noqa: S608

_CHOSEN = f"""
SELECT FROM tasks t WHERE t.batch_id = %(parent)s AND {CAN_BE_RETRIED}
  AND (%(custom_ids)s::text[] IS NULL OR t.custom_id = ANY (%(custom_ids)s))
"""


class ApiRetries(ApiBatches):
    """What a project's key may do with lines that have ended without an answer."""

    async def retry_batch(self, new: NewBatch, retry: LineRetry) -> Batch:
        """Looked at once more when the lines are taken over: what is refused here is refused early."""
        project_id = new.batch.project_id
        async with self._db.transaction(project=project_id) as conn:
            first = await self._known(conn, new)
            if first is None:
                await _check(conn, project_id, retry)
                first = await self._insert(conn, new)
                await conn.execute(_INSERT, [first, project_id, retry.parent, encode_line_retry(retry)])
            batch = await see(conn, project_id, first)
        assert batch is not None
        return batch


async def _check(conn: Connection, project_id: ProjectId, retry: LineRetry) -> None:
    parent = await see(conn, project_id, BatchId(retry.parent))
    if parent is None:
        raise NotFound(f"There is no batch {retry.parent!r}.")
    refuse_parent(parent)
    asked = wanted(retry)
    if retry.custom_ids is not None:
        rows = await fetch(conn, _NAMED, asked)
        refuse_lines([NamedLine(row["custom_id"], row["state"], row["retried_in"]) for row in rows])
    if await fetch_one(conn, f"{_CHOSEN} LIMIT 1", asked) is None:
        refuse_none(parent)
    if await fetch_one(conn, f"{_CHOSEN} AND {TEXT_IS_GONE} LIMIT 1", asked) is not None:
        refuse_texts()
