"""Files in any place that `fsspec` reaches: S3 and what speaks its protocol (`cope.adapters.s3_files`), or memory.

A file is written under another name and moved to its own, which the place must do all at once; S3's class needs no
other name. Every call works in a thread. Memory stays flat: a writer holds one part, a reader two blocks.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, Protocol, TypeVar

from cope.adapters.file_names import OWNER, checked, is_name
from cope.core.errors import Misconfigured, NotFound, StorageFull, StorageUnavailable
from cope.core.ids import FileId

T = TypeVar("T")

CHUNK_BYTES = 256 * 1024
PART_BYTES = 8 * 1024**2
"""Uploaded at a time. S3 takes 10,000 parts, so a file may have 80 GB."""

_BLOCK_BYTES = 4 * 1024**2
_PAGE = 1000
_UNFINISHED = ".unfinished"


class Draft(Protocol):
    """A file being written, as the threads see it."""

    def write(self, data: bytes) -> object:
        """Append."""
        ...

    def finish(self) -> None:
        """Visible under its name, whole."""
        ...

    def abandon(self) -> None:
        """Gone, as far as that can be done."""
        ...


class FsspecFileWriter:
    """One file being written."""

    def __init__(self, draft: Draft) -> None:
        self._draft: Draft | None = draft

    async def write(self, data: bytes) -> None:
        """Append. Raises `ValueError` after `commit` or `discard`."""
        draft = self._opened()
        await in_thread(lambda: draft.write(data))

    async def commit(self) -> None:
        """The place has taken all of it when this returns."""
        await in_thread(self._opened().finish)
        self._draft = None

    async def discard(self) -> None:
        """Forget it. Harmless after `commit`."""
        draft, self._draft = self._draft, None
        if draft is not None:
            with contextlib.suppress(StorageUnavailable, StorageFull):  # what stays behind is dropped in its time
                await in_thread(draft.abandon)

    def _opened(self) -> Draft:
        if self._draft is None:
            raise ValueError("this file is already committed or discarded")
        return self._draft


class FsspecFiles:
    """The file store under `root` (bucket and prefix) of `fs`, an `fsspec.AbstractFileSystem` that works in threads."""

    def __init__(self, fs: Any, root: str) -> None:
        self._fs = fs
        self._root = root.rstrip("/")

    async def create(self, file_id: FileId) -> FsspecFileWriter:
        """Begin a file. Of two writers of one id the later to commit counts; ids are made once, so there are none."""
        path = self._path(file_id)
        return FsspecFileWriter(await in_thread(lambda: self._begin(path)))

    async def read(self, file_id: FileId, *, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The file in chunks of 256 KiB. Raises `NotFound` if it is not there; one deleted meanwhile ends badly."""
        path = self._path(file_id)
        try:
            file = await in_thread(lambda: self._open_at(path, start))
        except FileNotFoundError:
            raise NotFound(f"There is no file {file_id!r}.") from None
        left = length
        try:
            while chunk := await in_thread(_next_chunk(file, left)):
                left = None if left is None else left - len(chunk)
                yield chunk
        finally:
            await asyncio.to_thread(file.close)

    async def delete(self, file_id: FileId) -> None:
        """Remove it; removing nothing is fine."""
        path = self._path(file_id)
        with contextlib.suppress(FileNotFoundError):
            await in_thread(lambda: self._fs.rm_file(path))

    async def check(self) -> None:
        """Raises `Misconfigured` where the place refuses to be written to, read or tidied."""
        path = f"{self._root}/.check-{token_hex(8)}"
        try:
            await in_thread(lambda: self._try_out(path))
        except (PermissionError, FileNotFoundError, ValueError) as wrong:
            raise Misconfigured(f"COPE_FILES_URL: files can't be kept in {self._root!r}: {wrong}") from None

    async def claim(self, home: str) -> bool:
        """By a file with the name of its database. Of two databases that come at the same instant the later one is
        remembered, and both look again before they act."""
        return await in_thread(lambda: self._claim(f"{self._root}/{OWNER}", home))

    async def names(self, *, before: datetime) -> AsyncIterator[Sequence[FileId]]:
        """By folders, as the place lists them."""
        for folder in await in_thread(lambda: self._list(self._root)):
            path = str(folder["name"])
            if folder["type"] != "directory" or path.endswith(_UNFINISHED):
                continue
            page = [
                FileId(name)
                for entry in await in_thread(lambda path=path: self._list(path))  # type: ignore[misc]
                if is_name(name := str(entry["name"]).rsplit("/", 1)[-1]) and _made_at(entry) < before
            ]
            for first in range(0, len(page), _PAGE):
                yield page[first : first + _PAGE]

    async def drop_unfinished(self, *, before: datetime) -> int:
        """By the time they were last written to."""
        drafts = f"{self._root}/{_UNFINISHED}"
        old = [entry["name"] for entry in await in_thread(lambda: self._list(drafts)) if _made_at(entry) < before]
        for path in old:
            with contextlib.suppress(FileNotFoundError):
                await in_thread(lambda path=path: self._fs.rm_file(path))  # type: ignore[misc]
        return len(old)

    def _path(self, file_id: FileId) -> str:
        return f"{self._root}/{checked(file_id)[-2:]}/{file_id}"

    def _begin(self, path: str) -> Draft:
        return _Moved(self._fs, f"{self._root}/{_UNFINISHED}/{token_hex(16)}", path)

    def _open_at(self, path: str, start: int) -> Any:
        file = self._fs.open(path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead")
        file.seek(start)
        return file

    def _list(self, path: str) -> list[dict[str, Any]]:
        try:
            return list(self._fs.ls(path, detail=True, refresh=True))
        except FileNotFoundError:
            return []

    def _try_out(self, path: str) -> None:
        self._fs.pipe_file(path, b"x")
        if self._fs.cat_file(path) != b"x":
            raise ValueError("what was written was not read back")
        self._fs.rm_file(path)

    def _claim(self, path: str, home: str) -> bool:
        try:
            return bool(self._fs.cat_file(path).decode() == home)
        except FileNotFoundError:
            self._fs.pipe_file(path, home.encode())
            return bool(self._fs.cat_file(path).decode() == home)


def _next_chunk(file: Any, left: int | None) -> Callable[[], bytes]:
    return lambda: bytes(file.read(CHUNK_BYTES if left is None else min(left, CHUNK_BYTES)))


class _Moved:
    """Written under another name, then moved."""

    def __init__(self, fs: Any, draft: str, final: str) -> None:
        self._fs, self._path, self._final = fs, draft, final
        self._file = fs.open(draft, "wb", block_size=PART_BYTES)

    def write(self, data: bytes) -> object:
        return self._file.write(data)

    def finish(self) -> None:
        self._file.close()
        self._fs.makedirs(self._final.rpartition("/")[0], exist_ok=True)
        self._fs.mv(self._path, self._final)

    def abandon(self) -> None:
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path)


