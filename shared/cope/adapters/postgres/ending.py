"""Cancel and expire: tasks end at once unless a paid call is under way; then when that call has committed."""

from collections.abc import Sequence

from cope.adapters.postgres.claim import Policies
from cope.adapters.postgres.counters import BatchDeltas
from cope.adapters.postgres.database import Connection, Row, fetch
from cope.adapters.postgres.journal import write_notes
from cope.adapters.postgres.money import Books, lock_open_attempts
from cope.adapters.postgres.responses import tell_of_ended
from cope.adapters.postgres.settlement import close_books
from cope.adapters.postgres.steps import prune_ended
from cope.adapters.postgres.taskrows import TaskRef, count, never_executed, notes_of, write_tasks
from cope.core.lifecycle import AttemptState, HoldReason, TaskState

AT_ONCE = 10_000
"""Tasks ended in one transaction. A larger batch's other tasks are no longer claimed and end with the next sweeps."""

# A task that someone else has locked is left to the next sweep: waiting for it here could turn the lock order round.
_OF_BATCH = """
SELECT id, project_id, batch_id, custom_id, state, hold, fence FROM tasks
WHERE batch_id = %(of)s AND state IN ('ready', 'leased', 'held', 'submitted') AND ending IS NULL
ORDER BY line LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
"""

_LIVE_CALL = """
SELECT id, project_id, batch_id, custom_id, state, hold, fence FROM tasks
WHERE id = %(of)s AND batch_id IS NULL AND state IN ('ready', 'leased', 'held', 'submitted') AND ending IS NULL
LIMIT %(limit)s FOR NO KEY UPDATE
"""


async def end_batch_tasks(conn: Connection, batch_id: str, state: TaskState, *, limit: int = AT_ONCE) -> int:
    """End up to `limit` unfinished tasks of a batch as `state`; how many were looked at."""
    rows = await fetch(conn, _OF_BATCH, {"of": batch_id, "limit": limit})
    await _end(conn, rows, state)
    return len(rows)


async def end_live_call(conn: Connection, task_id: str, state: TaskState) -> None:
    """End a task that is part of no batch; one that has ended stays as it is."""
    await _end(conn, await fetch(conn, _LIVE_CALL, {"of": task_id, "limit": 1}), state)


async def _end(conn: Connection, rows: Sequence[Row], state: TaskState) -> None:
    if not rows:
        return
    calling = [row["id"] for row in rows if row["state"] in {"leased", "submitted"}]
    attempts = await lock_open_attempts(conn, calling) if calling else []
    paying = {attempt.task_id for attempt in attempts if attempt.state is AttemptState.SENT}
    books = Books(attempts)
    for attempt in attempts:
        if attempt.task_id not in paying:
            books.release(attempt.id)
    writes = [never_executed(_ref(row), state) for row in rows if row["id"] not in paying]
    if paying:
        await conn.execute("UPDATE tasks SET ending = %s WHERE id = ANY (%s)", [state.value, sorted(paying)])
    await write_tasks(conn, writes)
    await prune_ended(conn, Policies(), [write.task.id for write in writes])
    await write_notes(conn, notes_of(writes))
    await tell_of_ended(conn, writes)
    deltas = BatchDeltas()
    count(writes, deltas)
    await close_books(conn, books, deltas)


def _ref(row: Row) -> TaskRef:
    hold = None if row["hold"] is None else HoldReason(row["hold"])
    return TaskRef(row["id"], row["project_id"], row["batch_id"], row["custom_id"], hold)
