"""Who gets which task, for how long, and what becomes of it when a worker dies."""

from cope.core.lifecycle import TaskState
from cope.ports.store import CommitStatus, GiveBack, Lease
from tests.contracts.world import World, batch_ids, done, goes_on
from tests.support import finished_step


async def test_a_claimed_task_carries_its_whole_spec_and_an_empty_history(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project)

    task = await world.claim_one()

    assert task.spec.problem.conversation[0].content == "What is 2 + 3?"
    assert task.spec.policy.tau1.numerator == 3
    assert task.spec.seed == 7
    assert (task.project_id, task.batch_id) == (project.id, batch.id)
    assert (task.history, task.tries, task.crashes) == ((), 0, 0)
    assert task.fence == 1


async def test_a_task_is_claimed_from_the_queue_it_waits_in_and_from_no_other(world: World) -> None:
    await world.batch(await world.project(), queue="small")

    assert await world.claim("large") == []
    assert len(await world.claim("small")) == 1


async def test_a_leased_task_is_not_claimed_again(world: World) -> None:
    await world.batch(await world.project(), 3)

    assert len(await world.claim(limit=2)) == 2
    assert len(await world.claim(limit=2)) == 1
    assert await world.claim(limit=2) == []


async def test_live_calls_come_before_every_batch(world: World) -> None:
    project = await world.project()
    await world.batch(project, 2, priority=-100)
    live = await world.live(project)

    first = await world.claim_one()

    assert first.task_id == live
    assert first.batch_id is None


async def test_a_lower_priority_number_comes_first(world: World) -> None:
    project = await world.project()
    later = await world.batch(project, 2, priority=5)
    sooner = await world.batch(project, 2, priority=1)

    assert batch_ids(await world.claim(limit=2)) == {sooner.id}
    assert batch_ids(await world.claim(limit=2)) == {later.id}


async def test_lines_of_one_batch_are_claimed_in_the_order_of_its_file(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 6)
    page = await world.api.list_tasks(project.id, batch.id, state=None, after=None, limit=10)

    claimed = [(await world.claim_one()).task_id for _ in range(6)]

    assert claimed == [task.id for task in page.items]


async def test_a_thousand_line_batch_does_not_starve_a_ten_line_one(world: World) -> None:
    project = await world.project()
    large = await world.batch(project, 1000)
    await world.claim(limit=100)
    small = await world.batch(project, 10)

    claimed = await world.claim(limit=40)

    assert sum(task.batch_id == small.id for task in claimed) == 10
    assert sum(task.batch_id == large.id for task in claimed) == 30


async def test_a_later_large_batch_does_not_overtake_the_rest_of_an_earlier_one(world: World) -> None:
    project = await world.project()
    earlier = await world.batch(project, 20)
    await world.claim(limit=10)
    await world.batch(project, 300)

    claimed = await world.claim(limit=30)

    assert sum(task.batch_id == earlier.id for task in claimed) == 10


async def test_a_project_with_three_batches_gets_no_more_of_the_queue_than_a_project_with_one(world: World) -> None:
    many, one = await world.project(name="many"), await world.project(name="one")
    for _ in range(3):
        await world.batch(many, 200)
    await world.batch(one, 200)

    first = await world.claim(limit=200)

    mine = sum(task.project_id == one.id for task in first)
    assert mine == 70  # the three get 1 + 1/2 + 1/3 of its share: a batch keeps the stride it began with


async def test_a_short_completion_window_goes_before_a_long_one(world: World) -> None:
    project = await world.project()
    await world.batch(project, 200, expires_in_s=86_400)
    short = await world.batch(project, 20, expires_in_s=3_600)

    first = [task.batch_id for task in await world.claim(limit=25)]

    assert first.count(short.id) == 20


async def test_a_paused_project_is_not_claimed_from_until_it_goes_on(world: World) -> None:
    project = await world.project()
    await world.batch(project)
    await world.api.update_project(project.id, paused=True)
    assert await world.claim() == []

    await world.api.update_project(project.id, paused=False)
    await world.sweep()

    assert len(await world.claim()) == 1


async def test_an_archived_project_is_not_claimed_from(world: World) -> None:
    project = await world.project()
    await world.batch(project)

    await world.api.update_project(project.id, archived=True)

    assert await world.claim() == []


async def test_a_task_given_back_with_a_delay_is_due_only_after_it(world: World) -> None:
    await world.batch(await world.project())
    task = await world.claim_one()

    await world.worker.give_back([GiveBack(task.task_id, task.fence, delay_s=20, count_try=True)])

    assert await world.claim() == []
    await world.advance(21)
    again = await world.claim_one()
    assert (again.tries, again.crashes) == (1, 0)
    assert again.fence > task.fence


