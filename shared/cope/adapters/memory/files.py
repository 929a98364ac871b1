"""Files as bytes in a dictionary."""

from collections.abc import AsyncIterator

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

    async def create(self, file_id: FileId) -> MemoryFileWriter:
        """Begin a file."""
        return MemoryFileWriter(self.contents, file_id)

    async def read(self, file_id: FileId) -> AsyncIterator[bytes]:
        """The file in chunks of 256 KiB. Raises `NotFound` if it is not there."""
        try:
            data = self.contents[file_id]
        except KeyError:
            raise NotFound(f"There is no file {file_id!r}.") from None
        for start in range(0, len(data), _CHUNK_BYTES):
            yield data[start : start + _CHUNK_BYTES]

    async def delete(self, file_id: FileId) -> None:
        """Remove it; removing nothing is fine."""
        self.contents.pop(file_id, None)
