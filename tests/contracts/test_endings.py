"""Cancelling and expiry: paid calls under way commit first, nothing else runs, no line is lost."""

from cope.core.lifecycle import BatchStatus, TaskState
from cope.core.money import NanoUSD
from cope.ports.store import CommitStatus, Fenced, GiveBack, Granted, Lease
from tests.contracts.world import World, bill, done, goes_on, large_step


async def test_cancelling_ends_waiting_and_free_tasks_at_once(world: World) -> None:
    project = await world.project(cap=NanoUSD(0))
    batch = await world.batch(project, 4)
    running, held, finished = await world.claim(limit=3)
    await world.hold(held, 100)
    await world.commit(done(finished))

    cancelled = await world.api.cancel_batch(project.id, batch.id)

    assert cancelled is not None
    assert cancelled.status is BatchStatus.CANCELLING
    assert cancelled.cancelling_at is not None
    assert await world.states(batch) == ["cancelled", "cancelled", "cancelled", "done"]
    assert await world.worker.renew([Lease(running.task_id, running.fence)], lease_s=30) == {running.task_id}
    assert await world.claim() == []


async def test_a_cancelled_batch_is_finalised_as_cancelled(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 3)
    await world.commit(done(await world.claim_one()))
    await world.api.cancel_batch(project.id, batch.id)

    assert await world.finish(batch) is BatchStatus.CANCELLED

    seen = await world.see(batch)
    assert (seen.status, seen.done) == (BatchStatus.CANCELLED, 1)
    assert seen.cancelled_at is not None
    assert seen.output_file_id is not None


async def test_the_commit_of_a_task_that_was_cancelled_meanwhile_says_so(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project)
    task = await world.claim_one()
    await world.api.cancel_batch(project.id, batch.id)

    assert await world.commit(done(task)) == [CommitStatus.CANCELLED]
    assert await world.state(task) is TaskState.CANCELLED


