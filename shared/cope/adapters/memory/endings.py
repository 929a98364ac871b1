"""How tasks and batches end: the only place where a terminal state is set."""

from dataclasses import replace

import orjson

from cope.adapters.memory import money
from cope.adapters.memory.journal import note, publish
from cope.adapters.memory.standstill import end_hold, refresh
from cope.adapters.memory.tables import BatchRow, Tables, TaskRow
from cope.core.errors import ErrorInfo
from cope.core.lifecycle import AttemptState, BatchStatus, TaskState
from cope.core.records import Batch
from cope.core.responses.form import response_id
from cope.core.responses.result import webhook_type
from cope.core.retention import prune_history
from cope.ports.store import ToDone, ToFailed

NEVER_EXECUTED = {
    TaskState.CANCELLED: ErrorInfo("batch_cancelled", "This request was cancelled before it was executed."),
    TaskState.EXPIRED: ErrorInfo(
        "batch_expired", "This request could not be executed before the completion window expired."
    ),
}


def end_done(db: Tables, row: TaskRow, outcome: ToDone) -> None:
    """The task has its answer."""
    if outcome.cached:
        row.new = row.new._replace(pool=None)
    row.stage, row.accepted, row.status, row.body = outcome.stage, outcome.accepted, 200, outcome.body
    _end(db, row, TaskState.DONE)


def end_failed(db: Tables, row: TaskRow, outcome: ToFailed) -> None:
    """The task ends in the error file."""
    row.status, row.body, row.error = outcome.status, outcome.body, outcome.error
    _end(db, row, TaskState.FAILED)


def end_unexecuted(db: Tables, row: TaskRow, state: TaskState) -> None:
    """Cancelled or expired."""
    row.error = NEVER_EXECUTED[state]
    _end(db, row, state)


def end_moved(db: Tables, row: TaskRow, error: ErrorInfo) -> None:
    """A held line that a retry takes over."""
    row.error = error
    _end(db, row, TaskState.CANCELLED)


def end_or_wait(db: Tables, row: TaskRow, state: TaskState) -> bool:
    """End the task as `state` now, unless a paid call is under way: then once that call has committed.

    True if it ended now. Its reservations that were never sent are given back. The fence stays: the worker's commit
    must learn that the task was cancelled, not that somebody else has it.
    """
    if row.state in {TaskState.LEASED, TaskState.SUBMITTED} and any(db.attempts_of(row, AttemptState.SENT)):
        row.ending = state
        return False
    for attempt in list(db.attempts_of(row, AttemptState.RESERVED)):
        money.release(db, attempt)
    end_unexecuted(db, row, state)
    return True


def close_batch(db: Tables, owner: BatchRow, state: TaskState) -> int:
    """No further step of this batch is begun; how many of its tasks ended at once."""
    owner.ending = state
    owner.batch = replace(owner.batch, open=False)
    refresh(db, owner)
    unfinished = unfinished_tasks(db, owner)
    if not unfinished:
        begin_finalizing(db, owner)
    return sum(end_or_wait(db, row, state) for row in unfinished)


def unfinished_tasks(db: Tables, owner: BatchRow) -> list[TaskRow]:
    """This batch's tasks that have not ended."""
    return [row for row in db.batch_tasks.get(owner.batch.id, ()) if not row.ended]


def _end(db: Tables, row: TaskRow, state: TaskState) -> None:
    end_hold(db, row, state)
    row.needed = None
    row.lease_until = None
    row.finished_at = db.now()
    row.history = prune_history(row.spec, row.history)
    note(
        db,
        row.project_id,
        f"task.{state.value}",
        batch_id=row.batch_id,
        task_id=row.id,
        custom_id=row.new.custom_id,
        stage=row.stage,
        code=row.error.code if row.error else None,
    )
    if row.batch_id is None:
        _tell_of_response(db, row)
        return
    owner = db.batches[row.batch_id]
    owner.unfinished -= 1
    owner.ended += 1
    row.rank = owner.ended
    owner.batch = _counted(owner.batch, row)
    if owner.unfinished == 0:
        begin_finalizing(db, owner)


def _tell_of_response(db: Tables, row: TaskRow) -> None:
    form = row.spec.form
    if form is not None and form.background and not row.is_audit:
        type_ = webhook_type(row.state, None if row.body is None else orjson.loads(row.body))
        publish(db, row.project_id, type_, data={"id": response_id(row.id)}, task_id=row.id)


def _counted(batch: Batch, row: TaskRow) -> Batch:
    done = row.state is TaskState.DONE
    stage = str(row.stage) if done else "failed"
    errors, messages = dict(batch.error_counts), dict(batch.error_messages)
    if row.error is not None:
        errors[row.error.code] = errors.get(row.error.code, 0) + 1
        messages.setdefault(row.error.code, row.error.message)
    return replace(
        batch,
        done=batch.done + done,
        failed=batch.failed + (not done),
        by_stage={**batch.by_stage, stage: batch.by_stage.get(stage, 0) + 1},
        error_counts=errors,
        error_messages=messages,
    )


def begin_finalizing(db: Tables, owner: BatchRow) -> None:
    """Its last task has ended: only its files are wanting. An open batch waits for further lines instead."""
    # A cancelled batch shows `cancelling` until its files are there, as OpenAI's does.
    if owner.batch.status is BatchStatus.IN_PROGRESS and not owner.batch.open:
        owner.batch = replace(owner.batch, status=BatchStatus.FINALIZING, finalizing_at=db.now())
        note(db, owner.batch.project_id, "batch.finalizing", batch_id=owner.batch.id, id=owner.batch.id)
