"""Where files' bytes lie: a local directory by default. Rows about files are the store's."""

from collections.abc import AsyncIterator
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

    def read(self, file_id: FileId) -> AsyncIterator[bytes]:
        """The file in chunks. Raises `NotFound` if it is not there."""
        ...

    async def delete(self, file_id: FileId) -> None:
        """Remove it; removing nothing is fine."""
        ...
