"""What is deleted in its time, over the memory store: as the Postgres store does it, without partitions."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from cope.adapters.memory.blobs import BlobRow
from cope.adapters.memory.journal import note
from cope.adapters.memory.tables import BatchRow, Tables, TaskRow
from cope.core.ids import BatchId, FileId, ProjectId
from cope.core.keeping import Keeping
from cope.core.lifecycle import TERMINAL_BATCH_STATUSES, AttemptState, BatchStatus
from cope.core.records import Project, StoredFile
from cope.core.task import StoreLevel
from cope.ports.retention import Pruned, RetentionReport, Stored

_OPEN = (AttemptState.RESERVED, AttemptState.SENT, AttemptState.UNCONFIRMED)
_REMEMBERED = timedelta(days=7)
_WIPED_AFTER = timedelta(minutes=20)
_WIPED = '{"k":"math","m":[],"r":"","st":"none"}'


class RetentionMixin:
    """`RetentionStore` and `RetentionReads`."""

    _db: Tables

    async def stored(self, project_id: ProjectId) -> Stored:
        """What the project's files take."""
        own = sum(file.project_id == project_id for file in self._db.files.values())
        return Stored(own, self._db.blobs.bytes_of(project_id))

    async def expired_results(self, project_id: ProjectId, file_id: FileId) -> str | None:
        """The batch that this was a result of."""
        own = (owner.batch for owner in self._db.batches.values() if owner.batch.project_id == project_id)
        return next((batch.id for batch in own if file_id in {batch.output_file_id, batch.error_file_id}), None)

    async def set_keep_days(self, project_id: ProjectId, keep_days: int | None) -> Project | None:
        """None if there is no such project."""
        row = self._db.projects.get(project_id)
        if row is None:
            return None
        row.project = replace(row.project, keep_days=keep_days)
        return row.project

    async def retention_report(self) -> str | None:
        """The last one."""
        return self._db.retention_report

    async def put_retention_report(self, report: str) -> None:
        """In the place of the last one."""
        self._db.retention_report = report

    async def take_turn(self, name: str, *, every_s: float) -> bool:
        """By the store's clock."""
        last = self._db.turns_taken.get(name)
        if last is not None and last > self._db.later(-every_s):
            return False
        self._db.turns_taken[name] = self._db.now()
        return True

    async def home(self) -> str:
        """One process has one."""
        return "memory"

    async def expire_files(self, keeping: Keeping, *, limit: int) -> int:
        """How many rows were deleted."""
        due = sorted(self._due_files(keeping), key=lambda file: file.id)[:limit]
        for file in due:
            del self._db.files[file.id]
            self._db.blobs.release(file)
        return len(due)

    def _due_files(self, keeping: Keeping) -> list[StoredFile]:
        return [file for file in self._over(keeping) if file.id not in self._unread()]

    def _over(self, keeping: Keeping) -> list[StoredFile]:
        now = self._db.now()
        return [
            file
            for file in self._db.files.values()
            if (_past(file.created_at, keeping.files, self._db) if file.expires_at is None else file.expires_at <= now)
        ]

    def _unread(self) -> set[FileId]:
        batches = (owner.batch for owner in self._db.batches.values())
        return {batch.input_file_id for batch in batches if batch.status is BatchStatus.VALIDATING}

    async def freed_bytes(self, *, limit: int) -> Sequence[FileId]:
        """In the order they came."""
        dead = (row.id for row in self._db.blobs.rows.values() if not row.refs and row.emptied_at is None)
        return list(dead)[:limit]

    async def emptied(self, blobs: Sequence[FileId]) -> None:
        """Remembered for a week."""
        rows, now = self._db.blobs.rows, self._db.now()
        for blob in blobs:
            if blob in rows and not rows[blob].refs:
                rows[blob].emptied_at = now
        for row in list(rows.values()):
            if not row.refs and row.emptied_at is not None and row.emptied_at < now - _REMEMBERED:
                del rows[row.id]

    async def disown(self, names: Sequence[FileId]) -> Sequence[FileId]:
        """Those of no file."""
        strays = [name for name in sorted(names) if name not in self._db.blobs.rows]
        for name in strays:
            self._db.blobs.rows[name] = BlobRow(name, ProjectId(""), "", 0, 0, shared=False)
        return strays

    async def prune(self, keeping: Keeping, *, limit: int) -> Pruned:
        """All at once: `limit` is for stores that others use meanwhile."""
        batches = [owner for owner in self._due_batches(keeping) if not self._in_doubt(owner)]
        rows = [row for owner in batches for row in self._db.batch_tasks.pop(owner.batch.id, ())]
        live = self._due_live(keeping)
        for owner in batches:
            owner.batch = replace(owner.batch, pruned_at=self._db.now())
            note(self._db, owner.batch.project_id, "batch.pruned", batch_id=owner.batch.id, id=owner.batch.id)
        for row in (*rows, *live):
            del self._db.tasks[row.id]
            for attempt in self._db.task_attempts.get(row.id, ()):
                attempt.answer = None
        old = [d.id for d in self._db.deliveries.values() if d.over and _past(d.due_at, keeping.deliveries, self._db)]
        for delivery in old:
            del self._db.deliveries[delivery]
        return Pruned(len(batches), len(rows), len(live), len(old), self._wipe())

    def _wipe(self) -> int:
        wiped = 0
        for row in self._db.tasks.values():
            silent = row.batch_id is None and row.spec.store is StoreLevel.NONE and row.new.payload != _WIPED
            if silent and row.finished_at is not None and row.finished_at <= self._db.now() - _WIPED_AFTER:
                row.new, row.body = row.new._replace(payload=_WIPED), None
                wiped += 1
        return wiped

    def _due_batches(self, keeping: Keeping) -> list[BatchRow]:
        return [
            owner
            for owner in self._db.batches.values()
            if owner.batch.status in TERMINAL_BATCH_STATUSES
            and owner.batch.total
            and owner.batch.pruned_at is None
            and _past(_ended(owner), self._keep(owner.batch.project_id, keeping.tasks), self._db)
        ]

    def _due_live(self, keeping: Keeping) -> list[TaskRow]:
        return [
            row
            for row in self._db.tasks.values()
            if row.batch_id is None
            and _past(row.finished_at, self._keep(row.project_id, keeping.live), self._db)
            and not any(self._db.attempts_of(row, *_OPEN))
        ]

    def _keep(self, project_id: ProjectId, general: timedelta | None) -> timedelta | None:
        own = self._db.project(project_id).keep_days
        return general if own is None else timedelta(days=own)

    def _in_doubt(self, owner: BatchRow) -> bool:
        batch_id: BatchId = owner.batch.id
        return any(a.batch_id == batch_id and a.state in _OPEN for a in self._db.attempts.values())

    async def look(self, keeping: Keeping) -> RetentionReport:
        """Changes nothing."""
        due = self._due_batches(keeping)
        sure = [owner for owner in due if not self._in_doubt(owner)]
        kept = [o for o in self._db.batches.values() if o.batch.total and o.batch.pruned_at is None and _ended(o)]
        live = [row.finished_at for row in self._db.tasks.values() if row.batch_id is None and row.finished_at]
        blobs, over = self._db.blobs.rows.values(), self._over(keeping)
        stored = sum(row.bytes for row in blobs if row.refs)
        over_due = len(self._due_files(keeping))
        return RetentionReport(
            at=self._db.now(),
            files=len(self._db.files),
            stored_bytes=stored,
            shared_bytes=sum(file.bytes for file in self._db.files.values()) - stored,
            freed_blobs=sum(not row.refs and row.emptied_at is None for row in blobs),
            due_files=over_due,
            waiting_files=len(over) - over_due,
            due_batches=len(sure),
            due_tasks=sum(owner.batch.total for owner in sure),
            due_live=len(self._due_live(keeping)),
            due_deliveries=sum(
                d.over and _past(d.due_at, keeping.deliveries, self._db) for d in self._db.deliveries.values()
            ),
            doubted_batches=len(due) - len(sure),
            oldest_file_at=min((file.created_at for file in self._db.files.values()), default=None),
            oldest_batch_at=min((at for o in kept if (at := _ended(o)) is not None), default=None),
            oldest_live_at=min(live, default=None),
        )


def _ended(owner: BatchRow) -> datetime | None:
    batch = owner.batch
    return batch.completed_at or batch.cancelled_at or batch.expired_at or batch.failed_at


def _past(at: datetime | None, keep: timedelta | None, db: Tables) -> bool:
    return at is not None and keep is not None and at + keep <= db.now()