def _made_at(entry: dict[str, Any]) -> datetime:
    made = entry.get("LastModified") or entry.get("mtime") or entry.get("created") or 0
    at = made if isinstance(made, datetime) else datetime.fromtimestamp(float(made), UTC)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


async def in_thread(act: Callable[[], T]) -> T:
    """Do it in a thread. Raises our errors for what its client says of the place."""
    with _told():
        return await asyncio.to_thread(act)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What the place's client raises, as our errors. Refusals stay what they are."""
    try:
        yield
    except (FileNotFoundError, PermissionError, ValueError):
        raise
    except OSError as wrong:
        if wrong.errno in _FULL or "XMinioStorageFull" in str(wrong) or "QuotaExceeded" in str(wrong):
            raise StorageFull(
                "The place where files are kept takes no more: nothing of this file was kept. The operator has to make "
                "room behind COPE_FILES_URL."
            ) from None
        raise StorageUnavailable(f"The place where files are kept did not answer: {wrong}.") from wrong
    except Exception as wrong:
        # The SDK's own errors are no OSErrors, and can be imported only where the extra is installed.
        if type(wrong).__name__ in _NO_KEYS:
            raise PermissionError(str(wrong)) from wrong
        if type(wrong).__module__.partition(".")[0] not in _SDK:
            raise
        raise StorageUnavailable(f"The place where files are kept did not answer: {wrong}.") from wrong


_SDK = frozenset({"botocore", "aiobotocore", "aiohttp"})
_NO_KEYS = frozenset({"NoCredentialsError", "PartialCredentialsError", "NoRegionError"})
_FULL = frozenset({28, 122})  # ENOSPC, EDQUOT
