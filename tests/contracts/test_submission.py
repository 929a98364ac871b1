"""Projects, keys, files and batches as the API makes them; repeating oneself costs nothing."""

from dataclasses import replace
from hashlib import sha256

import pytest

from cope.core.errors import Conflict
from cope.core.eta import Workload
from cope.core.ids import FileId, ProjectId
from cope.core.lifecycle import BatchStatus
from cope.core.money import NanoUSD
from cope.core.records import Project
from cope.ports.store import NewBatch
from tests.contracts.world import SECRET, World, done, goes_on
from tests.support import make_batch, make_file, make_key, make_project

A_BODY, ANOTHER_BODY = sha256(b"a").digest(), sha256(b"another").digest()


async def new_batch(
    world: World, project: Project, body: bytes = A_BODY, *, key: str | None = None, retry: int = 0
) -> NewBatch:
    file = await world.api.create_file(make_file(project.id))
    batch = make_batch(project.id, file.id, created_at=world.now())
    return NewBatch(batch, body, key, retry=retry)


async def test_a_new_batch_is_validating_with_nothing_counted(world: World) -> None:
    project = await world.project()

    batch = await world.api.create_batch(await new_batch(world, project))

    assert batch.status is BatchStatus.VALIDATING
    assert (batch.total, batch.done, batch.failed, batch.spent) == (0, 0, 0, 0)
    seen = await world.see(batch)
    assert replace(seen, workload=batch.workload) == batch
    assert seen.workload in (None, Workload(0, 0, 0, 0, 0, 0))


async def test_the_same_idempotency_key_and_body_return_the_first_batch(world: World) -> None:
    project = await world.project()
    first = await world.api.create_batch(await new_batch(world, project, key="k1"))

    second = await world.api.create_batch(await new_batch(world, project, key="k1"))
    third = await world.api.create_batch(await new_batch(world, project, key="k2"))

    assert second.id == first.id
    assert third.id != first.id


async def test_the_same_idempotency_key_with_another_body_is_refused_by_name(world: World) -> None:
    project = await world.project()
    await world.api.create_batch(await new_batch(world, project, key="k1"))

    with pytest.raises(Conflict) as caught:
        await world.api.create_batch(await new_batch(world, project, ANOTHER_BODY, key="k1"))

    assert caught.value.code == "idempotency_key_reused"
    assert len((await world.api.list_batches(project.id, after=None, limit=10)).items) == 1


async def test_idempotency_keys_of_other_projects_do_not_matter(world: World) -> None:
    one, other = await world.project(), await world.project()
    first = await world.api.create_batch(await new_batch(world, one, key="k1"))

    second = await world.api.create_batch(await new_batch(world, other, ANOTHER_BODY, key="k1"))

    assert second.id != first.id


async def test_a_repeat_by_the_sdk_returns_the_first_batch(world: World) -> None:
    project = await world.project()
    first = await world.api.create_batch(await new_batch(world, project))

    again = await world.api.create_batch(await new_batch(world, project, retry=1))
    other = await world.api.create_batch(await new_batch(world, project, ANOTHER_BODY, retry=1))

    assert again.id == first.id
    assert other.id != first.id


async def test_the_same_body_sent_on_purpose_makes_a_second_batch(world: World) -> None:
    project = await world.project()
    first = await world.api.create_batch(await new_batch(world, project))

    second = await world.api.create_batch(await new_batch(world, project))

    assert second.id != first.id


async def test_each_of_two_equal_batches_is_found_by_one_retry(world: World) -> None:
    project = await world.project()
    meant = {(await world.api.create_batch(await new_batch(world, project))).id for _ in range(2)}

    found = [await world.api.create_batch(await new_batch(world, project, retry=1)) for _ in range(2)]
    third = await world.api.create_batch(await new_batch(world, project, retry=1))

    assert {batch.id for batch in found} == meant
    assert third.id not in meant


async def test_a_second_retry_of_one_call_finds_the_same_batch(world: World) -> None:
    project = await world.project()
    first = await world.api.create_batch(await new_batch(world, project))

    again = [(await world.api.create_batch(await new_batch(world, project, retry=n))).id for n in (1, 2)]

    assert again == [first.id, first.id]


async def test_a_repeat_after_a_quarter_of_an_hour_is_a_new_batch(world: World) -> None:
    project = await world.project()
    first = await world.api.create_batch(await new_batch(world, project))
    await world.advance(16 * 60)

    later = await world.api.create_batch(await new_batch(world, project, retry=1))

    assert later.id != first.id


async def test_a_repeat_does_not_find_another_projects_batch(world: World) -> None:
    one, other = await world.project(), await world.project()
    first = await world.api.create_batch(await new_batch(world, one))

    second = await world.api.create_batch(await new_batch(world, other, retry=1))

    assert second.id != first.id


async def test_batches_are_listed_newest_first_in_pages(world: World) -> None:
    project = await world.project()
    made = [(await world.submit(project)).id for _ in range(5)]

    first = await world.api.list_batches(project.id, after=None, limit=3)
    rest = await world.api.list_batches(project.id, after=first.items[-1].id, limit=3)

    assert [batch.id for batch in (*first.items, *rest.items)] == made[::-1]
    assert (first.has_more, rest.has_more) == (True, False)


async def test_a_repeated_live_call_joins_the_one_that_runs(world: World) -> None:
    project = await world.project()
    first = await world.live(project, body=A_BODY)

    assert await world.live(project, body=A_BODY, retry=True) == first
    await world.claim_one()
    assert await world.live(project, body=A_BODY, retry=True) == first


