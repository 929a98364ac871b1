"""The reading side of batches over the memory store: lines as they end, pace, and what is over."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta

from cope.adapters.memory.tables import BatchRow, Tables, TaskRow
from cope.core.eta import LOOK_BACK_S, SAMPLED_EVERY_S, PaceSample, Workload
from cope.core.ids import BatchId, ProjectId
from cope.core.lifecycle import TERMINAL_BATCH_STATUSES, BatchStatus, TaskState
from cope.ports.store import ResultLine, ResultWindow

PAGE_LINES = 500
_LAST_LINE = 2**31 - 1


class ReadingMixin:
    """What both sides read of a batch's results. No method awaits."""

    def __init__(self, db: Tables) -> None:
        self._db = db

    async def results(self, batch_id: BatchId, *, by_input: bool) -> AsyncIterator[Sequence[ResultLine]]:
        """Pages of at most 500 lines."""
        after = -1 if by_input else 0
        while lines := page(self._db, batch_id, after=after, last=_LAST_LINE, by_input=by_input):
            yield lines
            after = lines[-1].place

    async def result_window(
        self, project_id: ProjectId, batch_id: BatchId, *, after: int, limit: int, by_input: bool
    ) -> ResultWindow | None:
        """None if there is no such batch."""
        owner = self._db.batches.get(batch_id)
        if owner is None or owner.batch.project_id != project_id:
            return None
        over = owner.batch.status in {*TERMINAL_BATCH_STATUSES, BatchStatus.FINALIZING}
        over = over or (owner.ending is not None and owner.unfinished == 0)
        rows = self._db.batch_tasks.get(batch_id, [])
        if not by_input:
            last = min(owner.ended, after + limit)
            return ResultWindow(max(after, last), owner.ended, not over or owner.ended > after + limit)
        behind = sorted((row for row in rows if row.new.line > after), key=lambda row: row.new.line)
        last, taken = after, 0
        for row in behind[:limit]:
            if not row.ended:
                break
            last, taken = row.new.line, taken + 1
        return ResultWindow(last, _LAST_LINE, not over or len(behind) > taken)

    async def result_page(
        self, project_id: ProjectId, batch_id: BatchId, *, after: int, last: int, by_input: bool
    ) -> Sequence[ResultLine]:
        """At most 500 lines."""
        owner = self._db.batches.get(batch_id)
        if owner is None or owner.batch.project_id != project_id:
            return []
        return page(self._db, batch_id, after=after, last=last, by_input=by_input)

    async def paces(
        self, project_id: ProjectId, batch_ids: Sequence[BatchId]
    ) -> Mapping[BatchId, tuple[PaceSample, ...]]:
        """By time; a batch without samples is left out."""
        found = {batch_id: self._db.batches.get(batch_id) for batch_id in batch_ids}
        return {
            batch_id: tuple(owner.pace)
            for batch_id, owner in found.items()
            if owner is not None and owner.batch.project_id == project_id and owner.pace
        }

    async def ended_batches(self, batch_ids: Sequence[BatchId]) -> set[BatchId]:
        """Whoever they belong to."""
        found = (self._db.batches.get(batch_id) for batch_id in batch_ids)
        return {owner.batch.id for owner in found if owner and owner.batch.status in TERMINAL_BATCH_STATUSES}


def page(db: Tables, batch_id: BatchId, *, after: int, last: int, by_input: bool) -> list[ResultLine]:
    """The next lines that have ended."""
    rows = (row for row in db.batch_tasks.get(batch_id, ()) if row.ended)
    lines = (_line(row, row.new.line if by_input else row.rank) for row in rows)
    chosen = sorted((line for line in lines if after < line.place <= last), key=lambda line: line.place)
    return chosen[:PAGE_LINES]


def sample(db: Tables) -> None:
    """What the sweep keeps of each batch in progress that is not held."""
    for owner in db.batches.values():
        held = owner.batch.held_since is not None
        if owner.batch.status is not BatchStatus.IN_PROGRESS or held:
            continue
        if owner.pace and db.now() - owner.pace[-1].at < timedelta(seconds=SAMPLED_EVERY_S):
            continue
        leased = sum(row.state is TaskState.LEASED for row in db.batch_tasks.get(owner.batch.id, ()))
        owner.pace.append(PaceSample(db.now(), owner.small_steps, owner.large_steps, leased))
        owner.pace = [one for one in owner.pace if (db.now() - one.at).total_seconds() <= LOOK_BACK_S]


def workload(db: Tables, owner: BatchRow) -> Workload:
    """A batch's tasks now."""
    rows = db.batch_tasks.get(owner.batch.id, ())
    return Workload(
        total=owner.batch.total,
        ended=owner.batch.done + owner.batch.failed,
        at_large=sum(row.queue == "large" and not row.ended for row in rows),
        first_large=sum(row.new.queue == "large" for row in rows),
        small_steps=owner.small_steps,
        large_steps=owner.large_steps,
    )


def _line(row: TaskRow, place: int) -> ResultLine:
    return ResultLine(
        task_id=row.id,
        custom_id=row.new.custom_id,
        line=row.new.line,
        status=row.status,
        body=row.body,
        error=row.error,
        failed=row.state is not TaskState.DONE,
        place=place,
    )
