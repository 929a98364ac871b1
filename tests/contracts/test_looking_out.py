"""What a worker is told of its leases between two renewals: whose work is not wanted any more."""

from cope.ports.store import ClaimedTask, Lease
from tests.contracts.world import World, done


def lease(task: ClaimedTask) -> Lease:
    return Lease(task.task_id, task.fence)


async def test_held_leases_are_not_lost_and_looking_does_not_lengthen_them(world: World) -> None:
    project = await world.project()
    await world.batch(project)
    task = await world.claim_one(lease_s=10)

    await world.advance(6)
    assert await world.worker.lost([lease(task)]) == set()
    await world.advance(6)
    await world.sweep()

    assert await world.worker.lost([lease(task)]) == {task.task_id}
    assert await world.worker.lost([]) == set()


async def test_a_cancelled_task_an_ended_one_and_one_of_a_batch_that_is_ending_are_not_to_go_on(world: World) -> None:
    project = await world.project()
    live = await world.live(project)
    batch, other = await world.batch(project, 3, queue="large"), await world.batch(project)
    call = await world.claim_one()
    small = await world.claim_one()
    free, finished, paying = await world.claim("large")
    await world.send(paying, 1_000)
    await world.commit(done(finished))
    await world.api.cancel_live_task(project.id, live)
    await world.api.cancel_batch(project.id, batch.id)

    lost = await world.worker.lost([lease(task) for task in (call, small, free, finished, paying)])

    # The one that pays is told of too: its worker knows that such a call is never cut.
    assert lost == {call.task_id, free.task_id, finished.task_id, paying.task_id}
    assert small.batch_id == other.id
