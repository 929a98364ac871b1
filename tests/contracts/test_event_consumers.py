"""Consumer groups: their place moves forward only, under one member at a time, and anywhere on purpose."""

import pytest

from cope.core.errors import Conflict, NotFound
from cope.core.event_log import Consumer
from cope.core.records import Project
from tests.contracts.world import World


async def group(world: World, *, name: str = "group", committed: int = 0) -> tuple[Project, Consumer]:
    """A group of a project whose log has 6 events."""
    project = await world.project()
    await world.finish_all(project)
    await world.sweep()
    return project, await world.api.put_consumer(project.id, name, types=None, committed=committed)


async def test_a_group_says_where_it_stands(world: World) -> None:
    project, made = await group(world, committed=3)

    assert (made.committed, made.head, made.lag, made.start, made.generation) == (3, 6, 3, 1, 0)
    assert await world.api.get_consumer(project.id, "group") == made
    assert await world.api.list_consumers(project.id) == (made,)


async def test_putting_a_group_again_changes_its_filter_and_not_its_place(world: World) -> None:
    project, _ = await group(world, committed=3)

    again = await world.api.put_consumer(project.id, "group", types=frozenset({"task.done"}), committed=0)

    assert (again.committed, again.types) == (3, {"task.done"})


async def test_a_deleted_group_is_gone_and_its_name_free(world: World) -> None:
    project, _ = await group(world, committed=3)

    assert await world.api.delete_consumer(project.id, "group")
    assert not await world.api.delete_consumer(project.id, "group")
    assert await world.api.get_consumer(project.id, "group") is None
    assert (await world.api.put_consumer(project.id, "group", types=None, committed=0)).committed == 0


async def test_a_commit_moves_the_place_and_the_lag(world: World) -> None:
    project, _ = await group(world)

    done = await world.api.commit_offset(project.id, "group", offset=5, generation=None)
    same = await world.api.commit_offset(project.id, "group", offset=5, generation=None)

    assert (done.committed, done.lag, same.committed) == (5, 1, 5)


async def refusal(world: World, project: Project, *, offset: int, generation: int | None = None) -> str:
    with pytest.raises(Conflict) as refused:
        await world.api.commit_offset(project.id, "group", offset=offset, generation=generation)
    return refused.value.code


async def test_a_commit_never_goes_back_by_accident_nor_beyond_the_log(world: World) -> None:
    project, _ = await group(world, committed=3)

    assert await refusal(world, project, offset=2) == "offset_backwards"
    assert await refusal(world, project, offset=7) == "offset_beyond_head"
    found = await world.api.get_consumer(project.id, "group")
    assert found is not None
    assert found.committed == 3


async def test_a_member_keeps_others_out_while_its_session_lasts(world: World) -> None:
    project, _ = await group(world)

    first = await world.api.join_consumer(project.id, "group", member="a", session_s=30)
    same = await world.api.join_consumer(project.id, "group", member="a", session_s=30)
    with pytest.raises(Conflict) as busy:
        await world.api.join_consumer(project.id, "group", member="b", session_s=30)

    assert (first.member, first.generation, same.generation) == ("a", 1, 1)
    assert busy.value.code == "consumer_busy"
    assert await refusal(world, project, offset=1) == "consumer_fenced"


async def test_who_was_thought_dead_is_fenced_off_by_who_took_over(world: World) -> None:
    project, _ = await group(world)
    stalled = await world.api.join_consumer(project.id, "group", member="a", session_s=30)
    await world.advance(31)
    heir = await world.api.join_consumer(project.id, "group", member="b", session_s=30)

    assert heir.generation == stalled.generation + 1
    assert await refusal(world, project, offset=5, generation=stalled.generation) == "consumer_fenced"
    done = await world.api.commit_offset(project.id, "group", offset=2, generation=heir.generation)
    assert done.committed == 2


async def test_a_member_whose_session_ended_still_commits_if_nobody_took_over(world: World) -> None:
    project, _ = await group(world)
    joined = await world.api.join_consumer(project.id, "group", member="a", session_s=30)
    await world.advance(31)

    done = await world.api.commit_offset(project.id, "group", offset=5, generation=joined.generation)

    assert (done.committed, done.member) == (5, None)


async def test_a_seek_goes_anywhere_and_fences_off_whoever_was_reading(world: World) -> None:
    project, _ = await group(world, committed=6)
    joined = await world.api.join_consumer(project.id, "group", member="a", session_s=30)

    moved = await world.api.seek_consumer(project.id, "group", committed=1)

    assert (moved.committed, moved.lag, moved.member) == (1, 5, None)
    assert await refusal(world, project, offset=5, generation=joined.generation) == "consumer_fenced"


async def test_a_strangers_group_of_the_same_name_is_another(world: World) -> None:
    project, _ = await group(world, committed=3)
    stranger = await world.project()
    for act in (
        world.api.join_consumer(stranger.id, "group", member="a", session_s=30),
        world.api.commit_offset(stranger.id, "group", offset=0, generation=None),
        world.api.seek_consumer(stranger.id, "group", committed=0),
    ):
        with pytest.raises(NotFound):
            await act

    await world.api.put_consumer(stranger.id, "group", types=None, committed=0)

    found = await world.api.get_consumer(project.id, "group")
    assert found is not None
    assert found.committed == 3
