"""What is deleted in its time, and how much is stored: the store's part. The file store's is `ports.files`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from cope.core.ids import FileId, ProjectId
from cope.core.keeping import Keeping
from cope.core.records import Project


@dataclass(frozen=True, slots=True)
class Deleted:
    """A file's row is gone. `freed` names bytes that nobody reads any more, None where another file shares them."""

    freed: FileId | None


@dataclass(frozen=True, slots=True)
class Pruned:
    """What one pass took away. `more`: it stopped at its limit. `held` are partitions that are over their time and
    still hold something that must be kept."""

    batches: int = 0
    tasks: int = 0
    live: int = 0
    deliveries: int = 0
    wiped: int = 0
    partitions: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class PartitionView:
    """One partition of a table. `until` is the end of the time it holds, `goes_at` when it may be dropped (None:
    never); `held` where it is over that and something in it must still be kept."""

    table: str
    name: str
    bytes: int
    until: datetime | None
    goes_at: datetime | None
    held: bool


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """What is stored and what goes next, as it stood at `at`. `due_*` is what the next pass takes away."""

    at: datetime
    files: int = 0
    stored_bytes: int = 0
    shared_bytes: int = 0
    """What files would take beyond `stored_bytes` if equal ones did not share."""
    freed_blobs: int = 0
    due_files: int = 0
    waiting_files: int = 0
    """Files over their time that a batch has yet to read."""
    due_batches: int = 0
    due_tasks: int = 0
    due_live: int = 0
    due_deliveries: int = 0
    doubted_batches: int = 0
    """Batches over their time that are kept because money of theirs is unconfirmed."""
    oldest_file_at: datetime | None = None
    oldest_batch_at: datetime | None = None
    oldest_live_at: datetime | None = None
    partitions: tuple[PartitionView, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Stored:
    """What one project's files take: `bytes` in the file store, `files` rows that read them."""

    files: int
    bytes: int


class RetentionStore(Protocol):
    """Upkeep's part, over all projects. Everything here may be cut off anywhere, and done by two at once."""

    async def take_turn(self, name: str, *, every_s: float) -> bool:
        """Whether nobody began this job in the last `every_s` seconds; then it is ours. Over all processes."""
        ...

    async def expire_files(self, keeping: Keeping, *, limit: int) -> int:
        """Delete rows of files whose time has come (their own, else `keeping.files` after they came), at most `limit`;
        how many. A file that a batch has yet to read stays until it was read."""
        ...

    async def freed_bytes(self, *, limit: int) -> Sequence[FileId]:
        """Names of bytes that no file reads and that were not yet said to be deleted, the longest dead first."""
        ...

    async def emptied(self, blobs: Sequence[FileId]) -> None:
        """Their bytes are deleted. Names of long ago are forgotten."""
        ...

    async def disown(self, names: Sequence[FileId]) -> Sequence[FileId]:
        """Of these names in the file store, those of no file: from now on no file can come to have one, and their bytes
        are among `freed_bytes`."""
        ...

    async def home(self) -> str:
        """What this database calls itself: the mark of its file store."""
        ...

    async def prune(self, keeping: Keeping, *, limit: int) -> Pruned:
        """Tasks of batches and live calls over their time, at most about `limit` rows, and partitions that nobody
        needs. Never a task with money under way or in doubt; never attempts, the ledger, budgets or audits."""
        ...

    async def look(self, keeping: Keeping) -> RetentionReport:
        """What is stored, and what `prune` and `expire_files` would take now. Changes nothing."""
        ...

    async def put_retention_report(self, report: str) -> None:
        """Keep this text for the operator, in the place of the last one."""
        ...


class RetentionReads(Protocol):
    """The API's part."""

    async def stored(self, project_id: ProjectId) -> Stored:
        """What the project's files take."""
        ...

    async def expired_results(self, project_id: ProjectId, file_id: FileId) -> str | None:
        """The batch whose output or error file this was; None if it was none of this project's."""
        ...

    async def set_keep_days(self, project_id: ProjectId, keep_days: int | None) -> Project | None:
        """How long the project's batches and live calls are kept after their end; None: as the settings say."""
        ...

    async def retention_report(self) -> str | None:
        """What upkeep last found, as JSON text, for the operator; None before it has looked once."""
        ...
