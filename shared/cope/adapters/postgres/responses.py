"""Responses: the events of those that ended in the background, and erasing one on its caller's word."""

from collections.abc import Sequence

import orjson

from cope.adapters.postgres.database import Connection, fetch, fetch_one
from cope.adapters.postgres.journal import Note
from cope.adapters.postgres.publish import publish
from cope.adapters.postgres.steps import update_steps
from cope.adapters.postgres.taskrows import TaskWrite
from cope.core.budget import AUDIT_SCOPE
from cope.core.codec import blank_payload, decode_step, encode_step, prune_step
from cope.core.ids import TaskId
from cope.core.lifecycle import TERMINAL_TASK_STATES
from cope.core.responses.form import BACKGROUND_MARK, response_id
from cope.core.responses.result import ERASED, webhook_type
from cope.core.result import error_body
from cope.core.task import StoreLevel

_ENDED = """
SELECT t.id, t.payload, ARRAY(SELECT s.data FROM steps s WHERE s.task_id = t.id ORDER BY s.at) AS steps
FROM tasks t WHERE t.id = %s AND t.project_id = %s AND t.batch_id IS NULL AND t.key_id IS DISTINCT FROM %s
  AND t.finished_at IS NOT NULL
FOR NO KEY UPDATE
"""
_ERASE = "UPDATE tasks SET payload = %s, result = %s, status = 404, body_hash = NULL, pool = NULL WHERE id = %s"


async def tell_of_ended(conn: Connection, writes: Sequence[TaskWrite]) -> None:
    """Events and webhook deliveries of the background responses among these tasks that end. A group without any live
    task's end, as almost every one is, costs nothing."""
    ended = {
        write.task.id: write for write in writes if write.task.batch_id is None and write.state in TERMINAL_TASK_STATES
    }
    if not ended:
        return
    rows = await fetch(
        conn,
        "SELECT id FROM tasks WHERE id = ANY (%s) AND payload LIKE %s ORDER BY id",
        [list(ended), f"%{BACKGROUND_MARK}%"],
    )
    notes = []
    for row in rows:
        write = ended[row["id"]]
        body = None if write.body is None else orjson.loads(write.body)
        about: dict[str, str | int | None] = {"id": response_id(TaskId(write.task.id))}
        notes.append(Note(write.task.project_id, webhook_type(write.state, body), None, write.task.id, about))
    await publish(conn, notes)


async def erase(conn: Connection, project_id: str, task_id: str) -> bool:
    """As `ApiStore.erase_live_task` describes it."""
    row = await fetch_one(conn, _ENDED, [task_id, project_id, AUDIT_SCOPE])
    if row is None:
        return False
    steps = [decode_step(data) for data in row["steps"]]
    bare = [(task_id, step.name, encode_step(prune_step(step, StoreLevel.NONE, frozenset()))) for step in steps]
    gone = orjson.dumps(error_body(ERASED)).decode()
    await conn.execute(_ERASE, [blank_payload(row["payload"]), gone, task_id])
    await conn.execute("UPDATE attempts SET answer = NULL WHERE task_id = %s AND answer IS NOT NULL", [task_id])
    await update_steps(conn, bare)
    return True
