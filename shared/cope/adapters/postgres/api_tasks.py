"""Tasks and live calls."""

from collections.abc import Sequence

import orjson

from cope.adapters.postgres.api_open_batches import ApiOpenBatches
from cope.adapters.postgres.claim import LIVE_FIRST
from cope.adapters.postgres.database import Connection, Row, fetch, fetch_one, in_index_order
from cope.adapters.postgres.ending import end_live_call
from cope.adapters.postgres.ingest import current_turn, put_policy
from cope.adapters.postgres.journal import Note, write_notes
from cope.adapters.postgres.paging import page_of
from cope.adapters.postgres.records import attempt_of, task_of
from cope.adapters.postgres.responses import erase
from cope.adapters.postgres.taskrows import NEVER_EXECUTED, decode_error
from cope.core.ids import BatchId, ProjectId, TaskId
from cope.core.lifecycle import TaskState
from cope.core.records import TaskDetail
from cope.core.result import error_body
from cope.ports.store import LiveResult, NewLiveTask, Page

_CLIENT_CLOSED = 499

# The tasks are chosen before anything is joined to them: else a page of 20 may read the steps of the whole batch.
_DETAIL = """
SELECT t.*, p.spec, ARRAY(SELECT s.data FROM steps s WHERE s.task_id = t.id ORDER BY s.at) AS steps,
  pb.state AS provider_state, pb.provider_id, pb.status AS provider_status
FROM {chosen} t JOIN policies p ON p.id = t.policy_id
LEFT JOIN provider_lines pl ON t.state = 'submitted' AND pl.task_id = t.id AND pl.fence = t.fence
LEFT JOIN provider_batches pb ON pb.id = pl.provider_batch
"""

_ONE = "(SELECT * FROM tasks WHERE id = %s AND project_id = %s)"

_LISTED = """(
  SELECT * FROM tasks WHERE project_id = %(project)s AND batch_id = %(batch)s
    AND line > coalesce((SELECT line FROM tasks WHERE id = %(after)s), -1) ANY STATE ORDER BY line LIMIT %(limit)s)
"""

_JOINABLE = """
SELECT id FROM tasks WHERE project_id = %s AND body_hash = %s AND batch_id IS NULL AND ending IS NULL
  AND state <> 'cancelled' AND (finished_at IS NULL OR finished_at >= now() - interval '15 minutes')
ORDER BY id DESC LIMIT 1
"""


class ApiTasks(ApiOpenBatches):
    """What a project's key may do with tasks."""

    async def get_task(self, project_id: ProjectId, task_id: TaskId) -> TaskDetail | None:
        """This project's task, or None."""
        async with self._db.transaction(project=project_id) as conn:
            rows = await fetch(conn, _DETAIL.format(chosen=_ONE), [task_id, project_id])
            details = await _with_attempts(conn, rows)
        return details[0] if details else None

    async def list_tasks(
        self, project_id: ProjectId, batch_id: BatchId, *, state: str | None, after: TaskId | None, limit: int
    ) -> Page[TaskDetail]:
        """In the order of the input lines."""
        # Written out, so that the few that failed are found by their own index and not among all of them.
        listed = _LISTED.replace("ANY STATE", "" if state is None else f"AND state = '{TaskState(state).value}'")
        async with self._db.transaction(project=project_id) as conn:
            asked = {"project": project_id, "batch": batch_id, "after": after, "limit": limit + 1}
            async with in_index_order(conn):
                rows = await fetch(conn, _DETAIL.format(chosen=listed), asked)
            rows.sort(key=lambda row: row["line"])
            return page_of(await _with_attempts(conn, rows), limit)

    async def create_live_task(self, new: NewLiveTask) -> TaskId:
        """The new task's id, or that of the one it joins."""
        async with self._db.transaction(project=new.project_id) as conn:
            if new.is_retry:
                joined = await fetch_one(conn, _JOINABLE, [new.project_id, new.body_hash])
                if joined is not None:
                    return TaskId(joined["id"])
            task = new.task
            priority = LIVE_FIRST + task.priority
            policy = await put_policy(conn, task.policy)
            await conn.execute(
                """
                INSERT INTO tasks (id, project_id, key_id, policy_id, queue, on_budget, custom_id, turn, seed, priority,
                                   line, payload, body_hash, pool)
                VALUES (%s, %s, %s, %s, %s, %s, NULL, %s, %s, %s, %s, %s, %s, %s)
                """,
                [
                    task.task_id,
                    new.project_id,
                    new.key_id,
                    policy,
                    task.queue,
                    task.on_budget.value,
                    await current_turn(conn, task.queue, priority),
                    task.seed,
                    priority,
                    task.line,
                    task.payload,
                    new.body_hash,
                    task.pool,
                ],
            )
            await write_notes(conn, [Note(new.project_id, "task.created", task_id=task.task_id)])
        return task.task_id

    async def live_results(self, task_ids: Sequence[TaskId]) -> list[LiveResult]:
        """In the order asked for."""
        if not task_ids:
            return []
        async with self._db.transaction(live_ids=",".join(task_ids)) as conn:
            rows = await fetch(
                conn,
                """
                SELECT id, state, status, result, error FROM tasks
                WHERE id = ANY (%s) AND batch_id IS NULL AND finished_at IS NOT NULL
                """,
                [list(task_ids)],
            )
        ended = {row["id"]: row for row in rows}
        return [_live_result(ended[task_id]) for task_id in task_ids if task_id in ended]

    async def cancel_live_task(self, project_id: ProjectId, task_id: TaskId) -> None:
        """A task that has ended, or is part of a batch, stays as it is."""
        async with self._db.transaction(project=project_id) as conn:
            await end_live_call(conn, task_id, TaskState.CANCELLED)

    async def erase_live_task(self, project_id: ProjectId, task_id: TaskId) -> bool:
        """An audit's own task is not one."""
        async with self._db.transaction(project=project_id) as conn:
            return await erase(conn, project_id, task_id)


async def _with_attempts(conn: Connection, rows: Sequence[Row]) -> list[TaskDetail]:
    attempts = await fetch(
        conn, "SELECT * FROM attempts WHERE task_id = ANY (%s) ORDER BY id", [[row["id"] for row in rows]]
    )
    return [task_of(row, tuple(attempt_of(a) for a in attempts if a["task_id"] == row["id"])) for row in rows]


def _live_result(row: Row) -> LiveResult:
    if row["result"] is not None and row["status"] is not None:
        return LiveResult(TaskId(row["id"]), row["status"], row["result"])
    error = decode_error(row["error"]) or NEVER_EXECUTED[TaskState(row["state"])]
    return LiveResult(TaskId(row["id"]), _CLIENT_CLOSED, orjson.dumps(error_body(error)).decode())
