"""Open batches: lines come while others run, each once, all of a request or none, and the end waits for the seal."""

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

import pytest

from cope.core.errors import Conflict, TooLarge
from cope.core.ids import BatchId, FileId
from cope.core.lifecycle import BatchStatus
from cope.core.records import Batch, Project
from cope.ports.store import Appended, NewBatch, NewLine
from tests.contracts.world import LEASE_S, World, done, goes_on, large_step
from tests.support import make_batch, make_new_task

WINDOW = timedelta(hours=1)


def lines(*names: str, text: str = "", queue: str = "small") -> list[NewLine]:
    return [
        NewLine(make_new_task(custom_id=name, queue=queue), sha256(f"{name} {text}".encode()).digest())
        for name in names
    ]


async def opened(world: World, project: Project, *, window: timedelta | None = WINDOW) -> Batch:
    batch = replace(make_batch(project.id, FileId(""), created_at=world.now()), completion_window="1h", open=True)
    return await world.api.create_batch(NewBatch(batch, batch.id.encode(), None, retry=0, open_for=window))


async def append(world: World, batch: Batch, new: list[NewLine], *, most: int = 1_000) -> Appended:
    appended = await world.api.append_lines(batch.project_id, batch.id, new, window=WINDOW, most=most)
    assert appended is not None
    return appended


async def test_an_open_batch_runs_at_once_without_a_file_and_its_total_grows(world: World) -> None:
    project = await world.project()
    batch = await opened(world, project)
    assert (batch.status, batch.open, batch.total, batch.input_file_id) == (BatchStatus.IN_PROGRESS, True, 0, "")
    assert batch.expires_at is not None
    assert abs(batch.expires_at - world.now() - WINDOW) < timedelta(seconds=60)

    first = await append(world, batch, lines("a", "b"))
    task = await world.claim_one()
    second = await append(world, batch, lines("c"))

    assert (first.added, first.batch.total, second.batch.total) == (2, 2, 3)
    assert (task.batch_id, await world.states(batch)) == (batch.id, ["leased", "ready", "ready"])
    page = await world.api.list_tasks(project.id, batch.id, state=None, after=None, limit=10)
    assert [one.custom_id for one in page.items] == ["a", "b", "c"]


async def test_it_does_not_end_before_it_is_sealed_and_then_as_soon_as_its_lines_have(world: World) -> None:
    project = await world.project()
    batch = await opened(world, project)
    await append(world, batch, lines("a"))
    await world.commit(done(await world.claim_one()))
    await world.sweep()
    assert (await world.see(batch)).status is BatchStatus.IN_PROGRESS
    assert await world.worker.claim_finalisation(lease_s=LEASE_S) is None
    await append(world, batch, lines("b"))

    sealed = await world.api.seal_batch(project.id, batch.id)
    assert sealed is not None
    assert (sealed.open, sealed.status) == (False, BatchStatus.IN_PROGRESS)
    await world.commit(done(await world.claim_one()))

    assert await world.finish(batch) is BatchStatus.COMPLETED
    assert (await world.see(batch)).done == 2


@pytest.mark.parametrize("names", [(), ("a",)])
async def test_sealing_ends_a_batch_with_nothing_left_to_do(world: World, names: tuple[str, ...]) -> None:
    project = await world.project()
    batch = await opened(world, project)
    await append(world, batch, lines(*names))
    await world.commit(*[done(task) for task in await world.claim()])

    for _ in range(2):
        sealed = await world.api.seal_batch(project.id, batch.id)
        assert sealed is not None
        assert sealed.status is BatchStatus.FINALIZING

    assert await world.finish(batch) is BatchStatus.COMPLETED


async def test_the_same_line_again_is_accepted_once_and_another_under_its_id_refuses_the_whole_request(
    world: World,
) -> None:
    project = await world.project()
    batch = await opened(world, project)
    await append(world, batch, lines("a", "b"))

    again = await append(world, batch, lines("b", "c"))
    with pytest.raises(Conflict) as reused:
        await append(world, batch, [*lines("d"), *lines("a", text="another")])

    assert (again.added, again.batch.total) == (1, 3)
    assert (reused.value.code, "'a'" in reused.value.message) == ("custom_id_reused", True)
    assert (await world.see(batch)).total == 3
    assert len(await world.claim()) == 3


async def test_a_sealed_batch_takes_no_new_line_but_knows_its_own(world: World) -> None:
    project = await world.project()
    batch = await opened(world, project)
    await append(world, batch, lines("a"))
    await world.api.seal_batch(project.id, batch.id)

    assert (await append(world, batch, lines("a"))).added == 0
    with pytest.raises(Conflict) as closed:
        await append(world, batch, lines("b"))

    assert closed.value.code == "batch_not_open"
    assert (await world.see(batch)).total == 1


