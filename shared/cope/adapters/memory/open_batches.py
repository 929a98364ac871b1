"""Retries and open batches over the memory store: what a project's key may do."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from cope.adapters.memory.endings import begin_finalizing
from cope.adapters.memory.journal import note
from cope.adapters.memory.line_retry import begin, check
from cope.adapters.memory.standstill import refresh
from cope.adapters.memory.tables import BatchRow, Tables, in_progress
from cope.core.errors import NotFound
from cope.core.fairness import stride
from cope.core.ids import BatchId, ProjectId
from cope.core.lifecycle import BatchStatus
from cope.core.line_retry import LineRetry
from cope.core.open_batch import check_repeats, refuse_sealed, refuse_too_many
from cope.core.records import Batch
from cope.ports.store import Appended, NewBatch, NewLine


class OpenBatchesMixin:
    """No method awaits anything that waits: each is one transaction."""

    _db: Tables

    if TYPE_CHECKING:

        async def create_batch(self, new: NewBatch) -> Batch: ...
        async def get_batch(self, project_id: ProjectId, batch_id: BatchId) -> Batch | None: ...
        def _first_of(self, new: NewBatch) -> BatchRow | None: ...

    async def retry_batch(self, new: NewBatch, retry: LineRetry) -> Batch:
        """A repetition returns the first one, whatever has become of the lines."""
        first = self._first_of(new)
        if first is not None:
            return await self._seen(new.batch.project_id, first.batch.id)
        parent = await self.get_batch(new.batch.project_id, retry.parent)
        if parent is None:
            raise NotFound(f"There is no batch {retry.parent!r}.")
        check(self._db, new.batch.project_id, parent, retry)
        made = await self.create_batch(replace(new, retry=0, batch=replace(new.batch, retry_of=retry.parent)))
        self._db.batches[made.id].retry = retry
        return made

    async def append_lines(
        self, project_id: ProjectId, batch_id: BatchId, lines: Sequence[NewLine], *, window: timedelta | None, most: int
    ) -> Appended | None:
        """The new lines come after those that the batch has."""
        owner = self._db.batches.get(batch_id)
        if owner is None or owner.batch.project_id != project_id:
            return None
        new = check_repeats(lines, owner.appended)
        if new:
            refuse_sealed(owner.batch)
            refuse_too_many(owner.batch, len(new), most)
            batch, step = owner.batch, stride(window, 1 + in_progress(self._db, project_id))
            for ordinal, line in enumerate(new):
                self._db.add_task(
                    line.task._replace(line=batch.total + ordinal + 1),
                    project_id=project_id,
                    batch_id=batch_id,
                    key_id=batch.key_id,
                    distance=(owner.unfinished + ordinal) * step,
                )
                owner.appended[line.task.custom_id] = line.digest
            owner.unfinished += len(new)
            total = batch.total + len(new)
            owner.batch = replace(batch, total=total)
            kind = "batch.requests_added"
            note(self._db, project_id, kind, batch_id=batch_id, id=batch_id, added=len(new), total=total)
        return Appended(await self._seen(project_id, batch_id), len(new))

    async def seal_batch(self, project_id: ProjectId, batch_id: BatchId) -> Batch | None:
        """It begins to end at once if its last line has."""
        owner = self._db.batches.get(batch_id)
        if owner is None or owner.batch.project_id != project_id:
            return None
        if owner.batch.open:
            owner.batch = replace(owner.batch, open=False)
            note(self._db, project_id, "batch.sealed", batch_id=batch_id, id=batch_id, total=owner.batch.total)
            if not owner.unfinished:
                begin_finalizing(self._db, owner)
                refresh(self._db, owner)
        return await self._seen(project_id, batch_id)

    async def _seen(self, project_id: ProjectId, batch_id: BatchId) -> Batch:
        batch = await self.get_batch(project_id, batch_id)
        assert batch is not None
        return batch


def begin_open(db: Tables, owner: BatchRow, window: timedelta | None) -> None:
    """A batch that is open begins at once: there is no file to read."""
    begin(db, owner, 0, None, window)
    owner.batch = replace(owner.batch, status=BatchStatus.IN_PROGRESS, finalizing_at=None, open=True)
    refresh(db, owner)
