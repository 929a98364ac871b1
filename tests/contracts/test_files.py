"""Bytes by file id: in memory and in a local directory."""

import resource
from pathlib import Path

import pytest

from cope.adapters.local_files import LocalFiles
from cope.adapters.memory import MemoryFiles
from cope.core import ids
from cope.core.errors import Conflict, NotFound, StorageFull
from cope.core.ids import FileId
from cope.ports.files import FileStore
from tests.support import new_id


@pytest.fixture(params=["memory", "local"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> FileStore:
    """An empty file store."""
    return MemoryFiles() if request.param == "memory" else LocalFiles(tmp_path / "files")


def file_id() -> FileId:
    return FileId(new_id(ids.FILE))


async def content(files: FileStore, wanted: FileId) -> bytes:
    return b"".join([chunk async for chunk in files.read(wanted)])


async def write(files: FileStore, wanted: FileId, *parts: bytes) -> None:
    writer = await files.create(wanted)
    for part in parts:
        await writer.write(part)
    await writer.commit()


async def test_what_is_written_is_read_back(files: FileStore) -> None:
    wanted = file_id()

    await write(files, wanted, b"one\n", b"", b"two\n")

    assert await content(files, wanted) == b"one\ntwo\n"


async def test_an_empty_file_is_there_and_empty(files: FileStore) -> None:
    wanted = file_id()

    await write(files, wanted)

    assert await content(files, wanted) == b""


async def test_a_large_file_comes_in_several_chunks(files: FileStore) -> None:
    wanted, data = file_id(), bytes(range(256)) * 4_000
    await write(files, wanted, data)

    chunks = [chunk async for chunk in files.read(wanted)]

    assert len(chunks) > 1
    assert max(map(len, chunks)) <= 256 * 1024
    assert b"".join(chunks) == data


async def test_a_file_is_invisible_until_it_is_committed(files: FileStore) -> None:
    wanted = file_id()
    writer = await files.create(wanted)
    await writer.write(b"half")

    with pytest.raises(NotFound):
        await content(files, wanted)

    await writer.commit()
    assert await content(files, wanted) == b"half"


async def test_a_discarded_file_never_appears(files: FileStore) -> None:
    wanted = file_id()
    writer = await files.create(wanted)
    await writer.write(b"half")

    await writer.discard()
    await writer.discard()

    with pytest.raises(NotFound):
        await content(files, wanted)


async def test_discarding_after_the_commit_is_harmless(files: FileStore) -> None:
    wanted = file_id()
    writer = await files.create(wanted)
    await writer.write(b"whole")
    await writer.commit()

    await writer.discard()

    assert await content(files, wanted) == b"whole"


async def test_beginning_again_replaces_the_unfinished_file(files: FileStore) -> None:
    wanted = file_id()
    first = await files.create(wanted)
    await first.write(b"from a worker that died")

    await write(files, wanted, b"second")
    await first.discard()

    assert await content(files, wanted) == b"second"


async def test_a_committed_file_takes_no_more_bytes(files: FileStore) -> None:
    writer = await files.create(file_id())
    await writer.commit()

    with pytest.raises(ValueError, match="already committed"):
        await writer.write(b"more")


async def test_a_deleted_file_is_gone_and_deleting_nothing_is_fine(files: FileStore) -> None:
    wanted = file_id()
    await write(files, wanted, b"x")

    await files.delete(wanted)
    await files.delete(wanted)

    with pytest.raises(NotFound):
        await content(files, wanted)


async def test_a_name_that_would_leave_the_directory_is_not_found(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path / "files")
    (tmp_path / "secret").write_text("secret")

    for name in ("../secret", "..", "/etc/passwd", "file-a/../../secret", ""):
        with pytest.raises(NotFound):
            await content(files, FileId(name))
        with pytest.raises(NotFound):
            await files.create(FileId(name))


async def test_unfinished_files_leave_nothing_in_the_directory_of_a_local_store(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    writer = await files.create(file_id())
    await writer.write(b"half")
    await writer.discard()
    wanted = file_id()

    await write(files, wanted, b"whole")

    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [wanted]


async def test_a_writer_that_was_replaced_can_not_publish_what_its_successor_has_half_written(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    wanted = file_id()
    lost = await files.create(wanted)
    successor = await files.create(wanted)
    await successor.write(b"half")

    with pytest.raises(Conflict):
        await lost.commit()

    with pytest.raises(NotFound):
        await content(files, wanted)
    await successor.commit()
    assert await content(files, wanted) == b"half"


async def test_a_disk_without_room_is_said_so_and_nothing_half_written_stays(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path / "files")
    wanted = file_id()
    writer = await files.create(wanted)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    try:
        await writer.write(b"x" * 60 * 1024)
        with pytest.raises(StorageFull, match="make room"):
            await writer.write(b"x" * 60 * 1024)
        await writer.discard()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert [path for path in (tmp_path / "files").rglob("*") if path.is_file()] == []
    await write(files, wanted, b"room again")
    assert await content(files, wanted) == b"room again"


async def test_a_disk_that_fills_with_the_last_bytes_refuses_the_commit_and_leaves_nothing(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path / "files")
    writer = await files.create(file_id())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        await writer.write(b"x" * 2000)  # held back by the buffer
        with pytest.raises(StorageFull):
            await writer.commit()
        await writer.discard()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert [path for path in (tmp_path / "files").rglob("*") if path.is_file()] == []
