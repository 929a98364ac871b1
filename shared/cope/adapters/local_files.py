"""Files in one local directory. A file appears under its id all at once and durably, or not at all.

Layout: ``<root>/<last two characters of the id>/<id>``; unfinished files lie in ``<root>/.unfinished``. Two
characters spread a million files over 1,024 directories: an id's head is its time, its tail is random.
"""

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from cope.adapters.file_names import OWNER, checked, is_name
from cope.core.errors import Conflict, Misconfigured, NotFound, StorageFull
from cope.core.ids import FileId

CHUNK_BYTES = 256 * 1024
_UNFINISHED = ".unfinished"
_PAGE = 1000
# A quota, and a limit on one file's size, are as final as a full disk.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class LocalFileWriter:
    """One file being written. Every call works in a thread: a slow disk must not stop the event loop."""

    def __init__(self, unfinished: Path, final: Path) -> None:
        self._unfinished = unfinished
        self._final = final
        self._file: BinaryIO | None = None

    async def open(self) -> None:
        """Begin, replacing an earlier unfinished file of the same id."""
        with _full_or_else():
            self._file = await asyncio.to_thread(_open_new, self._unfinished)

    async def write(self, data: bytes) -> None:
        """Append. Raises `ValueError` after `commit` or `discard`, `StorageFull` where the disk is full."""
        with _full_or_else():
            await asyncio.to_thread(self._opened().write, data)

    async def commit(self) -> None:
        """Bytes and name are on the disk when this returns. Raises `Conflict` if another writer began it anew."""
        file = self._opened()
        with _full_or_else():
            await asyncio.to_thread(_publish, file, self._unfinished, self._final)
        self._file = None

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
        unfinished = self._root / _UNFINISHED / f"{checked(file_id)}.{token_hex(8)}"
        writer = LocalFileWriter(unfinished, self._path(file_id))
        await writer.open()
        return writer

    async def read(self, file_id: FileId, *, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The file in chunks of 256 KiB. Raises `NotFound` if it is not there.

        A file deleted meanwhile is read to its end: the open handle keeps it.
        """
        try:
            file = await asyncio.to_thread(_open_at, self._path(file_id), start)
        except FileNotFoundError:
            raise NotFound(f"There is no file {file_id!r}.") from None
        left = length
        try:
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES if left is None else min(left, CHUNK_BYTES)):
                left = None if left is None else left - len(chunk)
                yield chunk
        finally:
            file.close()

    async def delete(self, file_id: FileId) -> None:
        """Remove it; removing nothing is fine."""
        await asyncio.to_thread(self._path(file_id).unlink, missing_ok=True)

    async def check(self) -> None:
        """Raises `Misconfigured` where this process may not write there, `StorageFull` where the disk is full."""
        try:
            with _full_or_else():
                await asyncio.to_thread(_try_out, self._root / _UNFINISHED / f"check.{token_hex(8)}")
        except OSError as wrong:
            raise Misconfigured(
                f"COPE_DATA_DIR or COPE_FILES_URL: files can't be kept in {self._root}: {wrong.strerror or wrong}."
            ) from None

    async def claim(self, home: str) -> bool:
        """By a file with the name of its database."""
        return await asyncio.to_thread(_claim, self._root / OWNER, home)

    async def names(self, *, before: datetime) -> AsyncIterator[Sequence[FileId]]:
        """One folder after the other."""
        pages = _names(self._root, before.timestamp())
        while page := await asyncio.to_thread(next, pages, None):
            yield page

    async def drop_unfinished(self, *, before: datetime) -> int:
        """By the time they were last written to."""
        return await asyncio.to_thread(_drop_unfinished, self._root / _UNFINISHED, before.timestamp())

    def _path(self, file_id: FileId) -> Path:
        return self._root / checked(file_id)[-2:] / file_id


@contextlib.contextmanager
def _full_or_else() -> Iterator[None]:
    try:
        yield
    except OSError as wrong:
        if wrong.errno not in _FULL:
            raise
        raise StorageFull(
            "The disk where files are kept is full: nothing of this file was kept. The operator has to make room (or "
            "move COPE_DATA_DIR); files can be deleted with DELETE /v1/files/{id}."
        ) from None


def _open_new(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    for earlier in path.parent.glob(f"{path.stem}.*"):
        earlier.unlink(missing_ok=True)
    return path.open("xb")


def _open_at(path: Path, start: int) -> BinaryIO:
    file = path.open("rb")
    file.seek(start)
    return file


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
    # On a full disk closing fails too, for what is still in the buffer; the name goes all the same.
    with contextlib.suppress(OSError):
        file.close()
    unfinished.unlink(missing_ok=True)


def _try_out(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.write_bytes(b"x")
    finally:
        path.unlink(missing_ok=True)


def _claim(path: Path, home: str) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written beside and linked: of two that come at once one wins, and nobody reads half a name.
    beside = path.with_name(f"{path.name}.{token_hex(8)}")
    with contextlib.suppress(FileExistsError):
        try:
            beside.write_text(home)
            path.hardlink_to(beside)
        finally:
            beside.unlink(missing_ok=True)
    return path.read_text() == home


def _names(root: Path, before: float) -> Iterator[list[FileId]]:
    page: list[FileId] = []
    for folder in root.iterdir() if root.is_dir() else ():
        if len(folder.name) != 2 or not folder.is_dir():
            continue
        for entry in os.scandir(folder):
            with contextlib.suppress(FileNotFoundError):
                if is_name(entry.name) and entry.stat().st_mtime < before:
                    page.append(FileId(entry.name))
            if len(page) == _PAGE:
                yield page
                page = []
    if page:
        yield page


def _drop_unfinished(folder: Path, before: float) -> int:
    dropped = 0
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < before:
                path.unlink()
                dropped += 1
    return dropped
