"""Calls that wait in a provider's own batch, over the memory store."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from cope.adapters.memory import money
from cope.adapters.memory.journal import note
from cope.adapters.memory.tables import ProviderBatchRow, ProviderLineRow
from cope.adapters.memory.upkeep import UpkeepMixin
from cope.core.ids import AttemptId, ProviderBatchId
from cope.core.lifecycle import AttemptState, TaskState
from cope.core.parse_watch import ParseWatch
from cope.ports.provider_batches import (
    Gathered,
    GatherRequest,
    JobChange,
    ProviderJob,
    ProviderLine,
    ProviderState,
)
from cope.ports.store import GiveBack, Granted, ReserveResult


class ProviderMixin(UpkeepMixin):
    """What `ProviderBatchStore` adds to `WorkerStore`. No method awaits in between: each is one transaction."""

    async def gather(self, requests: Sequence[GatherRequest]) -> list[ReserveResult]:
        """In the order given, each in full or not at all."""
        return [self._gather(request) for request in requests]

    async def gathered(self) -> list[Gathered]:
        """What waits to be sent, by model."""
        now = self._db.now()
        found: dict[str, tuple[int, datetime]] = {}
        for line in self._db.provider_lines.values():
            if line.provider_batch is None:
                lines, oldest = found.get(line.model, (0, now))
                found[line.model] = lines + 1, min(oldest, line.gathered_at)
        return [Gathered(model, n, (now - oldest).total_seconds()) for model, (n, oldest) in sorted(found.items())]

    async def return_gathered(self, model: str, *, window_below_s: float | None) -> int:
        """All of them at once."""
        lines = self._lines(lambda line: line.model == model and line.provider_batch is None)
        due = [line for line in lines if not self._waits(line) or self._too_late(line, window_below_s)]
        await self._return(due, live=True)
        return len(due)

    async def form_provider_batch(
        self, batch_id: ProviderBatchId, model: str, *, lines: int, size: int, lease_s: float
    ) -> ProviderJob | None:
        """None where nothing can be sent."""
        total, chosen = 0, 0
        for line in self._lines(lambda line: line.model == model and line.provider_batch is None):
            if chosen < lines and total < size and self._sendable(line):
                line.provider_batch = batch_id
                total, chosen = total + len(line.order.encode()), chosen + 1
        if not chosen:
            return None
        now = self._db.now()
        row = ProviderBatchRow(batch_id, model, created_at=now, due_at=now, job_until=self._db.later(lease_s), fence=1)
        self._db.provider_batches[batch_id] = row
        return self._job(row)

    async def claim_provider_job(self, *, lease_s: float) -> ProviderJob | None:
        """The longest due one that nobody works on."""
        now = self._db.now()
        due = [
            row
            for row in self._db.provider_batches.values()
            if row.state is not ProviderState.ENDED
            and row.due_at <= now
            and (row.job_until is None or row.job_until <= now)
        ]
        if not due:
            return None
        row = min(due, key=lambda row: (row.due_at, row.id))
        row.fence += 1
        row.job_until = self._db.later(lease_s)
        return self._job(row)

    async def renew_provider_job(self, job: ProviderJob, *, lease_s: float) -> bool:
        """False if it was lost."""
        row = self._own_job(job)
        if row is not None:
            row.job_until = self._db.later(lease_s)
        return row is not None

    async def provider_lines(
        self, job: ProviderJob, *, after: AttemptId | None, limit: int, only: Sequence[AttemptId] | None = None
    ) -> list[ProviderLine]:
        """A page of unsettled lines."""
        wanted = None if only is None else set(only)
        lines = self._lines(
            lambda line: (
                line.provider_batch == job.id
                and (after is None or line.attempt_id > after)
                and (wanted is None or line.attempt_id in wanted)
            )
        )
        return [self._line(line) for line in lines[:limit]]

    async def send_provider_batch(self, job: ProviderJob, attempts: Sequence[AttemptId]) -> bool:
        """All of them, or those that can't be sent leave the batch."""
        row = self._own_job(job)
        if row is None:
            return False
        lines = self._lines(lambda line: line.provider_batch == job.id)
        sendable = [line for line in lines if self._sendable(line)]
        if len(sendable) != len(lines) or {line.attempt_id for line in lines} != set(attempts):
            for line in lines:
                if not self._wanted(line):
                    del self._db.provider_lines[line.attempt_id]
                elif line not in sendable:
                    line.provider_batch = None
            return False
        for line in lines:
            attempt = self._db.attempts[line.attempt_id]
            attempt.state, attempt.sent_at = AttemptState.SENT, self._db.now()
        row.state, row.doubt_at, row.creates = ProviderState.SUBMITTING, self._db.now(), row.creates + 1
        return True

    async def change_provider_job(self, job: ProviderJob, change: JobChange) -> bool:
        """False if it was lost."""
        row = self._own_job(job)
        if row is None:
            return False
        row.state = change.state or row.state
        row.file_id = change.file_id or row.file_id
        row.provider_id = change.provider_id or row.provider_id
        row.status = row.status if change.status is None else change.status
        row.polls = row.polls if change.polls is None else change.polls
        row.note = change.note or row.note
        if change.doubt is not None:
            row.doubt_at = self._db.now() if change.doubt else None
            row.creates += change.doubt
        if change.cancelling:
            row.cancelling_at = row.cancelling_at or self._db.now()
        if change.delay_s is not None:
            row.due_at, row.job_until = self._db.later(change.delay_s), None
        return True

    async def close_provider_lines(self, job: ProviderJob, attempts: Sequence[AttemptId]) -> bool:
        """False if the job was lost."""
        if self._own_job(job) is None:
            return False
        for attempt_id in attempts:
            self._db.provider_lines.pop(attempt_id, None)
        return True

    async def disband_provider_batch(self, job: ProviderJob, *, live: bool) -> bool:
        """False if the job was lost."""
        row = self._own_job(job)
        if row is None:
            return False
        await self._return(self._lines(lambda line: line.provider_batch == job.id), live=live)
        row.state, row.job_until = ProviderState.ENDED, None
        return True

    def _gather(self, request: GatherRequest) -> ReserveResult:
        result = money.reserve(self._db, request.reserve)
        if isinstance(result, Granted):
            asked, row = request.reserve, self._db.tasks[request.reserve.task_id]
            row.state, row.lease_until = TaskState.SUBMITTED, None
            self._db.provider_lines[result.attempt_id] = ProviderLineRow(
                result.attempt_id, row.id, row.fence, asked.model, asked.step, request.order, self._db.now()
            )
            about = {"step": asked.step, "model": asked.model}
            note(self._db, row.project_id, "task.submitted", batch_id=row.batch_id, task_id=row.id, **about)
        return result

    async def _return(self, lines: Sequence[ProviderLineRow], *, live: bool) -> None:
        for line in lines:
            off = line.step if live else ""
            await self.give_back(
                [GiveBack(line.task_id, line.fence, released=(line.attempt_id,), submitted=True, batch_off=off)]
            )
            self._db.provider_lines.pop(line.attempt_id, None)

    def _lines(self, wanted: Callable[[ProviderLineRow], bool]) -> list[ProviderLineRow]:
        return sorted(
            (line for line in self._db.provider_lines.values() if wanted(line)), key=lambda line: line.attempt_id
        )

    def _waits(self, line: ProviderLineRow) -> bool:
        task = self._db.tasks[line.task_id]
        return task.state is TaskState.SUBMITTED and task.fence == line.fence

    def _wanted(self, line: ProviderLineRow) -> bool:
        return self._waits(line) and self._db.tasks[line.task_id].ending is None

    def _sendable(self, line: ProviderLineRow) -> bool:
        task = self._db.tasks[line.task_id]
        owner = None if task.batch_id is None else self._db.batches[task.batch_id]
        waits = owner is not None and (owner.batch.paused or owner.watch is ParseWatch.PAUSED)
        open_ = owner is None or (not waits and owner.ending is None)
        return self._wanted(line) and open_ and self._db.working(task.project_id)

    def _too_late(self, line: ProviderLineRow, below: float | None) -> bool:
        left = self._db.window_left_s(self._db.tasks[line.task_id])
        return below is None or (left is not None and left < below)

    def _line(self, line: ProviderLineRow) -> ProviderLine:
        task = replace(self._claimed(self._db.tasks[line.task_id]), fence=line.fence)
        reserved = self._db.attempts[line.attempt_id].reserved
        return ProviderLine(line.attempt_id, task, line.step, reserved, line.order, self._waits(line))

    def _own_job(self, job: ProviderJob) -> ProviderBatchRow | None:
        row = self._db.provider_batches[job.id]
        held = row.fence == job.fence and row.job_until is not None and row.state is not ProviderState.ENDED
        return row if held else None

    def _job(self, row: ProviderBatchRow) -> ProviderJob:
        now = self._db.now()
        lines = self._lines(lambda line: line.provider_batch == row.id)
        waiting = [line for line in lines if self._waits(line)]
        windows = [self._db.window_left_s(self._db.tasks[line.task_id]) for line in waiting]
        return ProviderJob(
            id=row.id,
            model=row.model,
            state=row.state,
            fence=row.fence,
            file_id=row.file_id,
            provider_id=row.provider_id,
            status=row.status,
            created_at=row.created_at,
            unsettled=len(lines),
            waiting=len(waiting),
            wanted=sum(1 for line in waiting if self._wanted(line)),
            window_left_s=min((left for left in windows if left is not None), default=None),
            doubt_s=None if row.doubt_at is None else (now - row.doubt_at).total_seconds(),
            cancel_s=None if row.cancelling_at is None else (now - row.cancelling_at).total_seconds(),
            polls=row.polls,
            creates=row.creates,
        )
