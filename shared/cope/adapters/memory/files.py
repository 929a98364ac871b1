"""Files as bytes in a dictionary."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from cope.core.errors import NotFound
from cope.core.ids import FileId

_CHUNK_BYTES = 256 * 1024


class MemoryFileWriter:
    """A file being written: invisible until `commit`."""

    def __init__(self, kept: dict[FileId, bytes], file_id: FileId) -> None:
        self._kept = kept
        self._file_id = file_id
        self._written: bytearray | None = bytearray()

    async def write(self, data: bytes) -> None:
        """Append. Raises `ValueError` after `commit` or `discard`."""
        self._open().extend(data)

    async def commit(self) -> None:
        """Make it visible."""
        self._kept[self._file_id] = bytes(self._open())
        self._written = None

    async def discard(self) -> None:
        """Forget it. Harmless after `commit`."""
        self._written = None

    def _open(self) -> bytearray:
        if self._written is None:
            raise ValueError("this file is already committed or discarded")
        return self._written


class MemoryFiles:
    """Bytes by file id; `contents` may be looked into and set by a test."""

    def __init__(self) -> None:
        self.contents: dict[FileId, bytes] = {}
        self.home = ""

    async def create(self, file_id: FileId) -> MemoryFileWriter:
        """Begin a file."""
        return MemoryFileWriter(self.contents, file_id)

    async def read(self, file_id: FileId, *, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The file in chunks of 256 KiB. Raises `NotFound` if it is not there."""
        try:
            data = self.contents[file_id]
        except KeyError:
            raise NotFound(f"There is no file {file_id!r}.") from None
        end = len(data) if length is None else min(len(data), start + length)
        for at in range(start, end, _CHUNK_BYTES):
            yield data[at : min(end, at + _CHUNK_BYTES)]

    async def delete(self, file_id: FileId) -> None:
        """Remove it; removing nothing is fine."""
        self.contents.pop(file_id, None)

    async def check(self) -> None:
        """Always well."""

    async def claim(self, home: str) -> bool:
        """Whoever comes first."""
        self.home = self.home or home
        return self.home == home

    async def names(self, *, before: datetime) -> AsyncIterator[Sequence[FileId]]:
        """All at once, of any age: memory has no clock."""
        if self.contents:
            yield sorted(self.contents)

    async def drop_unfinished(self, *, before: datetime) -> int:
        """Nothing unfinished is kept."""
        return 0
