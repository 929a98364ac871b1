"""Files of equal content share their bytes, and no row ever reads bytes that may be deleted: in both stores."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest

from cope.core import ids
from cope.core.errors import Conflict, TooLarge
from cope.core.ids import FileId
from cope.core.keeping import Keeping
from cope.core.records import Project, StoredFile
from cope.ports.retention import Deleted
from cope.ports.store import NewBatch
from tests.contracts.world import LEASE_S, World, pages
from tests.support import make_batch, make_file, make_new_task, new_id

FOREVER = Keeping()
HOUR = 3600.0


def of(project: Project, content: str, *, size: int = 10) -> StoredFile:
    return replace(make_file(project.id, size=size), sha256=content.ljust(64, "0"))


async def test_equal_files_of_one_project_read_the_same_bytes_and_each_has_a_row_of_its_own(world: World) -> None:
    project = await world.project()
    first = await world.api.create_file(of(project, "a"))
    second = await world.api.create_file(of(project, "a"))
    other = await world.api.create_file(of(project, "b"))

    assert first.bytes_id == second.bytes_id == first.id
    assert other.bytes_id == other.id
    seen = await world.worker.file(second.id)
    assert seen is not None
    assert (seen.id, seen.bytes_id) == (second.id, first.id)
    assert (await world.api.stored(project.id)).files == 3
    assert (await world.api.stored(project.id)).bytes == 20
    # What the second one brought is nobody's.
    assert list(await world.worker.freed_bytes(limit=10)) == [second.id]


async def test_projects_never_share(world: World) -> None:
    one, two = await world.project(), await world.project()

    mine, theirs = await world.api.create_file(of(one, "a")), await world.api.create_file(of(two, "a"))

    assert (mine.bytes_id, theirs.bytes_id) == (mine.id, theirs.id)


async def test_results_do_not_share_even_where_they_are_equal(world: World) -> None:
    project = await world.project()
    files = [replace(of(project, "a"), purpose="batch_output") for _ in range(2)]

    assert [(await world.api.create_file(file)).bytes_id for file in files] == [file.id for file in files]


async def test_the_bytes_are_freed_with_the_last_file_that_reads_them(world: World) -> None:
    project = await world.project()
    first, second = await world.api.create_file(of(project, "a")), await world.api.create_file(of(project, "a"))
    await world.worker.emptied([second.id])

    assert await world.api.delete_file(project.id, first.id) == Deleted(None)
    assert list(await world.worker.freed_bytes(limit=10)) == []
    assert (await world.worker.file(second.id)) is not None

    assert await world.api.delete_file(project.id, second.id) == Deleted(first.id)
    assert list(await world.worker.freed_bytes(limit=10)) == [first.id]
    await world.worker.emptied([first.id])
    assert list(await world.worker.freed_bytes(limit=10)) == []


async def test_bytes_that_were_freed_are_never_read_again_by_the_same_content(world: World) -> None:
    project = await world.project()
    first = await world.api.create_file(of(project, "a"))
    await world.api.delete_file(project.id, first.id)

    again = await world.api.create_file(of(project, "a"))

    assert again.bytes_id == again.id


async def test_deleting_and_sending_the_same_content_at_once_leaves_every_row_with_bytes(world: World) -> None:
    project, random = await world.project(), Random(5)
    alive: set[FileId] = set()
    freed: set[FileId] = set()

    async def client(number: int) -> None:
        own: list[FileId] = []
        for _ in range(12):
            if own and random.random() < 0.5:
                deleted = await world.api.delete_file(project.id, own.pop())
                assert deleted is not None
                freed.update([] if deleted.freed is None else [deleted.freed])
            else:
                own.append((await world.api.create_file(of(project, "abc"[number % 2]))).id)
            await asyncio.sleep(0)
        alive.update(own)

    await asyncio.gather(*[client(number) for number in range(6)])

    freed.update(await world.worker.freed_bytes(limit=1000))
    rows = [await world.worker.file(name) for name in sorted(alive)]
    assert all(row is not None and row.bytes_id not in freed for row in rows)
    kept = {row.bytes_id for row in rows if row is not None}
    assert (await world.api.stored(project.id)).bytes == 10 * len(kept)


async def test_a_name_that_was_collected_is_refused_to_whoever_comes_with_it_later(world: World) -> None:
    project, late = await world.project(), FileId(new_id(ids.FILE))

    assert list(await world.worker.disown([late])) == [late]

    with pytest.raises(Conflict) as refused:
        await world.api.create_file(replace(of(project, "a"), id=late))
    assert refused.value.code == "upload_too_late"


async def test_names_of_files_are_not_disowned(world: World) -> None:
    project = await world.project()
    first, second = await world.api.create_file(of(project, "a")), await world.api.create_file(of(project, "a"))
    stray = FileId(new_id(ids.FILE))

    assert list(await world.worker.disown([first.id, second.id, stray])) == [stray]
    assert set(await world.worker.freed_bytes(limit=10)) == {second.id, stray}


async def test_dead_names_are_forgotten_after_a_week(world: World) -> None:
    project = await world.project()
    file = await world.api.create_file(of(project, "a"))
    await world.api.delete_file(project.id, file.id)
    await world.worker.emptied([file.id])
    await world.advance(8 * 24 * HOUR)

    await world.worker.emptied([])

    assert list(await world.worker.disown([file.id])) == [file.id]


async def test_a_project_may_store_so_much_and_shared_bytes_count_once(world: World) -> None:
    project = await world.project()
    await world.api.create_file(of(project, "a", size=60), most_bytes=100)

    with pytest.raises(TooLarge) as refused:
        await world.api.create_file(of(project, "b", size=41), most_bytes=100)
    assert refused.value.code == "project_storage_limit"
    await world.api.create_file(of(project, "a", size=60), most_bytes=100)
    await world.api.create_file(of(project, "b", size=40), most_bytes=100)
    assert (await world.api.stored(project.id)).bytes == 100


async def test_files_go_at_their_time_and_not_before(world: World) -> None:
    project = await world.project()
    now = world.now()
    short = await world.api.create_file(replace(of(project, "a"), expires_at=now + timedelta(hours=1)))
    longer = await world.api.create_file(replace(of(project, "a"), expires_at=now + timedelta(hours=3)))
    always = await world.api.create_file(of(project, "b"))

    assert await world.worker.expire_files(FOREVER, limit=10) == 0
    await world.advance(HOUR + 5)
    assert await world.api.get_file(project.id, short.id) is None
    listed = await world.api.list_files(project.id, after=None, limit=10, ascending=True, purpose=None)
    assert {file.id for file in listed.items} == {longer.id, always.id}
    assert await world.worker.expire_files(FOREVER, limit=10) == 1
    assert short.id not in await world.worker.freed_bytes(limit=10)  # the longer one reads its bytes
    await world.advance(2 * HOUR)
    assert await world.worker.expire_files(FOREVER, limit=10) == 1
    assert short.id in await world.worker.freed_bytes(limit=10)
    assert await world.worker.file(always.id) is not None


async def test_files_that_say_nothing_go_when_the_settings_say(world: World) -> None:
    project = await world.project()
    file = await world.api.create_file(replace(of(project, "a"), created_at=world.now()))
    keeping = Keeping(files=timedelta(days=2))

    await world.advance(24 * HOUR)
    assert await world.worker.expire_files(keeping, limit=10) == 0
    await world.advance(25 * HOUR)
    assert await world.worker.expire_files(FOREVER, limit=10) == 0
    assert await world.worker.expire_files(keeping, limit=10) == 1
    assert await world.worker.file(file.id) is None


async def test_an_input_file_stays_until_its_batch_has_been_read(world: World) -> None:
    project = await world.project()
    file = await world.api.create_file(replace(of(project, "a"), expires_at=world.now() + timedelta(hours=1)))
    batch = replace(make_batch(project.id, file.id), created_at=world.now())
    await world.api.create_batch(NewBatch(batch, b"body", None, retry=0))
    await world.advance(2 * HOUR)

    assert await world.worker.expire_files(FOREVER, limit=10) == 0
    assert (await world.worker.look(FOREVER)).waiting_files == 1

    job = await world.worker.claim_validation(lease_s=LEASE_S)
    assert job is not None
    assert await world.worker.ingest(job, pages([make_new_task(1)]), model=lambda: "cope", expires_in=timedelta(days=1))
    assert await world.worker.expire_files(FOREVER, limit=10) == 1


async def test_a_batch_is_not_made_of_a_file_that_was_deleted_meanwhile(world: World) -> None:
    project = await world.project()
    file = await world.api.create_file(of(project, "a"))
    await world.api.delete_file(project.id, file.id)

    with pytest.raises(Conflict) as refused:
        await world.api.create_batch(NewBatch(make_batch(project.id, file.id), b"body", None, retry=0))
    assert refused.value.code == "file_not_found"


async def test_making_a_batch_and_deleting_its_file_at_once_never_ends_with_a_batch_without_a_file(
    world: World,
) -> None:
    project = await world.project()
    for number in range(10):
        file = await world.api.create_file(of(project, f"{number}"))
        batch = make_batch(project.id, file.id)
        made, deleted = await asyncio.gather(
            world.api.create_batch(NewBatch(batch, f"{number}".encode(), None, retry=0)),
            world.api.delete_file(project.id, file.id),
            return_exceptions=True,
        )
        assert isinstance(made, Conflict) is isinstance(deleted, Deleted)
        assert isinstance(made, Conflict) or await world.worker.file(file.id) is not None