async def test_giving_back_without_counting_leaves_tries_as_they_were(world: World) -> None:
    await world.batch(await world.project())
    task = await world.claim_one()

    await world.worker.give_back([GiveBack(task.task_id, task.fence)])

    assert (await world.claim_one()).tries == 0


async def test_renewing_extends_a_lease_beyond_its_first_end(world: World) -> None:
    await world.batch(await world.project())
    task = await world.claim_one(lease_s=30)
    await world.advance(20)

    assert await world.worker.renew([Lease(task.task_id, task.fence)], lease_s=30) == set()
    await world.advance(20)

    assert (await world.sweep()).reclaimed == 0
    assert await world.commit(done(task)) == [CommitStatus.COMMITTED]


async def test_renewing_reports_exactly_the_leases_that_were_lost(world: World) -> None:
    await world.batch(await world.project(), 2)
    kept, lost = await world.claim(limit=2)
    await world.worker.give_back([GiveBack(lost.task_id, lost.fence)])

    leases = [Lease(kept.task_id, kept.fence), Lease(lost.task_id, lost.fence)]

    assert await world.worker.renew(leases, lease_s=30) == {lost.task_id}


async def test_renewing_with_an_older_fence_is_a_lost_lease_though_another_worker_holds_the_task(world: World) -> None:
    await world.batch(await world.project())
    first = await world.claim_one()
    await world.worker.give_back([GiveBack(first.task_id, first.fence)])
    second = await world.claim_one()

    assert second.task_id == first.task_id
    assert await world.worker.renew([Lease(first.task_id, first.fence)], lease_s=30) == {first.task_id}
    assert await world.worker.renew([Lease(second.task_id, second.fence)], lease_s=30) == set()


async def test_renewing_nothing_loses_nothing(world: World) -> None:
    assert await world.worker.renew([], lease_s=30) == set()


async def test_a_lease_that_ran_out_makes_the_task_ready_again_and_counts_one_crash(world: World) -> None:
    await world.batch(await world.project())
    await world.claim_one(lease_s=30)
    await world.advance(31)

    report = await world.sweep()

    assert report.reclaimed == 1
    again = await world.claim_one()
    assert (again.crashes, again.tries) == (1, 0)


async def test_a_worker_whose_lease_was_reclaimed_can_neither_commit_nor_give_back(world: World) -> None:
    await world.batch(await world.project())
    slow = await world.claim_one(lease_s=30)
    await world.advance(31)
    await world.sweep()
    quick = await world.claim_one()

    assert await world.commit(done(slow)) == [CommitStatus.FENCED]
    await world.worker.give_back([GiveBack(slow.task_id, slow.fence, count_try=True)])

    assert await world.state(quick) is TaskState.LEASED
    assert await world.commit(done(quick)) == [CommitStatus.COMMITTED]
    assert len((await world.detail(quick.project_id, quick.task_id)).history) == 1


async def test_sweeping_twice_counts_a_crash_once(world: World) -> None:
    await world.batch(await world.project())
    await world.claim_one(lease_s=30)
    await world.advance(31)

    await world.sweep()

    assert (await world.sweep()).reclaimed == 0
    assert (await world.claim_one()).crashes == 1


async def test_a_task_that_crashed_twice_is_claimed_alone_and_its_neighbours_without_it(world: World) -> None:
    await world.batch(await world.project(), 3)
    poison = await world.claim_one(lease_s=30)
    await world.advance(31)
    await world.sweep()
    assert (await world.claim_one(lease_s=30)).task_id == poison.task_id
    await world.advance(31)
    await world.sweep()

    claims = [await world.claim(limit=10) for _ in range(3)]

    alone = [claim for claim in claims if poison.task_id in {task.task_id for task in claim}]
    assert [len(claim) for claim in alone] == [1]
    assert alone[0][0].crashes == 2
    assert sum(len(claim) for claim in claims) == 3


async def test_history_grows_step_by_step_and_comes_with_the_next_claim(world: World) -> None:
    await world.batch(await world.project())
    first = await world.claim_one("small")
    step = finished_step("stage1")

    assert await world.commit(goes_on(first, "large", step=step)) == [CommitStatus.COMMITTED]

    assert await world.claim("small") == []
    second = await world.claim_one("large")
    assert second.task_id == first.task_id
    assert second.history == (step,)


async def test_due_counts_tasks_by_queue(world: World) -> None:
    project = await world.project()
    await world.batch(project, 3, queue="small")
    await world.batch(project, 2, queue="large")

    due = await world.worker.due()

    assert (due["small"], due["large"]) == (3, 2)


async def test_due_is_capped_at_a_thousand(world: World) -> None:
    await world.batch(await world.project(), 1005)

    assert (await world.worker.due())["small"] == 1000


async def test_one_process_can_lead_the_sweep(world: World) -> None:
    assert await world.worker.try_lead()
    assert await world.worker.try_lead()
