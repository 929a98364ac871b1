"""Lines taken up again, over the memory store."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from cope.adapters.memory.endings import end_moved
from cope.adapters.memory.journal import note
from cope.adapters.memory.standstill import refresh
from cope.adapters.memory.tables import BatchRow, Tables, TaskRow, in_progress
from cope.core.codec import decode_step
from cope.core.fairness import stride
from cope.core.ids import ProjectId
from cope.core.lifecycle import BatchStatus, TaskState
from cope.core.line_retry import LineRetry, Retryable, moved
from cope.core.line_retry_refusals import NamedLine, refuse_lines, refuse_none, refuse_parent, refuse_texts
from cope.core.records import Batch
from cope.core.task import OnBudget
from cope.ports.store import BatchJob, MakeRetried, OldLine

_AT_ONCE = 200


class LineRetryMixin:
    """The worker's side of a retry. No method awaits: each is one transaction."""

    _db: Tables

    async def line_retry(self, job: BatchJob) -> LineRetry:
        """What a batch that is a retry takes up again."""
        retry = self._db.batches[job.batch.id].retry
        assert retry is not None
        return retry

    async def take_lines(self, job: BatchJob, make: MakeRetried, *, expires_in: timedelta | None) -> int | None:
        """Nothing is written before `make` has seen every line."""
        owner = self._db.batches[job.batch.id]
        held = owner.fence == job.fence and owner.job_until is not None
        if not held or owner.batch.status is not BatchStatus.VALIDATING or owner.retry is None:
            return None
        rows = list(chosen(self._db, owner.retry))
        made = [
            one
            for start in range(0, len(rows), _AT_ONCE)
            for one in make([_old_line(self._db, row) for row in rows[start : start + _AT_ONCE]])
        ]
        if not made:
            return 0
        batch, error = owner.batch, moved(owner.batch.id)
        step = stride(expires_in, 1 + in_progress(self._db, batch.project_id))
        for ordinal, (row, (task, history)) in enumerate(zip(rows, made, strict=True)):
            row.retried_in = batch.id
            if row.state is TaskState.HELD:
                end_moved(self._db, row, error)
            new = self._db.add_task(
                task, project_id=batch.project_id, batch_id=batch.id, key_id=batch.key_id, distance=ordinal * step
            )
            new.history = history
        begin(self._db, owner, len(made), batch.model, expires_in)
        return len(made)


def begin(db: Tables, owner: BatchRow, total: int, model: str | None, expires_in: timedelta | None) -> None:
    """The batch is in progress, or, without a line, about to end."""
    now = db.now()
    owner.unfinished = total
    owner.job_until = None
    owner.batch = replace(
        owner.batch,
        status=BatchStatus.IN_PROGRESS if total else BatchStatus.FINALIZING,
        in_progress_at=now,
        finalizing_at=None if total else now,
        expires_at=None if expires_in is None else now + expires_in,
        total=total,
        model=model,
    )
    refresh(db, owner)
    note(db, owner.batch.project_id, "batch.in_progress", batch_id=owner.batch.id, total=total)


def chosen(db: Tables, retry: LineRetry) -> Iterator[TaskRow]:
    """The parent's lines that stand as asked, in their order."""
    names = None if retry.custom_ids is None else set(retry.custom_ids)
    for row in sorted(db.batch_tasks.get(retry.parent, ()), key=lambda row: row.new.line):
        if can_be_retried(row, retry) and (names is None or row.new.custom_id in names):
            yield row


def can_be_retried(row: TaskRow, retry: LineRetry) -> bool:
    """Whether it stands as asked and nobody has taken it over."""
    if row.retried_in is not None or row.ending is not None:
        return False
    if row.state is TaskState.DONE:
        degraded = not row.accepted and '"degraded":true' in (row.body or "")
        return Retryable.DEGRADED in retry.lines and degraded
    return row.state.value in retry.lines


def check(db: Tables, project_id: ProjectId, parent: Batch, retry: LineRetry) -> None:
    """Raises what `ApiStore.retry_batch` says."""
    refuse_parent(parent)
    if retry.custom_ids is not None:
        by_name = {row.new.custom_id: row for row in db.batch_tasks.get(parent.id, ())}
        rows = [(name, by_name.get(name)) for name in retry.custom_ids]
        refuse_lines(
            [
                NamedLine(name, None if row is None else row.state.value, None if row is None else row.retried_in)
                for name, row in rows
                if row is None or not can_be_retried(row, retry)
            ]
        )
    rows_chosen = list(chosen(db, retry))
    if not rows_chosen:
        refuse_none(parent)
    if any('"m":[],"r":"","st":"none"}' in row.new.payload for row in rows_chosen):
        refuse_texts()


def _old_line(db: Tables, row: TaskRow) -> OldLine:
    answers = (attempt.answer for attempt in db.task_attempts.get(row.id, ()))
    return OldLine(
        task_id=row.id,
        line=row.new.line,
        custom_id=row.new.custom_id,
        payload=row.new.payload,
        policy=row.new.policy,
        seed=row.new.seed,
        priority=row.new.priority,
        on_budget=OnBudget(row.new.on_budget),
        history=row.history,
        late=tuple(decode_step(answer) for answer in answers if answer is not None),
        whole=row.state is TaskState.HELD,
    )
