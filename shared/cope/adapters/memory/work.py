"""The worker's side of the memory store: claim, renew, spend, commit, give back."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from heapq import nsmallest
from typing import assert_never

from cope.adapters.memory import audits, money
from cope.adapters.memory.endings import end_done, end_failed, end_unexecuted
from cope.adapters.memory.journal import note
from cope.adapters.memory.standstill import begin_hold
from cope.adapters.memory.tables import Tables, TaskRow
from cope.core.history import FinishedStep, step_named
from cope.core.ids import AttemptId, TaskId
from cope.core.lifecycle import HoldReason, TaskState
from cope.core.parse_watch import ParseWatch, verdict
from cope.core.stages import Tier
from cope.ports.store import (
    ClaimedTask,
    CommitStatus,
    GiveBack,
    Lease,
    ReserveRequest,
    ReserveResult,
    Settlement,
    StepCommit,
    ToDone,
    ToFailed,
    ToQueue,
)

_ALONE_FROM_CRASHES = 2
_DUE_SHOWN = 1000
_UNDONE = {TaskState.CANCELLED, TaskState.EXPIRED}
_AT_WORK = {TaskState.LEASED, TaskState.SUBMITTED}


class WorkMixin:
    """The straight line of a task, as `WorkerStore` describes it. No method awaits: each is one transaction."""

    def __init__(self, db: Tables) -> None:
        self._db = db

    async def claim(self, queue: str, *, worker: str, limit: int, lease_s: float) -> list[ClaimedTask]:
        """`worker` is for looking at only."""
        if limit < 1:
            return []
        first = nsmallest(1, self._db.due_tasks(queue), key=_order)
        if first and first[0].crashes < _ALONE_FROM_CRASHES:
            healthy = (row for row in self._db.due_tasks(queue) if row.crashes < _ALONE_FROM_CRASHES)
            first = nsmallest(limit, healthy, key=_order)
        return [self._lease(row, lease_s) for row in first]

    async def renew(self, leases: Sequence[Lease], *, lease_s: float) -> set[TaskId]:
        """The leases that are lost; the others now last `lease_s` from now."""
        lost = set()
        for lease in leases:
            row = self._db.tasks.get(lease.task_id)
            if row is None or row.state is not TaskState.LEASED or row.fence != lease.fence:
                lost.add(lease.task_id)
            else:
                row.lease_until = self._db.later(lease_s)
        return lost

    async def lost(self, leases: Sequence[Lease]) -> set[TaskId]:
        """Those that are not to go on."""
        return {lease.task_id for lease in leases if not self._goes_on(lease)}

    def _goes_on(self, lease: Lease) -> bool:
        row = self._db.tasks.get(lease.task_id)
        if row is None or row.state is not TaskState.LEASED or row.fence != lease.fence:
            return False
        return row.batch_id is None or self._db.batches[row.batch_id].ending is None

    async def reserve(self, requests: Sequence[ReserveRequest]) -> list[ReserveResult]:
        """In the order given, each in full or not at all."""
        return [money.reserve(self._db, request) for request in requests]

    async def mark_sent(self, attempts: Sequence[AttemptId]) -> set[AttemptId]:
        """Those that may now be called."""
        return {attempt_id for attempt_id in attempts if money.mark_sent(self._db, attempt_id)}

    async def commit(self, commits: Sequence[StepCommit]) -> list[CommitStatus]:
        """One status per commit, in order."""
        return [self._commit(commit) for commit in commits]

    async def give_back(self, returns: Sequence[GiveBack]) -> None:
        """Ready again, held, or ended where the task was cancelled meanwhile."""
        for back in returns:
            self._book(back.settlements, back.released)
            row = self._db.tasks.get(back.task_id)
            at = TaskState.SUBMITTED if back.submitted else TaskState.LEASED
            if row is None or row.state is not at or row.fence != back.fence:
                continue
            row.batch_off = back.batch_off or row.batch_off
            row.tries += back.count_try
            row.lease_until = None
            row.not_before = self._db.later(back.delay_s)
            row.state = TaskState.READY
            if row.ending is not None:
                end_unexecuted(self._db, row, row.ending)
            elif back.hold is not None:
                begin_hold(self._db, row, back.hold, back.needed)
                note(
                    self._db,
                    row.project_id,
                    "task.held",
                    batch_id=row.batch_id,
                    task_id=row.id,
                    reason=back.hold.value,
                    needed_nanousd=back.needed,
                    note=back.note,
                )

    async def store_late_answer(self, settlement: Settlement, answer: str) -> None:
        """Settled once; the answer waits for the next attempt of the same step."""
        money.keep_reconciled_answer(self._db, settlement, answer)
        money.settle(self._db, settlement, answer)

    async def due(self) -> Mapping[str, int]:
        """How much is due per queue, capped at 1,000 each; queues with nothing due are left out."""
        db, now = self._db, self._db.now()
        queues = {row.queue for row in db.tasks.values() if row.state is TaskState.READY}
        counts = {queue: sum(1 for _ in db.due_tasks(queue)) for queue in sorted(queues)}
        counts["upkeep"] = sum(1 for owner in db.batches.values() if owner.needs_upkeep and owner.job_free(now))
        counts["webhooks"] = sum(1 for row in db.deliveries.values() if not row.over and row.due_at <= now)
        return {queue: min(count, _DUE_SHOWN) for queue, count in counts.items() if count}

    def _lease(self, row: TaskRow, lease_s: float) -> ClaimedTask:
        row.state = TaskState.LEASED
        row.fence += 1
        row.lease_until = self._db.later(lease_s)
        place = row.queue, row.new.priority
        self._db.turns[place] = max(self._db.turns[place], row.turn)
        return self._claimed(row)

    def _claimed(self, row: TaskRow) -> ClaimedTask:
        return ClaimedTask(
            spec=row.spec,
            history=row.history,
            project_id=row.project_id,
            batch_id=row.batch_id,
            key_id=row.key_id,
            fence=row.fence,
            tries=row.tries,
            crashes=row.crashes,
            lease_until=row.lease_until or self._db.now(),
            window_left_s=self._db.window_left_s(row),
            batch_off=row.batch_off,
        )

    def _commit(self, commit: StepCommit) -> CommitStatus:
        row = self._db.tasks.get(commit.task_id)
        if row is None or row.fence != commit.fence:
            return CommitStatus.FENCED
        if row.state in _UNDONE:
            self._book(commit.settlements, commit.released)
            return CommitStatus.CANCELLED
        done_before = commit.finished is not None and step_named(row.history, commit.finished.name) is not None
        if row.state not in _AT_WORK or done_before:
            return CommitStatus.FENCED
        if commit.finished is not None:
            self._keep_step(row, commit.finished)
            self._watch(row, commit.parses)
        self._book(commit.settlements, commit.released)
        row.lease_until = None
        row.state = TaskState.READY
        match commit.next:
            case ToQueue(queue):
                if row.ending is not None:
                    end_unexecuted(self._db, row, row.ending)
                    return CommitStatus.CANCELLED
                row.queue, row.not_before = queue, self._db.now()
            case ToDone():
                end_done(self._db, row, commit.next)
                audits.close(self._db, row, commit.finished, None)
                if commit.audit is not None:
                    audits.consider(self._db, row, commit.audit)
            case ToFailed():
                end_failed(self._db, row, commit.next)
                audits.close(self._db, row, commit.finished, commit.next.error.code)
            case _:
                assert_never(commit.next)
        return CommitStatus.COMMITTED

    def _keep_step(self, row: TaskRow, step: FinishedStep) -> None:
        row.history = (*row.history, step)
        note(
            self._db,
            row.project_id,
            "task.step_finished",
            batch_id=row.batch_id,
            task_id=row.id,
            step=step.name,
            stage=int(step.stage),
            cost_nanousd=step.cost,
        )
        if row.batch_id is not None:
            owner = self._db.batches[row.batch_id]
            owner.small_steps += step.tier is Tier.SMALL
            owner.large_steps += step.tier is Tier.LARGE
            owner.batch = replace(
                owner.batch,
                prompt_tokens=owner.batch.prompt_tokens + step.usage.prompt,
                cached_tokens=owner.batch.cached_tokens + step.usage.cached,
                completion_tokens=owner.batch.completion_tokens + step.usage.completion,
                reasoning_tokens=owner.batch.reasoning_tokens + step.usage.reasoning,
            )

    def _watch(self, row: TaskRow, parses: bool | None) -> None:
        if parses is None or row.batch_id is None:
            return
        owner = self._db.batches[row.batch_id]
        owner.judged += 1
        owner.parsed += parses
        if owner.watch is ParseWatch.WATCHING:
            may_pause = self._db.project(row.project_id).pause_unparsable
            owner.watch = verdict(owner.judged, owner.parsed, may_pause=may_pause)
            if owner.watch is ParseWatch.PAUSED:
                why = HoldReason.UNPARSABLE.value
                note(self._db, row.project_id, "batch.paused", batch_id=row.batch_id, id=row.batch_id, reason=why)

    def _book(self, settlements: tuple[Settlement, ...], released: tuple[AttemptId, ...]) -> None:
        for settlement in settlements:
            money.settle(self._db, settlement)
        money.release_all(self._db, released)


def _order(row: TaskRow) -> tuple[bool, int, int, TaskId]:
    return row.order
