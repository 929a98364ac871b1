"""Cancel and expire: tasks end at once unless a paid call is under way; then when that call has committed."""

import time
from collections.abc import Sequence

from cope.adapters.postgres.claim import Policies
from cope.adapters.postgres.counters import BatchDeltas
from cope.adapters.postgres.database import Connection, Row, fetch, in_index_order
from cope.adapters.postgres.journal import write_notes
from cope.adapters.postgres.money import Books, lock_open_attempts
from cope.adapters.postgres.responses import tell_of_ended
from cope.adapters.postgres.settlement import close_books
from cope.adapters.postgres.steps import prune_ended
from cope.adapters.postgres.taskrows import TaskRef, count, never_executed, notes_of, write_tasks
from cope.core.lifecycle import AttemptState, HoldReason, TaskState

AT_ONCE = 10_000
"""Tasks ended in one transaction. A larger batch's other tasks are no longer claimed and end with the next sweeps."""

_PAUSE_PER_LINE_S = 1e-5

# A task that someone else has locked is left to the next sweep: waiting for it here could turn the lock order round.
_OF_BATCH = """
SELECT id, project_id, batch_id, custom_id, line, queue, state, hold, fence FROM tasks
WHERE batch_id = %(of)s AND line > %(after)s AND state IN ('ready', 'leased', 'held', 'submitted')
  AND ending IS NULL
ORDER BY line LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
"""

_LIVE_CALL = """
SELECT id, project_id, batch_id, custom_id, line, queue, state, hold, fence FROM tasks
WHERE id = %(of)s AND batch_id IS NULL AND state IN ('ready', 'leased', 'held', 'submitted') AND ending IS NULL
LIMIT %(limit)s FOR NO KEY UPDATE
"""


class EndWatch:
    """When a batch that is to end is walked through next. What is left after a walk waits for a paid call, for a day
    with a provider's batch: walking past a million ended lines each second to find nothing would be in vain."""

    def __init__(self) -> None:
        self._next: dict[str, tuple[float, int]] = {}

    def due(self, batches: Sequence[Row]) -> list[tuple[Row, int]]:
        """Those to walk on through now, of all that are to end, and the line behind which to go on."""
        now = time.monotonic()
        self._next = {row["id"]: self._next.get(row["id"], (now, -1)) for row in batches}
        return [(row, self._next[row["id"]][1]) for row in batches if self._next[row["id"]][0] <= now]

    def came_to(self, batch: Row, line: int | None) -> None:
        """This far; None: to its last line."""
        pause_s = batch["total"] * _PAUSE_PER_LINE_S if line is None else 0.0
        self._next[batch["id"]] = time.monotonic() + pause_s, -1 if line is None else line


async def end_batch_tasks(
    conn: Connection, batch_id: str, state: TaskState, *, after: int = -1, limit: int = AT_ONCE
) -> int | None:
    """End up to `limit` unfinished tasks of a batch as `state`, from behind line `after` on. The line to go on from,
    None if there is no more: a next page that began at the first line would pass over all that have ended."""
    async with in_index_order(conn):
        rows = await fetch(conn, _OF_BATCH, {"of": batch_id, "after": after, "limit": limit})
    await _end(conn, rows, state)
    return rows[-1]["line"] if len(rows) == limit else None


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
    return TaskRef(
        *(row["id"], row["project_id"], row["batch_id"], row["custom_id"], row["line"], row["queue"]), hold=hold
    )
