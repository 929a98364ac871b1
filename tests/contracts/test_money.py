"""Spend by reserving: exact to the nano-dollar, whatever happens to the worker."""

import asyncio

import pytest

from cope.core.budget import month_of
from cope.core.errors import NotFound
from cope.core.ids import ProjectId
from cope.core.lifecycle import AttemptState, HoldReason
from cope.core.money import NanoUSD
from cope.core.records import Budget
from cope.ports.store import Adopted, CommitStatus, Fenced, GiveBack, Granted, Paused, Refused, StepCommit
from tests.contracts.world import World, ask, bill, done, goes_on, large_step


def sums(budget: Budget) -> tuple[int, int, int, int]:
    """Spent, reserved, unconfirmed, overrun."""
    return budget.spent, budget.reserved, budget.unconfirmed, budget.overrun


async def test_headroom_for_exactly_three_grants_exactly_three_in_the_order_asked(world: World) -> None:
    project = await world.project(cap=NanoUSD(3_000))
    await world.batch(project, 5, queue="large")
    tasks = await world.claim("large", limit=5)

    results = await world.worker.reserve([ask(task, 1_000) for task in tasks])

    assert [type(result) for result in results] == [Granted, Granted, Granted, Refused, Refused]
    assert sums(await world.budget(project)) == (0, 3_000, 0, 0)
    refused = results[3]
    assert isinstance(refused, Refused)
    assert (refused.needed, refused.headroom) == (1_000, 0)


async def test_one_nano_dollar_too_little_refuses_the_last(world: World) -> None:
    project = await world.project(cap=NanoUSD(2_999))
    await world.batch(project, 3, queue="large")
    tasks = await world.claim("large", limit=3)

    results = await world.worker.reserve([ask(task, 1_000) for task in tasks])

    assert [type(result) for result in results] == [Granted, Granted, Refused]
    refused = results[2]
    assert isinstance(refused, Refused)
    assert (refused.needed, refused.headroom) == (1_000, 999)


async def test_many_workers_at_once_never_get_more_than_the_cap(world: World) -> None:
    project = await world.project(cap=NanoUSD(7_500))
    await world.batch(project, 20, queue="large")
    tasks = await world.claim("large", limit=20)

    results = await asyncio.gather(*(world.reserve(task, 1_000) for task in tasks))

    assert sum(isinstance(result, Granted) for result in results) == 7
    assert sums(await world.budget(project)) == (0, 7_000, 0, 0)


async def test_a_cap_of_zero_grants_nothing(world: World) -> None:
    project = await world.project(cap=NanoUSD(0))
    await world.batch(project, queue="large")

    assert isinstance(await world.reserve(await world.claim_one("large"), 1), Refused)


async def test_no_cap_is_without_limit(world: World) -> None:
    project = await world.project(cap=None)
    await world.batch(project, queue="large")

    granted = await world.reserve(await world.claim_one("large"), 10**15)

    assert isinstance(granted, Granted)
    budget = await world.budget(project)
    assert (budget.cap, budget.reserved) == (None, 10**15)


async def test_projects_have_budgets_of_their_own(world: World) -> None:
    poor, rich = await world.project(cap=NanoUSD(10)), await world.project(cap=NanoUSD(10_000))
    await world.batch(poor, queue="large")
    await world.batch(rich, queue="large")
    tasks = await world.claim("large", limit=2)

    results = dict(
        zip((task.project_id for task in tasks), await world.worker.reserve([ask(t, 100) for t in tasks]), strict=True)
    )

    assert isinstance(results[poor.id], Refused)
    assert isinstance(results[rich.id], Granted)


@pytest.mark.parametrize("time_zone", ["UTC", "Pacific/Kiritimati", "Etc/GMT+12"])
async def test_money_is_booked_in_the_month_that_the_projects_own_zone_is_in(world: World, time_zone: str) -> None:
    project = await world.project(cap=NanoUSD(100), time_zone=time_zone)
    await world.batch(project, queue="large")

    granted = await world.reserve(await world.claim_one("large"), 10)

    assert isinstance(granted, Granted)
    assert granted.month == month_of(world.now(), time_zone)
    assert (await world.api.get_budget(project.id, granted.month)).reserved == 10
    assert (await world.api.get_budget(project.id, "1999-12")).reserved == 0


