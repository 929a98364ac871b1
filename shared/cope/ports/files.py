"""Where files' bytes lie: a local directory by default. Rows about files are the store's.

Bytes appear under their name all at once or not at all, and a name is written once. `StorageFull` and
`StorageUnavailable` are raised by any method that touches the place.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol

from cope.core.ids import FileId


class FileWriter(Protocol):
    """A file being written; invisible until `commit`, gone after `discard`."""

    async def write(self, data: bytes) -> None:
        """Append."""
        ...

    async def commit(self) -> None:
        """Make it durable and visible under its id."""
        ...

    async def discard(self) -> None:
        """Forget it. Harmless after `commit`."""
        ...


class FileStore(Protocol):
    """Bytes by file id."""

    async def create(self, file_id: FileId) -> FileWriter:
        """Begin a file; an earlier unfinished one under this id is replaced."""
        ...

    def read(self, file_id: FileId, *, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The file in chunks, from byte `start`, at most `length` bytes of it. Raises `NotFound` if it is not there."""
        ...

    async def delete(self, file_id: FileId) -> None:
        """Remove it; removing nothing is fine."""
        ...

    async def check(self) -> None:
        """Write, read and remove a byte. Raises `Misconfigured` where that can't work, `StorageUnavailable` where it
        does not work now."""
        ...

    async def claim(self, home: str) -> bool:
        """Whether this place belongs to the database of this name; one that belongs to nobody does from now on."""
        ...

    def names(self, *, before: datetime) -> AsyncIterator[Sequence[FileId]]:
        """Pages of the names of files that were finished before this time."""
        ...

    async def drop_unfinished(self, *, before: datetime) -> int:
        """Remove what was begun before this time and never finished; how many."""
        ...
