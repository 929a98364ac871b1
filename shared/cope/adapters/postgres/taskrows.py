"""Writing task rows: one UPDATE for every task that leaves its lease or its hold in this transaction."""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from cope.adapters.postgres.counters import BatchDeltas
from cope.adapters.postgres.database import Connection
from cope.adapters.postgres.journal import Note
from cope.core.errors import ErrorInfo
from cope.core.lifecycle import TERMINAL_TASK_STATES, HoldReason, TaskState

NEVER_EXECUTED = {
    TaskState.CANCELLED: ErrorInfo("batch_cancelled", "This request was cancelled before it was executed."),
    TaskState.EXPIRED: ErrorInfo(
        "batch_expired", "This request could not be executed before the completion window expired."
    ),
}


# A payload that says nothing any more but its kind, as SQL. No JSON function reads the old one: a prompt may hold an
# escaped NUL, which Postgres refuses to look at.
WIPED = """'{"k":"' || coalesce(substring(payload from '^{"k":"([a-z]+)"'), 'math') || '","m":[],"r":"","st":"none"}'"""


@dataclass(frozen=True, slots=True)
class TaskRef:
    """Whose task it is, and what it is called outside. An audit's is internal: no event tells of it."""

    id: str
    project_id: str
    batch_id: str | None
    custom_id: str | None
    line: int
    queue: str
    hold: HoldReason | None = None
    is_audit: bool = False


@dataclass(frozen=True, slots=True)
class TaskWrite:
    """A task's next state. What is None is cleared, but `queue` and `note` stay as they were."""

    task: TaskRef
    state: TaskState
    queue: str | None = None
    delay_s: float = 0.0
    hold: HoldReason | None = None
    needed: int | None = None
    count_try: bool = False
    note: str | None = None
    body: str | None = None
    error: ErrorInfo | None = None
    status: int | None = None
    stage: int | None = None
    accepted: bool | None = None


def never_executed(task: TaskRef, state: TaskState) -> TaskWrite:
    """The end of a task that was cancelled or has expired."""
    return TaskWrite(task, state, error=NEVER_EXECUTED[state])


def encode_error(error: ErrorInfo) -> str:
    """JSON text of an error; absent keys are None."""
    data = {"code": error.code, "message": error.message, "param": error.param, "status": error.status}
    return orjson.dumps({key: value for key, value in data.items() if value is not None}).decode()


def decode_error(text: str | None) -> ErrorInfo | None:
    """The inverse of `encode_error`."""
    return None if text is None else ErrorInfo(**orjson.loads(text))


def count(writes: Sequence[TaskWrite], deltas: BatchDeltas) -> None:
    """Add ends and holds to the batches' counters."""
    for write in writes:
        delta = deltas.of(write.task.batch_id, write.task.project_id)
        if write.task.hold is not None:
            delta.held[write.task.hold] -= 1
        if write.hold is not None:
            delta.held[write.hold] += 1
        if write.state is TaskState.DONE:
            delta.done += 1
            delta.stages[write.stage or 0] += 1
        elif write.state in TERMINAL_TASK_STATES:
            delta.failed += 1
        if write.state in TERMINAL_TASK_STATES:
            delta.lines.append(write.task.line)
        if write.error is not None:
            delta.errors[write.error.code] += 1
            delta.messages.setdefault(write.error.code, write.error.message)
        goes_large = write.state not in TERMINAL_TASK_STATES and (write.queue or write.task.queue) == "large"
        delta.at_large += goes_large - (write.task.queue == "large")


def notes_of(writes: Sequence[TaskWrite]) -> list[Note]:
    """The events of tasks that end or are held."""
    notes = []
    for write in writes:
        task = write.task
        if task.is_audit:
            continue
        if write.hold is not None:
            data = {"reason": write.hold.value, "needed_nanousd": write.needed, "note": write.note}
            notes.append(Note(task.project_id, "task.held", task.batch_id, task.id, data))
        elif write.state in TERMINAL_TASK_STATES:
            code = None if write.error is None else write.error.code
            data = {"custom_id": task.custom_id, "stage": write.stage, "code": code}
            notes.append(Note(task.project_id, f"task.{write.state.value}", task.batch_id, task.id, data))
    return notes


async def write_tasks(conn: Connection, writes: Sequence[TaskWrite]) -> None:
    """Write them all. The caller holds the rows' locks."""
    if not writes:
        return
    await conn.execute(
        _WRITE,
        [
            [write.task.id for write in writes],
            [write.state.value for write in writes],
            [write.queue for write in writes],
            [write.delay_s for write in writes],
            [None if write.hold is None else write.hold.value for write in writes],
            [write.needed for write in writes],
            [write.count_try for write in writes],
            [write.note for write in writes],
            [write.body for write in writes],
            [None if write.error is None else encode_error(write.error) for write in writes],
            [write.status for write in writes],
            [write.stage for write in writes],
            [write.accepted for write in writes],
        ],
    )


# A task that goes on keeps `needed`: until its next paid call is granted, the sweep counts it against the headroom.
_WRITE = """
UPDATE tasks t SET
  state = w.state,
  queue = coalesce(w.queue, t.queue),
  hold = w.hold,
  ending = NULL,
  needed = CASE w.state WHEN 'ready' THEN t.needed WHEN 'held' THEN w.needed END,
  not_before = now() + w.delay_s * interval '1 second',
  lease_until = NULL,
  lease_owner = NULL,
  tries = t.tries + w.count_try::int,
  note = coalesce(w.note, t.note),
  result = w.result,
  error = w.error,
  status = w.status,
  stage = w.stage,
  accepted = w.accepted,
  finished_at = CASE WHEN w.state NOT IN ('ready', 'held') THEN now() END
FROM unnest(%b::text[], %b::text[], %b::text[], %s::float8[], %b::text[], %s::bigint[], %s::bool[], %b::text[],
            %b::text[], %b::text[], %s::int[], %s::smallint[], %s::bool[])
  AS w (id, state, queue, delay_s, hold, needed, count_try, note, result, error, status, stage, accepted)
WHERE t.id = w.id
"""
