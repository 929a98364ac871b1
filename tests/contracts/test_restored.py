"""A store that was restored from a backup: nothing goes on in it before its books are reconciled."""

from datetime import timedelta

import pytest

from cope.core.errors import Conflict
from tests.contracts.world import World


async def test_a_store_that_was_never_restored_has_nothing_to_wait_for(world: World) -> None:
    assert await world.api.restore_notice() is None
    assert await world.api.note_reconciled(world.now() - timedelta(days=1), world.now()) is None
    assert await world.api.release_restore() is None


async def test_nothing_is_claimed_in_a_restored_store_until_it_is_reconciled_and_released(world: World) -> None:
    project = await world.project()
    await world.batch(project, 3)
    backup_at = world.now() - timedelta(hours=2)
    await world.mark_restored(backup_at)
    assert await world.claim(limit=10) == []

    with pytest.raises(Conflict) as refused:
        await world.api.release_restore()
    assert refused.value.code == "restored_not_reconciled"
    too_short = await world.api.note_reconciled(backup_at + timedelta(minutes=1), world.now() + timedelta(hours=1))
    assert too_short is not None
    assert too_short.reconciled_at is None
    with pytest.raises(Conflict):
        await world.api.release_restore()

    covered = await world.api.note_reconciled(backup_at, world.now() + timedelta(hours=1))
    assert covered is not None
    assert covered.reconciled_at is not None
    released = await world.api.release_restore()

    assert released is not None
    assert released.held == (project.id,)
    assert await world.api.restore_notice() is None
    assert len(await world.claim(limit=10)) == 3


async def test_an_operator_may_release_it_unreconciled_by_saying_so(world: World) -> None:
    project = await world.project()
    await world.mark_restored(world.now())

    assert await world.api.release_restore(unreconciled=True) is not None
    found = await world.api.get_project(project.id)
    assert found is not None
    assert not found.paused


async def test_no_project_is_resumed_by_hand_meanwhile_and_a_new_one_waits_with_the_others(world: World) -> None:
    project = await world.project()
    await world.mark_restored(world.now())

    with pytest.raises(Conflict) as refused:
        await world.api.update_project(project.id, paused=False)
    assert refused.value.code == "restored_not_reconciled"
    renamed = await world.api.update_project(project.id, name="still paused")
    assert renamed is not None
    assert (renamed.name, renamed.paused) == ("still paused", True)
    new = await world.project(name="made meanwhile")
    assert new.paused

    await world.api.release_restore(unreconciled=True)
    for one in (project, new):
        found = await world.api.get_project(one.id)
        assert found is not None
        assert not found.paused


async def test_a_project_that_was_paused_before_stays_paused_after(world: World) -> None:
    project = await world.project()
    await world.api.update_project(project.id, paused=True)
    await world.mark_restored(world.now())
    await world.api.release_restore(unreconciled=True)

    found = await world.api.get_project(project.id)
    assert found is not None
    assert found.paused


async def test_the_completion_window_stands_still_until_the_release(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 1, expires_in_s=3600)
    await world.mark_restored(world.now())
    await world.advance(7200)
    await world.sweep()
    await world.api.release_restore(unreconciled=True)

    found = await world.see(batch)
    assert found.expires_at is not None
    assert found.expires_at > world.now() + timedelta(minutes=50)
    assert len(await world.claim(limit=1)) == 1
