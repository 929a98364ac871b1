"""Caps of a task, a batch, a key and a project hold together: the narrowest that does not cover a call refuses it."""

import asyncio

import pytest

from cope.core.budget import Scope
from cope.core.errors import NotFound
from cope.core.ids import TaskId
from cope.core.money import NanoUSD
from cope.core.records import Budget
from cope.ports.store import GiveBack, Granted, Refused, ReserveResult
from tests.contracts.world import World, ask, bill, done, large_step


def sums(budget: Budget) -> tuple[int, int, int, int]:
    """Spent, reserved, unconfirmed, overrun."""
    return budget.spent, budget.reserved, budget.unconfirmed, budget.overrun


def refused(result: ReserveResult) -> tuple[str, int]:
    """(whose cap, what it leaves)."""
    assert isinstance(result, Refused)
    return result.scope.value, result.headroom


async def test_a_batch_never_reserves_beyond_its_own_cap_though_the_project_has_money(world: World) -> None:
    project = await world.project(cap=NanoUSD(10_000))
    batch = await world.batch(project, 4, queue="large", cap=NanoUSD(2_500))
    tasks = await world.claim("large", limit=4)

    results = await world.worker.reserve([ask(task, 1_000) for task in tasks])

    assert [type(result) for result in results] == [Granted, Granted, Refused, Refused]
    assert refused(results[2]) == ("batch", 500)
    assert sums(await world.budget(project)) == (0, 2_000, 0, 0)
    own = await world.api.get_budget(project.id, scope=batch.id)
    assert (own.cap, own.month, *sums(own)) == (2_500, "", 0, 2_000, 0, 0)


async def test_a_keys_cap_is_shared_by_all_its_batches_and_by_no_other_keys(world: World) -> None:
    project = await world.project(cap=NanoUSD(100_000))
    poor = await world.key(project, cap=NanoUSD(1_500), secret="sk-poor")
    rich = await world.key(project, secret="sk-rich")
    await world.batch(project, 1, queue="large", key_id=poor.id)
    await world.batch(project, 1, queue="large", key_id=poor.id)
    await world.batch(project, 1, queue="large", key_id=rich.id)
    tasks = await world.claim("large", limit=3)

    results = {task.key_id: [] for task in tasks}  # type: ignore[var-annotated]
    for task in tasks:
        results[task.key_id].append(await world.reserve(task, 1_000))

    assert [type(result) for result in results[poor.id]] == [Granted, Refused]
    assert refused(results[poor.id][1]) == ("key", 500)
    assert [type(result) for result in results[rich.id]] == [Granted]
    budgets = {budget.scope: budget for budget in await world.api.list_budgets(project.id)}
    assert sums(budgets[poor.id]) == (0, 1_000, 0, 0)
    assert sums(budgets[rich.id]) == (0, 1_000, 0, 0)
    assert sums(budgets["project"]) == (0, 2_000, 0, 0)


async def test_the_narrowest_of_several_refusing_caps_is_named(world: World) -> None:
    project = await world.project(cap=NanoUSD(30))
    key = await world.key(project, cap=NanoUSD(20))
    await world.batch(project, 1, queue="large", key_id=key.id, cap=NanoUSD(10))
    task = await world.claim_one("large")

    assert refused(await world.reserve(task, 100, task_cap=5)) == ("task", 5)
    assert refused(await world.reserve(task, 100)) == ("batch", 10)
    await world.api.set_cap(project.id, None, scope=str(task.batch_id))
    assert refused(await world.reserve(task, 100)) == ("key", 20)
    await world.api.set_cap(project.id, None, scope=key.id)
    assert refused(await world.reserve(task, 100)) == ("project", 30)
    await world.api.set_cap(project.id, None)
    assert isinstance(await world.reserve(task, 100), Granted)


async def test_a_tasks_cap_counts_what_it_has_spent_what_is_open_and_what_is_in_doubt(world: World) -> None:
    project = await world.project()
    await world.batch(project, 1, queue="large")
    task = await world.claim_one("large")
    paid = await world.send(task, 400, step="stage2-plan")
    await world.worker.give_back([GiveBack(task.task_id, task.fence, settlements=(bill(paid, 300),))])
    task = await world.claim_one("large")

    assert refused(await world.reserve(task, 701, task_cap=1_000)) == ("task", 700)
    assert isinstance(await world.reserve(task, 600, task_cap=1_000), Granted)
    assert refused(await world.reserve(task, 101, step="again", task_cap=1_000)) == ("task", 100)