async def test_a_repeated_live_call_finds_the_answer_that_is_already_there(world: World) -> None:
    project = await world.project()
    first = await world.live(project, body=A_BODY)
    await world.commit(done(await world.claim_one()))

    assert await world.live(project, body=A_BODY, retry=True) == first


async def test_a_live_call_that_is_no_repeat_never_joins(world: World) -> None:
    project, other = await world.project(), await world.project()
    first = await world.live(project, body=A_BODY)

    assert await world.live(project, body=A_BODY) != first
    assert await world.live(project, body=ANOTHER_BODY, retry=True) != first
    assert await world.live(other, body=A_BODY, retry=True) != first


async def test_a_live_task_shows_no_batch_and_goes_from_queue_to_queue(world: World) -> None:
    project = await world.project()
    task_id = await world.live(project)
    await world.commit(goes_on(await world.claim_one(), "large"))

    seen = await world.detail(project.id, task_id)

    assert (seen.batch_id, seen.queue, len(seen.history)) == (None, "large", 1)


async def test_a_key_is_found_by_its_hash_until_it_is_revoked(world: World) -> None:
    project = await world.project()
    key = await world.api.create_key(make_key(project.id, "sk-first"))

    found = await world.api.find_key(key.hash)
    assert found is not None
    assert (found.id, found.project_id, found.hint) == (key.id, project.id, "irst")
    assert await world.api.find_key(sha256(b"sk-other").digest()) is None

    assert await world.api.revoke_key(project.id, key.id)
    assert await world.api.find_key(key.hash) is None
    assert not await world.api.revoke_key(project.id, key.id)


async def test_a_projects_keys_are_listed(world: World) -> None:
    project, other = await world.project(), await world.project()
    key = await world.api.create_key(make_key(project.id, "sk-1"))
    await world.api.create_key(make_key(other.id, "sk-2"))

    assert [known.id for known in await world.api.list_keys(project.id)] == [key.id]


async def test_ensuring_the_first_project_makes_it_once(world: World) -> None:
    first, second = make_project("first"), make_project("first")
    key = make_key(first.id, "sk-boot")

    await world.api.ensure_project(first, key, SECRET)
    await world.api.ensure_project(second, make_key(second.id, "sk-boot"), SECRET)

    found = await world.api.find_key(key.hash)
    assert found is not None
    assert found.project_id == first.id
    assert await world.api.get_project(second.id) is None


async def test_a_project_is_shown_as_it_was_made_and_changed(world: World) -> None:
    project = await world.project(name="before", cap=NanoUSD(5))
    assert await world.api.get_project(project.id) == project

    changed = await world.api.update_project(project.id, name="after", default_kind="exact", time_zone="Asia/Tokyo")

    assert changed is not None
    assert (changed.name, changed.default_kind, changed.time_zone) == ("after", "exact", "Asia/Tokyo")
    assert (changed.cap, changed.paused, changed.archived_at) == (5, False, None)
    archived = await world.api.update_project(project.id, archived=True)
    assert archived is not None
    assert archived.archived_at is not None
    assert await world.api.update_project(ProjectId("proj_none"), name="x") is None


async def test_projects_are_listed_in_pages(world: World) -> None:
    made = {(await world.project()).id for _ in range(5)}

    first = await world.api.list_projects(after=None, limit=3)
    rest = await world.api.list_projects(after=first.items[-1].id, limit=3)

    assert {project.id for project in (*first.items, *rest.items)} == made
    assert (first.has_more, rest.has_more) == (True, False)


async def test_a_months_budget_is_zero_before_anything_was_spent(world: World) -> None:
    project = await world.project(cap=NanoUSD(77))

    budget = await world.budget(project)

    assert (budget.cap, budget.spent, budget.reserved, budget.unconfirmed, budget.overrun) == (77, 0, 0, 0, 0)


async def test_files_are_listed_in_both_orders_and_by_purpose(world: World) -> None:
    project = await world.project()
    made = [(await world.api.create_file(make_file(project.id))).id for _ in range(3)]
    output = await world.api.create_file(make_file(project.id, purpose="batch_output"))

    async def listed(
        *, after: FileId | None = None, limit: int = 10, ascending: bool = True, purpose: str | None = None
    ) -> list[FileId]:
        page = await world.api.list_files(project.id, after=after, limit=limit, ascending=ascending, purpose=purpose)
        return [file.id for file in page.items]

    assert await listed() == [*made, output.id]
    assert await listed(ascending=False) == [output.id, *made[::-1]]
    assert await listed(purpose="batch") == made
    assert await listed(after=made[0], limit=1) == [made[1]]
    assert await listed(after=made[1], ascending=False) == [made[0]]


async def test_a_file_that_a_running_batch_reads_is_not_deleted(world: World) -> None:
    project = await world.project()
    batch = await world.submit(project)

    with pytest.raises(Conflict):
        await world.api.delete_file(project.id, batch.input_file_id)

    assert await world.api.get_file(project.id, batch.input_file_id) is not None


async def test_a_file_is_deleted_once(world: World) -> None:
    project = await world.project()
    file = await world.api.create_file(make_file(project.id))

    assert await world.api.delete_file(project.id, file.id)
    assert not await world.api.delete_file(project.id, file.id)
    assert await world.api.get_file(project.id, file.id) is None


async def test_the_input_file_of_a_finished_batch_may_be_deleted(world: World) -> None:
    project = await world.project()
    batch = await world.finish_all(project)

    assert await world.api.delete_file(project.id, batch.input_file_id)


async def test_the_store_answers_a_ping(world: World) -> None:
    await world.api.ping()
