"""Files and their bytes over real folders: nothing half-written stays, nothing that is read goes, whoever is killed."""

import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from cope.adapters.local_files import LocalFiles
from cope.adapters.memory import FixedClock, MemoryStore, SequentialIds
from cope.core import ids
from cope.core.errors import Conflict
from cope.core.ids import FileId
from cope.core.keeping import Keeping
from cope.core.records import Project, StoredFile
from cope.usecases.retention import collect_strays, expire_files, prune
from tests.support import make_file, make_project, new_id

FOREVER = Keeping()
LONG_AFTER = datetime.now(UTC) + timedelta(days=3)

# A process that is killed, at the worst moment, in the middle of an upload.
_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from cope.adapters.local_files import LocalFiles

async def main():
    writer = await LocalFiles(Path(sys.argv[1])).create(sys.argv[2])
    await writer.write(b"x" * 1_000_000)
    if sys.argv[3] == "committed":
        await writer.commit()
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@dataclass(frozen=True)
class Parts:
    store: MemoryStore
    files: LocalFiles
    clock: FixedClock
    root: Path
    project: Project

    @property
    def names(self) -> set[str]:
        return {path.name for path in self.root.rglob("*") if path.is_file()} - {".cope-home"}

    async def upload(self, content: bytes, *, sha256: str, expires_in_s: float | None = None) -> StoredFile:
        """As the API does it, without the deletion of bytes that are not needed."""
        file = replace(make_file(self.project.id), sha256=sha256)
        if expires_in_s is not None:
            file = replace(file, expires_at=self.clock.now() + timedelta(seconds=expires_in_s))
        writer = await self.files.create(file.id)
        await writer.write(content)
        await writer.commit()
        return await self.store.create_file(file)

    async def content(self, file: StoredFile) -> bytes:
        return b"".join([chunk async for chunk in self.files.read(file.bytes_id)])


@pytest.fixture
async def parts(tmp_path: Path) -> Parts:
    clock = FixedClock()
    store = MemoryStore(clock, SequentialIds())
    project = await store.create_project(make_project(), "whsec_dGVzdHMtc2lnbi10aGVpci13ZWJob29rcw==")
    return Parts(store, LocalFiles(tmp_path), clock, tmp_path, project)


def killed_while_writing(root: Path, at: str) -> FileId:
    name = FileId(new_id(ids.FILE))
    ended = subprocess.run([sys.executable, "-c", _KILLED, str(root), name, at], check=False, timeout=60)
    assert ended.returncode == -9
    return name


async def test_files_of_equal_content_lie_on_the_disk_once_and_both_are_read(parts: Parts) -> None:
    first = await parts.upload(b"same", sha256="a" * 64)
    second = await parts.upload(b"same", sha256="a" * 64)

    await expire_files(parts, FOREVER)

    assert parts.names == {first.id}
    await parts.store.delete_file(parts.project.id, first.id)
    await expire_files(parts, FOREVER)
    assert await parts.content(second) == b"same"
    await parts.store.delete_file(parts.project.id, second.id)
    await expire_files(parts, FOREVER)
    assert parts.names == set()


async def test_an_expired_file_leaves_the_disk(parts: Parts) -> None:
    await parts.upload(b"short", sha256="a" * 64, expires_in_s=3600)
    kept = await parts.upload(b"kept", sha256="b" * 64)
    parts.clock.advance(3601)

    assert await expire_files(parts, FOREVER) == 1

    assert parts.names == {kept.id}


@pytest.mark.parametrize("at", ["written", "committed"])
async def test_what_a_killed_upload_left_behind_is_collected_and_nothing_else(parts: Parts, at: str) -> None:
    kept = await parts.upload(b"kept", sha256="a" * 64)
    name = killed_while_writing(parts.root, at)
    parts.clock.set(LONG_AFTER)

    assert await collect_strays(parts) == 1
    assert await collect_strays(parts) == 0

    assert parts.names == {kept.id}
    assert await parts.content(kept) == b"kept"
    if at == "committed":
        with pytest.raises(Conflict):  # should it come back to life
            await parts.store.create_file(replace(make_file(parts.project.id), id=name))


async def test_a_young_file_without_a_row_is_left_alone(parts: Parts) -> None:
    name = killed_while_writing(parts.root, "committed")
    half = await parts.files.create(FileId(new_id(ids.FILE)))
    parts.clock.set(datetime.now(UTC))

    assert await collect_strays(parts) == 0
    assert name in parts.names
    await half.discard()


async def test_the_folder_of_another_database_is_not_tidied(parts: Parts) -> None:
    await parts.files.claim("another")
    name = killed_while_writing(parts.root, "committed")
    parts.clock.set(LONG_AFTER)

    assert await collect_strays(parts) == 0
    assert parts.names == {name}


async def test_a_pass_leaves_a_report_that_says_what_is_kept_and_for_how_long(parts: Parts) -> None:
    await parts.upload(b"short", sha256="a" * 64)

    await prune(parts, Keeping(files=timedelta(days=7), events=None))

    text = await parts.store.retention_report()
    assert text is not None
    report = orjson.loads(text)
    assert report["keep_days"] == {"files": 7, "tasks": 90, "live": 30, "events": None, "deliveries": 30}
    assert (report["files"], report["stored_bytes"], report["due_batches"]) == (1, 10, 0)
