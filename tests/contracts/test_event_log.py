"""The log of one project: numbered 1, 2, 3 …, in the order of what happened, read by pages, waited for, relayed."""

import asyncio
import json
from datetime import timedelta

from cope.core.ids import ProjectId
from cope.core.records import Event, Project
from tests.contracts.world import World, done, fails, goes_on, large_step

TASK_ENDS = frozenset({"task.done", "task.failed"})


def offsets(events: tuple[Event, ...]) -> list[int | None]:
    return [event.offset for event in events]


async def test_each_projects_offsets_begin_at_1_and_have_no_gap_whatever_others_do(world: World) -> None:
    one, two = await world.project(), await world.project()
    for project in (one, two, one):
        await world.finish_all(project, 2)
        await world.sweep()

    assert offsets(await world.events(one)) == list(range(1, 17))
    assert offsets(await world.events(two)) == list(range(1, 9))


async def test_a_batchs_events_are_in_the_order_of_what_happened(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 2)
    first, second = await world.claim(limit=2)
    await world.commit(goes_on(first))
    await world.commit(fails(second))
    await world.commit(done(await world.claim_one("large"), step=large_step()))
    await world.finish(batch)

    events = await world.events(project)

    assert [event.type for event in events] == [
        "batch.created", "batch.in_progress", "task.step_finished", "task.failed", "task.step_finished", "task.done",
        "batch.finalizing", "batch.completed",
    ]  # fmt: skip
    assert {event.batch_id for event in events} == {batch.id}


async def test_a_page_says_how_far_it_looked_and_whether_there_is_more(world: World) -> None:
    project = await world.project()
    await world.finish_all(project, 2)
    await world.sweep()

    first = await world.api.read_events(project.id, after=0, limit=4)
    rest = await world.api.read_events(project.id, after=first.reached, limit=100)
    nothing = await world.api.read_events(project.id, after=rest.reached, limit=100)

    assert (offsets(first.events), first.reached, first.start, first.head) == ([1, 2, 3, 4], 4, 1, 8)
    assert (first.has_more, rest.has_more) == (True, False)
    assert (offsets(rest.events), rest.reached) == ([5, 6, 7, 8], 8)
    assert (nothing.events, nothing.reached) == ((), 8)


async def test_a_filter_of_types_leaves_the_others_out_and_the_page_still_goes_on_behind_them(world: World) -> None:
    project = await world.project()
    one, two = await world.finish_all(project, 2), await world.finish_all(project, 1)
    await world.sweep()

    ends = await world.api.read_events(project.id, after=0, limit=100, types=TASK_ENDS)
    of_two = await world.api.read_events(project.id, after=0, limit=100, types=TASK_ENDS, batch_id=two.id)
    none = await world.api.read_events(project.id, after=0, limit=100, types=frozenset({"task.held"}))

    assert [event.type for event in ends.events] == ["task.done"] * 3
    assert [event.batch_id for event in ends.events] == [one.id, one.id, two.id]
    assert [event.batch_id for event in of_two.events] == [two.id]
    assert (none.events, none.reached, none.head) == ((), 14, 14)
    assert ends.reached == of_two.reached == 14


async def test_an_empty_log_begins_behind_its_end(world: World) -> None:
    project = await world.project()

    bounds = await world.api.event_bounds(project.id)

    assert (bounds.start, bounds.head, bounds.missed(0)) == (1, 0, 0)
    assert (await world.api.read_events(project.id, after=0, limit=10)).events == ()


async def test_a_stranger_reads_and_measures_its_own_log(world: World) -> None:
    project, stranger = await world.project(), await world.project()
    batch = await world.finish_all(project)
    await world.sweep()

    assert (await world.api.event_bounds(stranger.id)).head == 0
    assert (await world.api.read_events(stranger.id, after=0, limit=10, batch_id=batch.id)).events == ()
    assert await world.api.offset_at(stranger.id, world.now() - timedelta(days=1)) == 0