async def test_lowering_the_cap_below_what_is_granted_never_fails_and_takes_nothing_back(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    batch = await world.batch(project, 2, queue="large")
    first, second = await world.claim("large", limit=2)
    granted = await world.send(first, 800)

    lowered = await world.api.set_cap(project.id, NanoUSD(100))

    assert (lowered.cap, lowered.reserved) == (100, 800)
    assert isinstance(await world.reserve(second, 1), Refused)
    assert await world.commit(done(first, step=large_step(700), bills=(bill(granted, 700),))) == [
        CommitStatus.COMMITTED
    ]
    assert sums(await world.budget(project)) == (700, 0, 0, 0)
    assert (await world.see(batch)).spent == 700


async def test_a_project_without_a_cap_may_be_given_one_below_what_it_has_already_spent(world: World) -> None:
    project = await world.project(cap=None)
    await world.batch(project, 2, queue="large")
    first, second = await world.claim("large", limit=2)
    granted = await world.send(first, 800)

    capped = await world.api.set_cap(project.id, NanoUSD(100))

    assert (capped.cap, capped.reserved) == (100, 800)
    await world.commit(done(first, step=large_step(700), bills=(bill(granted, 700),)))
    assert isinstance(await world.reserve(second, 1), Refused)
    assert sums(await world.budget(project)) == (700, 0, 0, 0)


async def test_a_refusal_under_a_lowered_cap_says_a_headroom_of_zero_and_not_less(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await world.batch(project, 2, queue="large")
    first, second = await world.claim("large", limit=2)
    await world.send(first, 800)
    await world.api.set_cap(project.id, NanoUSD(100))

    refused = await world.reserve(second, 1)

    assert isinstance(refused, Refused)
    assert refused.headroom == 0


async def test_raising_the_cap_counts_at_once_and_so_does_taking_it_away(world: World) -> None:
    project = await world.project(cap=NanoUSD(0))
    await world.batch(project, 2, queue="large")
    first, second = await world.claim("large", limit=2)

    raised = await world.api.set_cap(project.id, NanoUSD(500))
    assert raised.cap == 500
    assert isinstance(await world.reserve(first, 500), Granted)

    assert (await world.api.set_cap(project.id, None)).cap is None
    assert isinstance(await world.reserve(second, 10**12), Granted)
    seen = await world.api.get_project(project.id)
    assert seen is not None
    assert seen.cap is None


async def test_setting_the_cap_of_a_project_that_is_not_there_is_not_found(world: World) -> None:
    with pytest.raises(NotFound):
        await world.api.set_cap(ProjectId("proj_none"), NanoUSD(1))


async def test_a_paused_project_gets_no_money(world: World) -> None:
    project = await world.project()
    await world.batch(project, queue="large")
    task = await world.claim_one("large")
    await world.api.update_project(project.id, paused=True)

    assert await world.reserve(task, 1) == Paused(HoldReason.PAUSED)


async def test_a_lost_lease_gets_no_money(world: World) -> None:
    project = await world.project()
    await world.batch(project, queue="large")
    task = await world.claim_one("large")
    await world.worker.give_back([GiveBack(task.task_id, task.fence)])

    assert isinstance(await world.reserve(task, 1), Fenced)
    assert sums(await world.budget(project)) == (0, 0, 0, 0)


async def test_reserving_nothing_is_fine(world: World) -> None:
    assert await world.worker.reserve([]) == []
    assert await world.worker.mark_sent([]) == set()


async def test_settling_moves_the_reserve_to_what_was_really_spent(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    batch = await world.batch(project, queue="large")
    task = await world.claim_one("large")
    granted = await world.send(task, 900)
    assert (await world.see(batch)).reserved == 900

    await world.commit(done(task, step=large_step(123), bills=(bill(granted, 123),)))

    assert sums(await world.budget(project)) == (123, 0, 0, 0)
    seen = await world.see(batch)
    assert (seen.spent, seen.reserved, seen.unconfirmed) == (123, 0, 0)
    (attempt,) = (await world.detail(project.id, task.task_id)).attempts
    assert (attempt.state, attempt.cost, attempt.reserved) == (AttemptState.SETTLED, 123, 900)
    assert attempt.sent_at is not None
    assert attempt.settled_at is not None


async def test_a_fenced_commit_settles_nothing(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await world.batch(project, queue="large")
    task = await world.claim_one("large", lease_s=30)
    granted = await world.send(task, 900)
    await world.advance(31)
    await world.sweep()

    assert await world.commit(done(task, step=large_step(5), bills=(bill(granted, 5),))) == [CommitStatus.FENCED]

    assert sums(await world.budget(project)) == (0, 0, 900, 0)


async def test_an_attempt_is_settled_once_however_often_it_is_reported(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await world.batch(project, queue="large")
    task = await world.claim_one("large")
    granted = await world.send(task, 900)
    await world.commit(goes_on(task, "large", step=large_step(100), bills=(bill(granted, 100),)))

    await world.worker.store_late_answer(bill(granted, 100), "late")
    await world.worker.give_back([GiveBack(task.task_id, task.fence, settlements=(bill(granted, 100),))])

    assert sums(await world.budget(project)) == (100, 0, 0, 0)


async def test_a_call_is_marked_as_sent_once_and_only_while_its_reservation_is_there(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await world.batch(project, 2, queue="large")
    kept, gone = await world.claim("large", limit=2)
    first, second = await world.reserve(kept, 10), await world.reserve(gone, 10)
    assert isinstance(first, Granted)
    assert isinstance(second, Granted)
    await world.worker.give_back([GiveBack(gone.task_id, gone.fence, released=(second.attempt_id,))])

    assert await world.worker.mark_sent([first.attempt_id, second.attempt_id]) == {first.attempt_id}


async def test_a_released_reservation_is_free_for_others(world: World) -> None:
    project = await world.project(cap=NanoUSD(100))
    await world.batch(project, 2, queue="large")
    first, second = await world.claim("large", limit=2)
    granted = await world.reserve(first, 100)
    assert isinstance(granted, Granted)
    assert isinstance(await world.reserve(second, 100), Refused)

    await world.worker.give_back([GiveBack(first.task_id, first.fence, released=(granted.attempt_id,))])

    assert isinstance(await world.reserve(second, 100), Granted)


async def test_a_call_that_was_marked_but_never_left_can_be_released_too(world: World) -> None:
    project = await world.project(cap=NanoUSD(100))
    await world.batch(project, queue="large")
    task = await world.claim_one("large")
    granted = await world.send(task, 100)

    await world.worker.give_back([GiveBack(task.task_id, task.fence, released=(granted.attempt_id,))])
    await world.worker.give_back([GiveBack(task.task_id, task.fence, released=(granted.attempt_id,))])

    assert sums(await world.budget(project)) == (0, 0, 0, 0)


async def test_a_commit_releases_what_it_says(world: World) -> None:
    project = await world.project(cap=NanoUSD(100))
    await world.batch(project, queue="large")
    task = await world.claim_one("large")
    granted = await world.reserve(task, 100)
    assert isinstance(granted, Granted)
    end = done(task, step=large_step())

    await world.commit(StepCommit(end.task_id, end.fence, end.finished, end.next, released=(granted.attempt_id,)))

    assert sums(await world.budget(project)) == (0, 0, 0, 0)


async def test_a_worker_that_dies_before_the_call_costs_nothing(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await world.batch(project, queue="large")
    task = await world.claim_one("large", lease_s=30)
    granted = await world.reserve(task, 900)
    assert isinstance(granted, Granted)
    await world.advance(31)

    report = await world.sweep()

    assert (report.reclaimed, report.released, report.unconfirmed) == (1, 1, 0)
    assert sums(await world.budget(project)) == (0, 0, 0, 0)
    assert await world.worker.mark_sent([granted.attempt_id]) == set()


async def test_a_worker_that_dies_during_the_call_leaves_its_reserve_unconfirmed(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    batch = await world.batch(project, queue="large")
    task = await world.claim_one("large", lease_s=30)
    await world.send(task, 900)
    await world.advance(31)

    report = await world.sweep()

    assert (report.reclaimed, report.released, report.unconfirmed) == (1, 0, 1)
    assert sums(await world.budget(project)) == (0, 0, 900, 0)
    seen = await world.see(batch)
    assert (seen.reserved, seen.unconfirmed) == (0, 900)


async def test_unconfirmed_money_counts_against_the_cap(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await world.batch(project, queue="large")
    task = await world.claim_one("large", lease_s=30)
    await world.send(task, 900)
    await world.advance(31)
    await world.sweep()

    refused = await world.reserve(await world.claim_one("large"), 900)

    assert isinstance(refused, Refused)
    assert refused.headroom == 100


async def test_a_call_whose_outcome_nobody_reported_becomes_unconfirmed_after_its_lease_was_given_back(
    world: World,
) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await world.batch(project, queue="large")
    task = await world.claim_one("large")
    await world.send(task, 900)
    await world.worker.give_back([GiveBack(task.task_id, task.fence, count_try=True)])

    await world.sweep()

    assert sums(await world.budget(project)) == (0, 0, 900, 0)


async def test_a_live_lease_keeps_its_attempts_through_a_sweep(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await world.batch(project, queue="large")
    task = await world.claim_one("large")
    await world.send(task, 900)

    await world.sweep()

    assert sums(await world.budget(project)) == (0, 900, 0, 0)


async def test_a_late_answer_settles_its_attempt_and_the_next_try_adopts_it(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    batch = await world.batch(project, queue="large")
    slow = await world.claim_one("large", lease_s=30)
    granted = await world.send(slow, 900)
    await world.advance(31)
    await world.sweep()

    await world.worker.store_late_answer(bill(granted, 250), "the late answer")
    await world.worker.store_late_answer(bill(granted, 250), "the late answer")

    assert sums(await world.budget(project)) == (250, 0, 0, 0)
    assert (await world.see(batch)).spent == 250
    again = await world.claim_one("large")
    assert await world.reserve(again, 900) == Adopted(granted.attempt_id, "the late answer")
    assert sums(await world.budget(project)) == (250, 0, 0, 0)


async def test_an_adopted_answer_is_still_there_if_the_adopting_worker_dies_too(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await world.batch(project, queue="large")
    slow = await world.claim_one("large", lease_s=30)
    granted = await world.send(slow, 900)
    await world.advance(31)
    await world.sweep()
    await world.worker.store_late_answer(bill(granted, 250), "the late answer")
    await world.reserve(await world.claim_one("large", lease_s=30), 900)
    await world.advance(31)
    await world.sweep()

    assert isinstance(await world.reserve(await world.claim_one("large"), 900), Adopted)


async def test_a_late_answer_is_adopted_by_its_own_step_only(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await world.batch(project, queue="large")
    slow = await world.claim_one("large", lease_s=30)
    granted = await world.send(slow, 100, step="stage2-plan")
    await world.advance(31)
    await world.sweep()
    await world.worker.store_late_answer(bill(granted, 50), "a plan")

    again = await world.claim_one("large")

    assert isinstance(await world.reserve(again, 100, step="stage3"), Granted)


async def test_a_late_answer_that_comes_before_the_sweep_settles_too(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await world.batch(project, queue="large")
    slow = await world.claim_one("large")
    granted = await world.send(slow, 900)
    await world.worker.give_back([GiveBack(slow.task_id, slow.fence)])

    await world.worker.store_late_answer(bill(granted, 250), "the late answer")
    await world.sweep()

    assert sums(await world.budget(project)) == (250, 0, 0, 0)


async def test_what_a_provider_bills_beyond_the_reserve_is_recorded_apart_and_stops_the_project(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await world.batch(project, 2, queue="large")
    task = await world.claim_one("large")
    granted = await world.send(task, 1_000)

    status = await world.commit(done(task, step=large_step(1_300), bills=(bill(granted, 1_000, overrun=300),)))

    assert status == [CommitStatus.COMMITTED]
    assert sums(await world.budget(project)) == (1_000, 0, 0, 300)
    seen = await world.api.get_project(project.id)
    assert seen is not None
    assert seen.paused
    assert await world.claim("large") == []


async def test_the_sum_of_steps_equals_what_was_spent(world: World) -> None:
    project = await world.project(cap=NanoUSD(10**9))
    batch = await world.batch(project, 7, queue="large")
    costs = [1, 75, 1_999, 3, 212_000, 17, 10**8]
    for cost in costs:
        task = await world.claim_one("large")
        granted = await world.send(task, cost + 10)
        await world.commit(done(task, step=large_step(cost), bills=(bill(granted, cost),)))

    page = await world.api.list_tasks(project.id, batch.id, state="done", after=None, limit=10)
    assert sum(step.cost for task in page.items for step in task.history) == sum(costs)
    assert sums(await world.budget(project)) == (sum(costs), 0, 0, 0)
    assert (await world.see(batch)).spent == sum(costs)
