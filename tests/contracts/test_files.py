"""Bytes by file id: in memory, in a local directory, and through fsspec (memory, disk, a server of the S3 protocol)."""

import resource
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from cope.adapters.file_places import open_files
from cope.adapters.fsspec_files import FsspecFiles
from cope.adapters.local_files import LocalFiles
from cope.adapters.memory import MemoryFiles
from cope.adapters.s3_files import S3Files
from cope.core import ids
from cope.core.errors import Conflict, Misconfigured, NotFound, StorageFull, StorageUnavailable
from cope.core.ids import FileId
from cope.ports.files import FileStore
from cope_local.children import free_port
from tests.contracts.s3_server import S3Server
from tests.support import new_id

LATER, EARLIER = datetime.now(UTC) + timedelta(days=1), datetime.now(UTC) - timedelta(days=1)


@pytest.fixture(
    params=["memory", "local", "fsspec-memory", "fsspec-disk", pytest.param("s3", marks=pytest.mark.integration)]
)
def files(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileStore]:
    """An empty file store."""
    match request.param:
        case "memory":
            yield MemoryFiles()
        case "local":
            yield LocalFiles(tmp_path / "files")
        case "fsspec-memory":
            yield FsspecFiles(MemoryFileSystem(), f"/{new_id('cope-')}")
        case "fsspec-disk":
            yield FsspecFiles(LocalFileSystem(auto_mkdir=True), str(tmp_path / "files"))
        case _:
            server: S3Server = request.getfixturevalue("s3_server")
            server.environment(monkeypatch)
            yield open_files(f"s3://{server.new_bucket()}/a/prefix", tmp_path)


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


async def test_a_range_is_read_without_what_is_before_and_behind_it(files: FileStore) -> None:
    wanted, data = file_id(), bytes(range(256)) * 4_000
    await write(files, wanted, data)

    async def part(start: int, length: int | None) -> bytes:
        return b"".join([chunk async for chunk in files.read(wanted, start=start, length=length)])

    assert await part(0, 3) == data[:3]
    assert await part(300_000, 400_000) == data[300_000:700_000]
    assert await part(len(data) - 5, None) == data[-5:]
    assert await part(len(data) - 5, 100) == data[-5:]
    assert await part(len(data), 1) == b""
    assert await part(7, 0) == b""


async def test_a_file_of_several_parts_comes_back_as_it_was(files: FileStore) -> None:
    wanted, part = file_id(), bytes(range(251)) * 4_000
    await write(files, wanted, *[part] * 20)  # 20 MB: more than two parts of an upload

    assert await content(files, wanted) == part * 20


async def test_a_store_that_works_says_so_and_keeps_nothing_of_the_trial(files: FileStore) -> None:
    await files.check()

    assert [page async for page in files.names(before=LATER)] == []


async def test_a_place_belongs_to_the_database_that_came_first(files: FileStore) -> None:
    assert await files.claim("database-1")
    assert not await files.claim("database-2")
    assert await files.claim("database-1")


async def test_the_names_of_finished_files_are_listed_and_no_others(files: FileStore) -> None:
    made = [file_id() for _ in range(5)]
    for name in made:
        await write(files, name, b"x")
    await files.claim("database-1")
    unfinished = await files.create(file_id())
    await unfinished.write(b"half")

    listed = [name async for page in files.names(before=LATER) for name in page]

    assert sorted(listed) == sorted(made)
    await unfinished.discard()


@pytest.mark.parametrize(
    "files", ["local", "fsspec-disk", pytest.param("s3", marks=pytest.mark.integration)], indirect=True
)
async def test_files_that_are_younger_than_asked_for_are_not_listed(files: FileStore) -> None:
    await write(files, file_id(), b"x")

    assert [name async for page in files.names(before=EARLIER) for name in page] == []


@pytest.mark.parametrize(
    "files", ["local", "fsspec-disk", pytest.param("s3", marks=pytest.mark.integration)], indirect=True
)
async def test_what_a_process_left_half_written_when_it_died_is_dropped_in_its_time(files: FileStore) -> None:
    whole = file_id()
    await write(files, whole, b"whole")
    half = await files.create(file_id())
    await half.write(b"x" * 9_000_000)  # and no more: its process was killed

    if not isinstance(files, S3Files):  # moto says of every upload that it was begun in 2010
        assert await files.drop_unfinished(before=EARLIER) == 0
    assert await files.drop_unfinished(before=LATER) == 1
    assert await files.drop_unfinished(before=LATER) == 0

    assert await content(files, whole) == b"whole"
    await half.discard()


async def test_a_full_disk_is_told_and_keeps_nothing_of_the_file(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    writer = await files.create(file_id())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StorageFull, match="full"):
            await writer.write(b"x" * 9_000_000)
        await writer.discard()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_a_place_that_can_not_be_written_to_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(Misconfigured, match="COPE_DATA_DIR"):
        await LocalFiles(tmp_path / "file").check()


@pytest.mark.integration
async def test_a_bucket_that_is_not_there_stops_the_start(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_server.environment(monkeypatch)

    with pytest.raises(Misconfigured, match="COPE_FILES_URL"):
        await open_files("s3://no-such-bucket/prefix", tmp_path).check()


@pytest.mark.integration
async def test_a_server_that_is_away_may_be_there_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    S3Server(f"http://127.0.0.1:{free_port()}").environment(monkeypatch)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    files = open_files("s3://bucket/prefix", tmp_path)
    files._fs.retries = 1  # type: ignore[attr-defined]

    with pytest.raises(StorageUnavailable, match="did not answer"):
        await files.check()


def test_where_files_lie_is_named_by_one_url(tmp_path: Path) -> None:
    assert isinstance(open_files("", tmp_path), LocalFiles)
    assert isinstance(open_files(f"file://{tmp_path}", tmp_path), LocalFiles)
    assert isinstance(open_files("memory://tests", tmp_path), FsspecFiles)


@pytest.mark.parametrize(
    "url", ["s3://", "file://host/path", "file:relative", "ftp://host/x", "s3://key:secret@bucket/x", "/a/path"]
)
def test_a_url_that_names_no_place_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="COPE_FILES_URL"):
        open_files(url, tmp_path)
