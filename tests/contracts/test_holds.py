"""Waiting for money, quota or an operator: nothing fails, nothing is lost, and held time does not count."""

from datetime import timedelta

from cope.core.lifecycle import BatchStatus, HoldReason, TaskState
from cope.core.money import NanoUSD
from cope.ports.store import GiveBack, Granted
from tests.contracts.world import World, bill, done, large_step


async def test_a_held_task_is_not_claimed_and_its_batch_says_why_it_waits(world: World) -> None:
    project = await world.project(cap=NanoUSD(0))
    batch = await world.batch(project, 2, queue="large")
    task = await world.claim_one("large")

    await world.hold(task, 700)
    await world.sweep()

    assert await world.state(task) is TaskState.HELD
    assert (await world.detail(project.id, task.task_id)).hold is HoldReason.BUDGET
    seen = await world.see(batch)
    assert seen.status is BatchStatus.IN_PROGRESS
    assert {reason: count for reason, count in seen.held.items() if count} == {HoldReason.BUDGET: 1}
    assert seen.needed == 700
    assert seen.held_since is not None
    assert task.task_id not in {other.task_id for other in await world.claim("large")}


async def test_holding_counts_neither_a_try_nor_a_crash(world: World) -> None:
    project = await world.project(cap=NanoUSD(0))
    await world.batch(project, queue="large")
    await world.hold(await world.claim_one("large"), 700)
    await world.api.set_cap(project.id, NanoUSD(700))
    await world.sweep()

    again = await world.claim_one("large")

    assert (again.tries, again.crashes) == (0, 0)


async def test_raising_the_cap_resumes_only_as_many_as_it_covers(world: World) -> None:
    project = await world.project(cap=NanoUSD(0))
    batch = await world.batch(project, 5, queue="large")
    for task in await world.claim("large", limit=5):
        await world.hold(task, 1_000)
    assert (await world.sweep()).resumed == 0

    await world.api.set_cap(project.id, NanoUSD(2_500))
    report = await world.sweep()

    assert report.resumed == 2
    assert await world.states(batch) == ["held", "held", "held", "ready", "ready"]
    seen = await world.see(batch)
    assert {reason: count for reason, count in seen.held.items() if count} == {HoldReason.BUDGET: 3}


async def test_a_second_sweep_resumes_nobody_on_money_that_the_first_ones_are_about_to_ask_for(world: World) -> None:
    project = await world.project(cap=NanoUSD(0))
    batch = await world.batch(project, 4, queue="large")
    for task in await world.claim("large", limit=4):
        await world.hold(task, 1_000)
    await world.api.set_cap(project.id, NanoUSD(2_000))

    resumed = [(await world.sweep()).resumed for _ in range(3)]

    assert resumed == [2, 0, 0]
    tasks = await world.claim("large", limit=4)
    assert [type(await world.reserve(task, 1_000)) for task in tasks] == [Granted, Granted]
    assert (await world.sweep()).resumed == 0
    assert await world.states(batch) == ["held", "held", "leased", "leased"]


async def test_money_that_others_have_reserved_resumes_nobody(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await world.batch(project, 2, queue="large")
    paying, waiting = await world.claim("large", limit=2)
    granted = await world.send(paying, 900)
    await world.hold(waiting, 900)
    assert (await world.sweep()).resumed == 0

    await world.commit(done(paying, step=large_step(50), bills=(bill(granted, 50),)))

    assert (await world.sweep()).resumed == 1
    assert (await world.claim_one("large")).task_id == waiting.task_id


async def test_taking_the_cap_away_resumes_all(world: World) -> None:
    project = await world.project(cap=NanoUSD(0))
    batch = await world.batch(project, 3, queue="large")
    for task in await world.claim("large", limit=3):
        await world.hold(task, 10**12)

    await world.api.set_cap(project.id, None)

    assert (await world.sweep()).resumed == 3
    seen = await world.see(batch)
    assert not any(seen.held.values())
    assert seen.held_since is None


async def test_one_projects_money_resumes_no_task_of_another(world: World) -> None:
    poor, rich = await world.project(cap=NanoUSD(0)), await world.project(cap=NanoUSD(0))
    for project in (poor, rich):
        await world.batch(project, queue="large")
        await world.hold(await world.claim_one("large"), 100)

    await world.api.set_cap(rich.id, NanoUSD(100))

    assert (await world.sweep()).resumed == 1
    assert (await world.claim_one("large")).project_id == rich.id


async def test_a_quota_hold_is_looked_at_again_after_its_delay(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, queue="large")
    task = await world.claim_one("large")
    back = GiveBack(task.task_id, task.fence, delay_s=300, hold=HoldReason.PROVIDER_QUOTA)

    await world.worker.give_back([back])
    assert (await world.sweep()).resumed == 0
    assert (await world.see(batch)).held[HoldReason.PROVIDER_QUOTA] == 1
    await world.advance(301)

    assert (await world.sweep()).resumed == 1
    assert (await world.claim_one("large")).tries == 0


async def test_when_the_quota_is_back_its_holds_end_before_their_time_and_no_others_do(world: World) -> None:
    project = await world.project(cap=NanoUSD(0))
    batch = await world.batch(project, 2, queue="large")
    poor, waiting = await world.claim("large", limit=2)
    await world.hold(poor, 100)
    await world.worker.give_back(
        [GiveBack(waiting.task_id, waiting.fence, delay_s=86_400, hold=HoldReason.PROVIDER_QUOTA)]
    )

    report = await world.worker.sweep(lease_s=30, quota_is_back=True)

    assert report.resumed == 1
    assert (await world.claim_one("large")).task_id == waiting.task_id
    assert (await world.see(batch)).held[HoldReason.BUDGET] == 1


async def test_no_hold_of_a_paused_project_resumes(world: World) -> None:
    project = await world.project(cap=NanoUSD(0))
    await world.batch(project, queue="large")
    await world.hold(await world.claim_one("large"), 100)
    await world.api.update_project(project.id, paused=True)
    await world.api.set_cap(project.id, NanoUSD(100))

    assert (await world.sweep()).resumed == 0
    await world.api.update_project(project.id, paused=False)

    assert (await world.sweep()).resumed == 1


async def test_a_batch_does_not_expire_while_it_is_held(world: World) -> None:
    project = await world.project(cap=NanoUSD(0))
    batch = await world.batch(project, queue="large", expires_in_s=3_600)
    await world.hold(await world.claim_one("large"), 100)
    await world.sweep()

    await world.advance(7_200)
    await world.sweep()

    assert await world.states(batch) == ["held"]
    assert (await world.see(batch)).status is BatchStatus.IN_PROGRESS


async def test_held_time_moves_the_completion_window(world: World) -> None:
    project = await world.project(cap=NanoUSD(0))
    batch = await world.batch(project, queue="large", expires_in_s=3_600)
    await world.hold(await world.claim_one("large"), 100)
    await world.sweep()
    await world.advance(7_200)
    await world.api.set_cap(project.id, NanoUSD(100))

    await world.sweep()
    await world.sweep()

    assert await world.states(batch) == ["ready"]
    seen = await world.see(batch)
    assert seen.expires_at is not None
    assert seen.expires_at - world.now() > timedelta(seconds=3_500)
    await world.advance(3_700)
    await world.sweep()
    assert await world.states(batch) == ["expired"]