async def test_an_offset_is_found_by_the_time_at_which_events_entered_the_log(world: World) -> None:
    project = await world.project()
    await world.finish_all(project)
    await world.sweep()
    early = (await world.api.event_bounds(project.id)).head
    await world.advance(3600)
    await world.finish_all(project)
    await world.sweep()
    now = world.now()

    assert await world.api.offset_at(project.id, now - timedelta(minutes=30)) == early
    assert await world.api.offset_at(project.id, now - timedelta(hours=2)) == 0
    assert await world.api.offset_at(project.id, now + timedelta(hours=1)) == 2 * early


async def test_what_is_new_in_several_logs_comes_in_one_answer(world: World) -> None:
    one, two, still = [await world.project() for _ in range(3)]
    for project in (one, two, still):
        await world.finish_all(project)
    await world.sweep()

    found = await world.api.tail_events({one.id: 5, two.id: 0, still.id: 6}, limit=3)

    assert sorted((event.project_id, event.offset) for event in found) == sorted(
        [(one.id, 6), (two.id, 1), (two.id, 2), (two.id, 3)]
    )
    assert [event.offset for event in found if event.project_id == two.id] == [1, 2, 3]
    assert await world.api.tail_events({}, limit=3) == ()


async def test_word_comes_when_a_log_has_grown(world: World) -> None:
    project = await world.project()
    words = world.api.event_words()
    heard: list[frozenset[ProjectId]] = []

    async def listen() -> None:
        async for word in words:
            heard.append(word)
            if project.id in word:
                return

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0.3)
    await world.submit(project)
    await world.sweep()
    await asyncio.wait_for(listening, 10)
    await words.aclose()  # type: ignore[attr-defined]

    assert heard[-1] == {project.id}


async def test_a_live_call_and_a_paused_project_are_told(world: World) -> None:
    project = await world.project()
    task_id = await world.live(project)
    for paused in (True, True, False):
        await world.api.update_project(project.id, paused=paused)
    await world.api.update_project(project.id, archived=True)

    events = await world.events(project)

    assert [event.type for event in events] == ["task.created", "project.paused", "project.resumed", "project.archived"]
    assert events[0].task_id == task_id


async def test_the_relay_reads_every_log_from_its_own_places(world: World) -> None:
    one, two = await world.project(), await world.project()
    await world.finish_all(one)
    await world.finish_all(two)
    await world.sweep()
    assert await world.worker.try_lead_relay()

    first = await world.worker.relay_page(limit=6)
    again = await world.worker.relay_page(limit=6)
    await world.worker.relay_done({one.id: 3, two.id: 3})
    await world.worker.relay_done({one.id: 2})
    rest = await world.worker.relay_page(limit=100)

    assert first == again
    assert by_project(first, one, two) == ([1, 2, 3], [1, 2, 3])
    assert by_project(rest, one, two) == ([4, 5, 6], [4, 5, 6])
    await world.worker.relay_done({one.id: 6, two.id: 6})
    assert await world.worker.relay_page(limit=100) == ()


def by_project(events: tuple[Event, ...], *projects: Project) -> tuple[list[int | None], ...]:
    return tuple([event.offset for event in events if event.project_id == project.id] for project in projects)


async def test_a_held_task_says_why_and_a_step_what_it_cost(world: World) -> None:
    project = await world.project()
    await world.batch(project, 1, queue="large")
    await world.hold(await world.claim_one("large"), 500)
    await world.sweep()
    granted_task = await world.claim_one("large")
    await world.commit(done(granted_task, step=large_step(7)))

    told = {event.type: json.loads(event.data) for event in await world.events(project)}

    assert told["task.held"] == {"reason": "budget", "needed_nanousd": 500}
    assert told["task.step_finished"] == {"step": "stage3", "stage": 3, "cost_nanousd": 7}
