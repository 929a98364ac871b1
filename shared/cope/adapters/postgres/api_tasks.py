"""Tasks and live calls."""

from collections.abc import Sequence

import orjson

from cope.adapters.postgres.api_open_batches import ApiOpenBatches
from cope.adapters.postgres.claim import LIVE_FIRST
from cope.adapters.postgres.database import Connection, Row, fetch, fetch_one
from cope.adapters.postgres.ending import end_live_call
from cope.adapters.postgres.ingest import current_turn, put_policy
from cope.adapters.postgres.paging import page_of
from cope.adapters.postgres.records import attempt_of, task_of
from cope.adapters.postgres.taskrows import NEVER_EXECUTED, decode_error
from cope.core.ids import BatchId, ProjectId, TaskId
from cope.core.lifecycle import TaskState
from cope.core.records import TaskDetail
from cope.core.result import error_body
from cope.ports.store import LiveResult, NewLiveTask, Page

_CLIENT_CLOSED = 499

_DETAIL = """
SELECT t.*, p.spec, ARRAY(SELECT s.data FROM steps s WHERE s.task_id = t.id ORDER BY s.at) AS steps,
  pb.state AS provider_state, pb.provider_id, pb.status AS provider_status
FROM tasks t JOIN policies p ON p.id = t.policy_id
LEFT JOIN provider_lines pl ON t.state = 'submitted' AND pl.task_id = t.id AND pl.fence = t.fence
LEFT JOIN provider_batches pb ON pb.id = pl.provider_batch
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
            rows = await fetch(conn, _DETAIL + "WHERE t.id = %s AND t.project_id = %s", [task_id, project_id])
            details = await _with_attempts(conn, rows)
        return details[0] if details else None

    async def list_tasks(
        self, project_id: ProjectId, batch_id: BatchId, *, state: str | None, after: TaskId | None, limit: int
    ) -> Page[TaskDetail]:
        """In the order of the input lines."""
        async with self._db.transaction(project=project_id) as conn:
            rows = await fetch(
                conn,
                _DETAIL  # noqa: S608
                + """
                WHERE t.project_id = %(project)s AND t.batch_id = %(batch)s
                  AND t.line > coalesce((SELECT line FROM tasks WHERE id = %(after)s), -1)
                  AND (%(state)s::text IS NULL OR t.state = %(state)s) ORDER BY t.line LIMIT %(limit)s
                """,
                {"project": project_id, "batch": batch_id, "after": after, "state": state, "limit": limit + 1},
            )
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
                                   line, payload, body_hash)
                VALUES (%s, %s, %s, %s, %s, %s, NULL, %s, %s, %s, %s, %s, %s)
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
                ],
            )
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
