"""Files in one local directory. A file appears under its id all at once and durably, or not at all.

Layout: ``<root>/<last two characters of the id>/<id>``; unfinished files lie in ``<root>/.unfinished``. Two
characters spread a million files over 1,024 directories: an id's head is its time, its tail is random.
"""

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from cope.core.errors import Conflict, NotFound, StorageFull
from cope.core.ids import FileId

CHUNK_BYTES = 256 * 1024
_UNFINISHED = ".unfinished"
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


class LocalFileWriter:
    """One file being written. Every call works in a thread: a slow disk must not stop the event loop."""

    def __init__(self, unfinished: Path, final: Path) -> None:
        self._unfinished = unfinished
        self._final = final
        self._file: BinaryIO | None = None

    async def open(self) -> None:
        """Begin, replacing an earlier unfinished file of the same id."""
        with _room():
            self._file = await asyncio.to_thread(_open_new, self._unfinished)

    async def write(self, data: bytes) -> None:
        """Append. Raises `ValueError` after `commit` or `discard`, `StorageFull` where the disk is full."""
        with _room():
            await asyncio.to_thread(self._opened().write, data)

    async def commit(self) -> None:
        """Bytes and name are on the disk when this returns. Raises `Conflict` if another writer began it anew."""
        file = self._opened()
        self._file = None
        try:
            with _room():
                await asyncio.to_thread(_publish, file, self._unfinished, self._final)
        except StorageFull:
            self._file = file  # for `discard`, which takes away what was written
            raise

    async def discard(self) -> None:
        """Forget it. Harmless after `commit`."""
        file, self._file = self._file, None
        if file is not None:
            await asyncio.to_thread(_throw_away, file, self._unfinished)

    def _opened(self) -> BinaryIO:
        if self._file is None:
            raise ValueError("this file is already committed or discarded")
        return self._file


class LocalFiles:
    """The file store under `root`, which is made if it is not there."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def create(self, file_id: FileId) -> LocalFileWriter:
        """Begin a file; an earlier unfinished one under this id is replaced."""
        # A name per writer: one that lost its job can neither publish nor remove what its successor writes.
        unfinished = self._root / _UNFINISHED / f"{_checked(file_id)}.{token_hex(8)}"
        writer = LocalFileWriter(unfinished, self._path(file_id))
        await writer.open()
        return writer

    async def read(self, file_id: FileId) -> AsyncIterator[bytes]:
        """The file in chunks of 256 KiB. Raises `NotFound` if it is not there.

        A file deleted meanwhile is read to its end: the open handle keeps it.
        """
        try:
            file = await asyncio.to_thread(self._path(file_id).open, "rb")
        except FileNotFoundError:
            raise NotFound(f"There is no file {file_id!r}.") from None
        try:
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield chunk
        finally:
            file.close()

    async def delete(self, file_id: FileId) -> None:
        """Remove it; removing nothing is fine."""
        await asyncio.to_thread(self._path(file_id).unlink, missing_ok=True)

    def _path(self, file_id: FileId) -> Path:
        return self._root / _checked(file_id)[-2:] / file_id


def _checked(file_id: FileId) -> str:
    # Ids reach us from URLs: a name with a slash or a dot could leave the root.
    if len(file_id) < 3 or not _SAFE.issuperset(file_id):
        raise NotFound(f"There is no file {file_id!r}.")
    return file_id


def _open_new(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    for earlier in path.parent.glob(f"{path.stem}.*"):
        earlier.unlink(missing_ok=True)
    return path.open("xb")


def _publish(file: BinaryIO, unfinished: Path, final: Path) -> None:
    with file:
        file.flush()
        os.fsync(file.fileno())
    new_directory = not final.parent.exists()
    final.parent.mkdir(parents=True, exist_ok=True)
    try:
        unfinished.replace(final)
    except FileNotFoundError:
        raise Conflict(f"File {final.name!r} was begun anew by another writer.") from None
    _fsync_directory(final.parent)
    if new_directory:
        _fsync_directory(final.parent.parent)


def _fsync_directory(path: Path) -> None:
    # Without this the rename itself may be lost with the power.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _throw_away(file: BinaryIO, unfinished: Path) -> None:
    try:
        with contextlib.suppress(OSError):  # on a full disk closing writes what was buffered, and fails too
            file.close()
    finally:
        unfinished.unlink(missing_ok=True)


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def _room() -> Iterator[None]:
    """Raises `StorageFull` where the disk, a quota or a limit of the process leaves no room."""
    try:
        yield
    except OSError as full:
        if full.errno not in _FULL:
            raise
        raise StorageFull(
            f"The file can't be stored: {full.strerror} where the service keeps its files. "
            "Ask the operator to make room (COPE_DATA_DIR), then send it again."
        ) from None
