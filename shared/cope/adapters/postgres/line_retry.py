"""Lines taken up again: what can be, and the one transaction that takes them over from their batch."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from cope.adapters.postgres.claim import Policies
from cope.adapters.postgres.counters import BatchDeltas
from cope.adapters.postgres.database import Connection, Row, fetch, fetch_one
from cope.adapters.postgres.ingest import JobLost, Pages, begin, put_policy, stride_of
from cope.adapters.postgres.journal import write_notes
from cope.adapters.postgres.money import Books
from cope.adapters.postgres.settlement import close_books
from cope.adapters.postgres.steps import insert_steps, prune_ended
from cope.adapters.postgres.taskrows import TaskRef, TaskWrite, count, notes_of, write_tasks
from cope.core.codec import decode_step, encode_step
from cope.core.ids import TaskId
from cope.core.lifecycle import HoldReason, TaskState
from cope.core.line_retry import LineRetry, Retryable, decode_line_retry, moved
from cope.core.task import OnBudget
from cope.ports.store import BatchJob, MakeRetried, OldLine

_AT_ONCE = 200

# No JSON function may read a result (it may hold an escaped NUL), and none need: a quote in any text of it is escaped.
CAN_BE_RETRIED = """
  t.retried_in IS NULL AND t.ending IS NULL AND (t.state = ANY (%(states)s)
    OR %(degraded)s AND t.state = 'done' AND NOT t.accepted AND t.result LIKE '%%"degraded":true%%')
"""

# What `store: none` leaves of a payload once the batch's files are written.
TEXT_IS_GONE = """t.payload LIKE '%%"m":[],"r":"","st":"none"}'"""

_LINES = f"""
SELECT t.id, t.line, t.custom_id, t.payload, p.spec AS policy, t.seed, t.priority, t.on_budget, t.state, t.queue,
  t.hold, t.project_id, t.batch_id, ARRAY(SELECT s.data FROM steps s WHERE s.task_id = t.id ORDER BY s.at) AS steps,
  ARRAY(SELECT a.answer FROM attempts a WHERE a.task_id = t.id AND a.answer IS NOT NULL ORDER BY a.id) AS late
FROM tasks t JOIN policies p ON p.id = t.policy_id
WHERE t.batch_id = %(parent)s AND t.line > %(after)s AND {CAN_BE_RETRIED}
  AND (%(custom_ids)s::text[] IS NULL OR t.custom_id = ANY (%(custom_ids)s))
ORDER BY t.line LIMIT {_AT_ONCE} FOR NO KEY UPDATE OF t
"""  # noqa: S608


def wanted(retry: LineRetry) -> dict[str, Any]:
    """The parameters of `CAN_BE_RETRIED` and of a selection by custom id."""
    return {
        "parent": retry.parent,
        "states": sorted(retry.lines - {Retryable.DEGRADED}),
        "degraded": Retryable.DEGRADED in retry.lines,
        "custom_ids": None if retry.custom_ids is None else list(retry.custom_ids),
    }


async def line_retry(conn: Connection, job: BatchJob) -> LineRetry:
    """What this batch takes up again."""
    row = await fetch_one(conn, "SELECT lines FROM batch_retries WHERE batch_id = %s", [job.batch.id])
    assert row is not None
    return decode_line_retry(row["lines"])


async def take_lines(
    conn: Connection, policies: Policies, job: BatchJob, make: MakeRetried, *, expires_in: timedelta | None
) -> int:
    """How many were taken over; with 0 nothing was written. Raises `JobLost` (roll back) or whatever `make` raises.

    Tasks are locked in the order of their lines, then the parent's row, then the retry's.
    """
    child = job.batch
    retry = await line_retry(conn, job)
    deltas, after = BatchDeltas(), -1
    async with Pages(conn, child, await stride_of(conn, child.project_id, expires_in)) as pages:
        while rows := await fetch(conn, _LINES, {**wanted(retry), "after": after}):
            after = rows[-1]["line"]
            made = make([_old_line(row) for row in rows])
            await pages.write([task for task, _ in made])
            await pages.rest()
            await insert_steps(
                conn, [(task.task_id, step.name, encode_step(step)) for task, steps in made for step in steps]
            )
            await conn.execute(
                "UPDATE tasks SET retried_in = %s WHERE id = ANY (%s)", [child.id, [row["id"] for row in rows]]
            )
            await _end_held(conn, policies, [row for row in rows if row["state"] == "held"], job, deltas)
            if len(rows) < _AT_ONCE:
                break
    if not pages.count:
        return 0
    for text in pages.policies:
        await put_policy(conn, text)
    await close_books(conn, Books(), deltas)
    if not await begin(conn, job, total=pages.count, large=pages.large, model=child.model, expires_in=expires_in):
        raise JobLost
    return pages.count


async def _end_held(
    conn: Connection, policies: Policies, rows: Sequence[Row], job: BatchJob, deltas: BatchDeltas
) -> None:
    if not rows:
        return
    writes = [
        TaskWrite(
            TaskRef(
                *(row["id"], row["project_id"], row["batch_id"], row["custom_id"], row["line"], row["queue"]),
                hold=HoldReason(row["hold"]),
            ),
            TaskState.CANCELLED,
            error=moved(job.batch.id),
        )
        for row in rows
    ]
    await write_tasks(conn, writes)
    await prune_ended(conn, policies, [write.task.id for write in writes])
    await write_notes(conn, notes_of(writes))
    count(writes, deltas)


def _old_line(row: Row) -> OldLine:
    return OldLine(
        task_id=TaskId(row["id"]),
        line=row["line"],
        custom_id=row["custom_id"],
        payload=row["payload"],
        policy=row["policy"],
        seed=row["seed"],
        priority=row["priority"],
        on_budget=OnBudget(row["on_budget"]),
        history=tuple(decode_step(step) for step in row["steps"]),
        late=tuple(decode_step(answer) for answer in row["late"]),
        whole=row["state"] == "held",
    )