async def test_lines_can_not_be_added_to_a_batch_from_a_file_nor_to_a_strangers(world: World) -> None:
    project, stranger = await world.project(), await world.project()
    batch, open_ = await world.batch(project), await opened(world, project)

    with pytest.raises(Conflict):
        await append(world, batch, lines("x"))

    asked = (stranger.id, open_.id), (project.id, BatchId("batch_none"))
    for project_id, batch_id in asked:
        assert await world.api.append_lines(project_id, batch_id, lines("x"), window=WINDOW, most=9) is None
        assert await world.api.seal_batch(project_id, batch_id) is None
    assert (await world.see(open_)).open


async def test_a_batch_of_too_many_lines_is_refused_whole(world: World) -> None:
    project = await world.project()
    batch = await opened(world, project)
    await append(world, batch, lines("a", "b"), most=3)

    with pytest.raises(TooLarge):
        await append(world, batch, lines("c", "d"), most=3)

    assert (await world.see(batch)).total == 2


@pytest.mark.parametrize("names", [(), ("a",)])
async def test_an_unsealed_batch_expires_by_its_window_which_began_with_it(
    world: World, names: tuple[str, ...]
) -> None:
    project = await world.project()
    batch = await opened(world, project)
    await append(world, batch, lines(*names))

    await world.advance(WINDOW.total_seconds() + 1)
    await world.sweep()

    assert (await world.see(batch)).open is False
    assert await world.finish(batch) is BatchStatus.EXPIRED
    with pytest.raises(Conflict):
        await append(world, batch, lines("b"))


async def test_cancelling_an_open_batch_ends_its_lines_and_seals_it(world: World) -> None:
    project = await world.project()
    batch, empty = await opened(world, project), await opened(world, project)
    await append(world, batch, lines("a", "b"))
    await world.commit(done(await world.claim_one()))

    for one in (batch, empty):
        await world.api.cancel_batch(project.id, one.id)
        with pytest.raises(Conflict):
            await append(world, one, lines("c"))
        assert await world.finish(one) is BatchStatus.CANCELLED

    assert await world.states(batch) == ["cancelled", "done"]


async def test_a_held_open_batch_takes_lines_and_begins_none_of_them(world: World) -> None:
    project = await world.project()
    batch = await opened(world, project)
    await world.api.hold_batch(project.id, batch.id)

    await append(world, batch, lines("a"))

    assert await world.claim() == []
    await world.advance(2 * WINDOW.total_seconds())
    await world.sweep()
    await world.api.resume_batch(project.id, batch.id)
    assert len(await world.claim()) == 1


async def test_small_appends_overtake_nobody_who_came_before(world: World) -> None:
    project, other = await world.project(), await world.project()
    batch = await opened(world, project)
    await append(world, batch, lines(*(f"a{i}" for i in range(50))))
    rival = await world.batch(other, 5, expires_in_s=3_600)

    for i in range(20):
        await append(world, batch, lines(f"b{i}"))

    order = [task.batch_id for task in await world.claim(limit=12)]
    assert order.count(rival.id) == 5


async def test_an_escalating_line_of_an_open_batch_goes_on_after_the_seal(world: World) -> None:
    project = await world.project()
    batch = await opened(world, project)
    await append(world, batch, lines("a"))
    await world.commit(goes_on(await world.claim_one()))
    await world.api.seal_batch(project.id, batch.id)

    assert (await world.see(batch)).status is BatchStatus.IN_PROGRESS
    await world.commit(done(await world.claim_one("large"), step=large_step(), stage=3))

    assert await world.finish(batch) is BatchStatus.COMPLETED


async def test_opening_adding_and_sealing_are_in_the_feed(world: World) -> None:
    project = await world.project()
    batch = await opened(world, project)
    await append(world, batch, lines("a"))
    await append(world, batch, lines("a"))
    await world.api.seal_batch(project.id, batch.id)

    types = [event.type for event in await world.events(project)]

    assert types == ["batch.created", "batch.in_progress", "batch.requests_added", "batch.sealed"]


async def test_lines_that_begin_at_the_large_model_count_in_what_an_eta_is_reckoned_from(world: World) -> None:
    batch = await opened(world, await world.project())
    await append(world, batch, lines("a"))
    await append(world, batch, lines("b", "c", queue="large"))
    await world.commit(done(await world.claim_one("large")))

    workload = (await world.see(batch)).workload

    assert workload is not None
    assert (workload.total, workload.ended, workload.at_large, workload.first_large) == (3, 1, 1, 2)


async def test_an_open_batch_without_a_window_never_expires(world: World) -> None:
    project = await world.project()
    batch = await opened(world, project, window=None)
    assert batch.expires_at is None
    appended = await world.api.append_lines(project.id, batch.id, lines("a"), window=None, most=9)
    assert appended is not None
    await world.advance(30 * 86_400)
    await world.sweep()

    await world.commit(done(await world.claim_one()))
    await world.api.seal_batch(project.id, batch.id)

    assert await world.finish(batch) is BatchStatus.COMPLETED