async def test_a_released_reserve_no_longer_counts_against_any_cap(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    key = await world.key(project, cap=NanoUSD(1_000))
    batch = await world.batch(project, 1, queue="large", key_id=key.id, cap=NanoUSD(1_000))
    task = await world.claim_one("large")
    granted = await world.reserve(task, 1_000, task_cap=1_000)
    assert isinstance(granted, Granted)

    await world.worker.give_back([GiveBack(task.task_id, task.fence, released=(granted.attempt_id,))])

    for scope in ("project", key.id, batch.id):
        assert sums(await world.api.get_budget(project.id, scope=scope)) == (0, 0, 0, 0)
    assert isinstance(await world.reserve(await world.claim_one("large"), 1_000, task_cap=1_000), Granted)


async def test_a_settlement_is_counted_in_every_scope_it_was_reserved_in(world: World) -> None:
    project = await world.project(cap=NanoUSD(5_000))
    key = await world.key(project)
    batch = await world.batch(project, 1, queue="large", key_id=key.id)
    task = await world.claim_one("large")
    granted = await world.send(task, 1_000)

    await world.commit(done(task, step=large_step(640), bills=(bill(granted, 640),)))

    for scope in ("project", key.id, batch.id):
        assert sums(await world.api.get_budget(project.id, scope=scope)) == (640, 0, 0, 0)


async def test_a_cap_that_is_set_later_counts_what_was_spent_before_it(world: World) -> None:
    project = await world.project()
    key = await world.key(project)
    batch = await world.batch(project, 2, queue="large", key_id=key.id)
    first, second = await world.claim("large", limit=2)
    await world.send(first, 1_000)

    await world.api.set_cap(project.id, NanoUSD(1_500), scope=batch.id)
    assert refused(await world.reserve(second, 600)) == ("batch", 500)
    await world.api.set_cap(project.id, None, scope=batch.id)
    await world.api.set_cap(project.id, NanoUSD(1_200), scope=key.id)
    assert refused(await world.reserve(second, 600)) == ("key", 200)


async def test_a_cap_below_what_is_already_granted_takes_nothing_back_and_grants_nothing_more(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 2, queue="large", cap=NanoUSD(5_000))
    first, second = await world.claim("large", limit=2)
    granted = await world.send(first, 2_000)

    lowered = await world.api.set_cap(project.id, NanoUSD(100), scope=batch.id)

    assert (lowered.cap, lowered.reserved, lowered.headroom) == (100, 2_000, 0)
    assert refused(await world.reserve(second, 1)) == ("batch", 0)
    await world.commit(done(first, step=large_step(1_900), bills=(bill(granted, 1_900),)))
    assert sums(await world.api.get_budget(project.id, scope=batch.id)) == (1_900, 0, 0, 0)


async def test_raising_a_batchs_cap_resumes_only_as_many_as_it_covers_and_no_other_batch_waits(world: World) -> None:
    project = await world.project(cap=NanoUSD(100_000))
    poor = await world.batch(project, 3, queue="large", cap=NanoUSD(0))
    for task in await world.claim("large", limit=3):
        await world.hold(task, 1_000)
    other = await world.batch(project, 1, queue="large")
    await world.hold(await world.claim_one("large"), 1_000)

    await world.sweep()
    assert await world.states(other) == ["ready"]
    assert await world.states(poor) == ["held", "held", "held"]
    await world.api.set_cap(project.id, NanoUSD(2_500), scope=poor.id)
    await world.sweep()
    await world.sweep()

    assert await world.states(poor) == ["held", "ready", "ready"]


async def test_nobody_overtakes_a_held_task_while_money_is_coming_back_and_then_nothing_is_left_unused(
    world: World,
) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await world.batch(project, 1, queue="large")
    running = await world.claim_one("large")
    granted = await world.send(running, 100)
    first = await world.batch(project, 1, queue="large")
    await world.hold(await world.claim_one("large"), 2_000)
    second = await world.batch(project, 2, queue="large")
    for task in await world.claim("large", limit=2):
        await world.hold(task, 500)

    await world.sweep()
    assert (await world.states(first), await world.states(second)) == (["held"], ["held", "held"])
    await world.commit(done(running, step=large_step(90), bills=(bill(granted, 90),)))
    await world.sweep()
    await world.sweep()

    assert (await world.states(first), await world.states(second)) == (["held"], ["held", "ready"])


async def test_many_workers_at_once_never_get_more_than_any_of_the_caps(world: World) -> None:
    project = await world.project(cap=NanoUSD(9_000))
    key = await world.key(project, cap=NanoUSD(7_000))
    batches = [
        await world.batch(project, 8, queue="large", key_id=key.id, cap=NanoUSD(cap)) for cap in (3_000, 2_000, 50_000)
    ]
    tasks = await world.claim("large", limit=24)
    assert len(tasks) == 24

    await asyncio.gather(*(world.reserve(task, 1_000) for task in tasks))

    reserved = [(await world.api.get_budget(project.id, scope=batch.id)).reserved for batch in batches]
    assert sum(reserved) == 7_000
    assert reserved[0] <= 3_000
    assert reserved[1] <= 2_000


async def test_a_cap_of_nothing_known_is_refused(world: World) -> None:
    project = await world.project()
    for scope in ("key_00000000000000000000000000", "batch_00000000000000000000000000"):
        with pytest.raises(NotFound):
            await world.api.set_cap(project.id, NanoUSD(1), scope=scope)
        with pytest.raises(NotFound):
            await world.api.get_budget(project.id, scope=scope)


async def test_a_live_call_counts_in_its_project_and_in_no_batch(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    live: TaskId = await world.live(project, queue="large")
    task = await world.claim_one("large")
    assert task.task_id == live

    assert isinstance(await world.reserve(task, 1_000), Granted)

    assert [budget.scope for budget in await world.api.list_budgets(project.id)] == ["project"]
    assert Scope.PROJECT.value == "project"
