"""Batches from validation to their files, over the memory store."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from cope.adapters.memory.journal import note_and_deliver
from cope.adapters.memory.line_retry import LineRetryMixin, begin
from cope.adapters.memory.quotes import QuotesMixin
from cope.adapters.memory.sweep import SweepMixin
from cope.adapters.memory.tables import BatchRow, TaskRow, in_progress
from cope.adapters.memory.webhook_queue import WebhookQueueMixin
from cope.core.errors import Conflict
from cope.core.fairness import stride
from cope.core.ids import FileId, ProjectId
from cope.core.lifecycle import BatchStatus, TaskState
from cope.core.records import Batch, LineError, Project, StoredFile
from cope.core.task import StoreLevel
from cope.ports.store import BatchJob, NewTask


class UpkeepMixin(LineRetryMixin, QuotesMixin, WebhookQueueMixin, SweepMixin):
    """Validation and files, as `WorkerStore` describes them."""

    async def claim_validation(self, *, lease_s: float) -> BatchJob | None:
        """The oldest batch in `validating` that nobody works on."""
        return self._claim_job(
            (r for r in self._db.batches.values() if r.batch.status is BatchStatus.VALIDATING), lease_s
        )

    async def claim_finalisation(self, *, lease_s: float) -> BatchJob | None:
        """The oldest batch that only lacks its files."""
        return self._claim_job((row for row in self._db.batches.values() if row.lacks_files), lease_s)

    async def renew_batch_job(self, job: BatchJob, *, lease_s: float) -> bool:
        """Keep the job; False if it was lost."""
        owner = self._owned(job)
        if owner is not None:
            owner.job_until = self._db.later(lease_s)
        return owner is not None

    async def ingest(
        self,
        job: BatchJob,
        rows: AsyncIterator[Sequence[NewTask]],
        *,
        model: Callable[[], str | None],
        expires_in: timedelta | None,
    ) -> int | None:
        """Rows are gathered first and written in one go, so an error from `rows` leaves nothing behind."""
        gathered = [row async for page in rows for row in page]
        owner = self._owned(job)
        if owner is None or owner.batch.status is not BatchStatus.VALIDATING:
            return None
        _refuse_doubles(gathered)
        step = stride(expires_in, 1 + in_progress(self._db, owner.batch.project_id))
        for ordinal, new in enumerate(gathered):
            self._db.add_task(
                new,
                project_id=owner.batch.project_id,
                batch_id=owner.batch.id,
                key_id=owner.batch.key_id,
                distance=ordinal * step,
            )
        begin(self._db, owner, len(gathered), model(), expires_in)
        return len(gathered)

    async def fail_validation(
        self, job: BatchJob, errors: Sequence[LineError], *, output: StoredFile | None = None
    ) -> bool:
        """Nothing happens if the job was lost."""
        owner = self._owned(job)
        if owner is None or owner.batch.status is not BatchStatus.VALIDATING:
            return False
        owner.job_until = None
        if output is not None:
            self._db.files[output.id] = self._db.blobs.take(output)
        owner.batch = replace(
            owner.batch,
            status=BatchStatus.FAILED,
            failed_at=self._db.now(),
            errors=tuple(errors),
            output_file_id=None if output is None else output.id,
        )
        note_and_deliver(self._db, owner.batch)
        return True

    async def finish_batch(
        self, job: BatchJob, *, output: StoredFile | None, error: StoredFile | None, quote: str | None = None
    ) -> BatchStatus | None:
        """`cancelled` or `expired` where that is why it ended, else `completed`."""
        owner = self._owned(job)
        if owner is None or not owner.lacks_files:
            return None
        now, batch = self._db.now(), owner.batch
        self._db.files.update({file.id: self._db.blobs.take(file) for file in (output, error) if file is not None})
        batch = replace(
            batch,
            output_file_id=None if output is None else output.id,
            error_file_id=None if error is None else error.id,
            finalizing_at=batch.finalizing_at or now,
            quote=quote,
        )
        owner.batch = _closed(owner, batch, now)
        owner.job_until = None
        for row in self._db.batch_tasks.get(batch.id, ()):
            if row.spec.store is StoreLevel.NONE:
                _drop_texts(row)
        note_and_deliver(self._db, owner.batch)
        return owner.batch.status

    async def file(self, file_id: FileId) -> StoredFile | None:
        """A file's row, of any project."""
        return self._db.files.get(file_id)

    async def project(self, project_id: ProjectId) -> Project | None:
        """A project's row."""
        row = self._db.projects.get(project_id)
        return None if row is None else row.project

    async def put_survey(self, job: BatchJob, survey: str) -> None:
        """Nothing happens if the job was lost."""
        owner = self._owned(job)
        if owner is not None:
            owner.survey = survey

    def _claim_job(self, rows: Iterator[BatchRow], lease_s: float) -> BatchJob | None:
        for owner in rows:
            if owner.job_free(self._db.now()):
                owner.fence += 1
                owner.job_until = self._db.later(lease_s)
                return BatchJob(owner.batch, owner.fence)
        return None

    def _owned(self, job: BatchJob) -> BatchRow | None:
        owner = self._db.batches.get(job.batch.id)
        held = owner is not None and owner.fence == job.fence and owner.job_until is not None
        return owner if held else None


def _closed(owner: BatchRow, batch: Batch, now: datetime) -> Batch:
    if owner.ending is TaskState.CANCELLED:
        return replace(batch, status=BatchStatus.CANCELLED, cancelled_at=now)
    if owner.ending is TaskState.EXPIRED:
        return replace(batch, status=BatchStatus.EXPIRED, expired_at=now)
    return replace(batch, status=BatchStatus.COMPLETED, completed_at=now)


def _drop_texts(row: TaskRow) -> None:
    """With the files written, neither question nor answer stays."""
    kind = row.spec.problem.kind.value
    row.new = row.new._replace(payload=f'{{"k":"{kind}","m":[],"r":"","st":"none"}}')
    row.body = None


def _refuse_doubles(rows: Sequence[NewTask]) -> None:
    if len({row.custom_id for row in rows}) != len(rows):
        raise Conflict("Two lines of this batch have the same custom_id.")