async def test_a_paid_call_under_way_commits_before_its_task_is_cancelled(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    batch = await world.batch(project, 2, queue="large")
    task = await world.claim_one("large")
    granted = await world.send(task, 900)

    await world.api.cancel_batch(project.id, batch.id)

    assert await world.states(batch) == ["cancelled", "leased"]
    assert await world.worker.claim_finalisation(lease_s=30) is None
    assert await world.worker.renew([Lease(task.task_id, task.fence)], lease_s=30) == set()
    await world.commit(goes_on(task, "small", step=large_step(300), bills=(bill(granted, 300),)))
    assert await world.state(task) is TaskState.CANCELLED
    budget = await world.budget(project)
    assert (budget.spent, budget.reserved, budget.unconfirmed) == (300, 0, 0)
    assert (await world.finalisation()).batch.id == batch.id


async def test_a_paid_answer_that_ends_its_task_is_kept_though_the_batch_was_cancelled(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    batch = await world.batch(project, queue="large")
    task = await world.claim_one("large")
    granted = await world.send(task, 900)
    await world.api.cancel_batch(project.id, batch.id)

    await world.commit(done(task, step=large_step(300), bills=(bill(granted, 300),), stage=3))

    assert await world.state(task) is TaskState.DONE
    assert len(await world.lines(batch, failed=False)) == 1
    assert await world.finish(batch) is BatchStatus.CANCELLED


async def test_a_cancelled_task_begins_no_further_paid_call(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    batch = await world.batch(project, 2, queue="large")
    asked, asking = await world.claim("large", limit=2)
    granted = await world.reserve(asked, 100)
    assert isinstance(granted, Granted)

    await world.api.cancel_batch(project.id, batch.id)

    assert await world.worker.mark_sent([granted.attempt_id]) == set()
    assert isinstance(await world.reserve(asking, 100), Fenced)
    await world.sweep()
    budget = await world.budget(project)
    assert (budget.spent, budget.reserved, budget.unconfirmed) == (0, 0, 0)


async def test_a_cancelled_batch_ends_even_if_the_worker_of_its_paid_call_died(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    batch = await world.batch(project, queue="large")
    task = await world.claim_one("large", lease_s=30)
    await world.send(task, 900)
    await world.api.cancel_batch(project.id, batch.id)
    await world.advance(31)

    await world.sweep()
    await world.sweep()

    assert await world.state(task) is TaskState.CANCELLED
    assert (await world.budget(project)).unconfirmed == 900
    assert await world.finish(batch) is BatchStatus.CANCELLED


async def test_a_cancelled_task_that_is_given_back_ends_as_cancelled(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    batch = await world.batch(project, queue="large")
    task = await world.claim_one("large")
    granted = await world.send(task, 900)
    await world.api.cancel_batch(project.id, batch.id)

    await world.worker.give_back([GiveBack(task.task_id, task.fence, released=(granted.attempt_id,))])
    await world.sweep()

    assert await world.state(task) is TaskState.CANCELLED
    assert await world.claim("large") == []


async def test_cancelling_twice_changes_nothing(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 2)
    first = await world.api.cancel_batch(project.id, batch.id)

    second = await world.api.cancel_batch(project.id, batch.id)

    assert first is not None
    assert second is not None
    assert (second.status, second.cancelling_at) == (first.status, first.cancelling_at)


async def test_a_terminal_batch_stays_as_it_is_when_it_is_cancelled(world: World) -> None:
    project = await world.project()
    batch = await world.finish_all(project)

    again = await world.api.cancel_batch(project.id, batch.id)

    assert again is not None
    assert again.status is BatchStatus.COMPLETED


async def test_a_batch_cancelled_during_validation_is_never_ingested(world: World) -> None:
    project = await world.project()
    batch = await world.submit(project)

    await world.api.cancel_batch(project.id, batch.id)

    assert await world.worker.claim_validation(lease_s=30) is None
    assert await world.finish(batch) is BatchStatus.CANCELLED


async def test_a_live_call_is_cancelled_before_its_next_step(world: World) -> None:
    project = await world.project()
    waiting, leased = await world.live(project, body=b"1"), await world.live(project, body=b"2")
    first = await world.claim_one()

    await world.api.cancel_live_task(project.id, waiting)
    await world.api.cancel_live_task(project.id, leased)

    assert await world.commit(goes_on(first)) == [CommitStatus.CANCELLED]
    assert await world.claim() == []
    results = await world.api.live_results([waiting, leased])
    assert len(results) == 2
    assert all(result.status != 200 for result in results)


async def test_a_live_calls_paid_answer_is_kept_though_its_caller_left(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    task_id = await world.live(project, queue="large")
    task = await world.claim_one("large")
    granted = await world.send(task, 100)

    await world.api.cancel_live_task(project.id, task_id)
    await world.commit(done(task, step=large_step(70), bills=(bill(granted, 70),)))

    assert await world.state(task) is TaskState.DONE
    assert (await world.budget(project)).spent == 70


async def test_a_batch_that_outlives_its_window_expires_with_what_it_has(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 3, expires_in_s=3_600)
    await world.commit(done(await world.claim_one()))
    assert (await world.sweep()).expired == 0

    await world.advance(3_601)
    assert (await world.sweep()).expired >= 1

    assert await world.states(batch) == ["done", "expired", "expired"]
    assert await world.claim() == []
    assert await world.finish(batch) is BatchStatus.EXPIRED
    seen = await world.see(batch)
    assert (seen.status, seen.total, seen.done) == (BatchStatus.EXPIRED, 3, 1)
    assert seen.expired_at is not None


async def test_a_paid_call_under_way_commits_before_its_task_expires(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    batch = await world.batch(project, queue="large", expires_in_s=3_600)
    task = await world.claim_one("large", lease_s=10_000)
    granted = await world.send(task, 900)
    await world.advance(3_601)

    await world.sweep()
    assert await world.states(batch) == ["leased"]
    await world.commit(done(task, step=large_step(300), bills=(bill(granted, 300),), stage=3))

    assert await world.states(batch) == ["done"]
    assert (await world.budget(project)).spent == 300
    assert await world.finish(batch) is BatchStatus.EXPIRED


async def test_cancelled_and_expired_lines_are_error_lines_that_were_never_executed(world: World) -> None:
    project = await world.project()
    cancelled = await world.batch(project, 2)
    await world.api.cancel_batch(project.id, cancelled.id)
    expired = await world.batch(project, 2, expires_in_s=60)
    await world.advance(61)
    await world.sweep()

    for batch, code in ((cancelled, "batch_cancelled"), (expired, "batch_expired")):
        lines = await world.lines(batch, failed=True)
        assert [line.custom_id for line in lines] == ["line-1", "line-2"]
        assert all(line.status is None and line.body is None for line in lines)
        assert all(line.error is not None and line.error.code == code for line in lines)
        assert await world.lines(batch, failed=False) == []
