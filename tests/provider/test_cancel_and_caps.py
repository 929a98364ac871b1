"""Cancelled, expired, capped or paused while calls wait in the provider's batch."""

from dataclasses import replace

from cope.adapters.memory import ScriptedModel
from cope.core.lifecycle import BatchStatus, HoldReason, TaskState
from cope.core.money import NanoUSD
from cope.core.task import OnBudget
from cope.ports.model import ChatAnswer, ChatRequest
from tests.contracts.world import LEASE_S, World
from tests.provider.scene import HALF_COST, LARGE, TIER, Scene, nine
from tests.provider.test_faults import die


async def test_cancelling_gathered_calls_ends_them_at_once_and_frees_their_reserves(world: World) -> None:
    scene = Scene(world)
    batch = await scene.submit(3)
    await scene.work()
    await world.api.cancel_batch(batch.project_id, batch.id)

    assert await scene.states(batch) == {TaskState.CANCELLED}
    budget = await scene.budget(batch)
    assert (budget.spent, budget.reserved, budget.unconfirmed) == (0, 0, 0)
    await world.advance(700)
    assert not await scene.batcher.send_gathered()
    assert scene.provider.asked == {}
    assert await world.finish(batch) is BatchStatus.CANCELLED


async def test_cancelling_between_upload_and_creation_sends_the_others_alone(world: World) -> None:
    scene = Scene(world)
    project = await world.project()
    kept, gone = await scene.submit(2, project=project), await scene.submit(2, project=project)
    await scene.work()
    assert await die(scene, "store", "send_provider_batch", "before")
    await world.api.cancel_batch(gone.project_id, gone.id)
    assert await scene.states(gone) == {TaskState.CANCELLED}
    await world.advance(LEASE_S + 1)
    assert await scene.batcher.work_next()

    (sent,) = scene.provider.batches.values()
    assert len(sent.lines) == 2
    await scene.to_the_end(kept)
    assert (await world.see(kept)).done == 2
    assert len(scene.provider.billed) == 2


async def test_cancelling_a_sent_batch_cancels_the_providers_and_keeps_what_was_done(world: World) -> None:
    scene = Scene(world)
    batch = await scene.send(3)
    await world.api.cancel_batch(batch.project_id, batch.id)
    assert await scene.states(batch) == {TaskState.SUBMITTED}
    assert (await scene.budget(batch)).reserved > 0

    await scene.look()
    assert scene.provider.asked["cancel"] == 1
    scene.provider.finish(status="cancelled", done=1)
    await scene.look()

    seen = await world.see(batch)
    assert (seen.done, seen.failed, seen.spent) == (1, 2, HALF_COST)
    await scene.assert_paid_once(batch)
    assert scene.live_calls == 0
    assert await world.finish(batch) is BatchStatus.CANCELLED


async def test_a_providers_batch_that_others_share_is_not_cancelled_and_the_lines_settle(world: World) -> None:
    scene = Scene(world)
    project = await world.project()
    kept, gone = await scene.submit(2, project=project), await scene.submit(2, project=project)
    await scene.work()
    await scene.batcher.send_gathered()
    await world.api.cancel_batch(gone.project_id, gone.id)
    await scene.look()
    assert "cancel" not in scene.provider.asked
    scene.provider.finish()
    await world.advance(60)
    await scene.look()

    assert (await world.see(kept)).done == 2
    assert (await world.see(gone)).spent == 2 * HALF_COST
    await scene.assert_paid_once(kept)


async def test_cancelling_while_the_providers_word_is_missing_ends_after_a_quarter_of_an_hour_unconfirmed(
    world: World,
) -> None:
    scene = Scene(world)
    batch = await scene.submit(2)
    await scene.work()
    assert await die(scene, "batches", "create", "before")
    await world.api.cancel_batch(batch.project_id, batch.id)
    reserved = (await scene.budget(batch)).reserved
    assert reserved > 0
    for _ in range(6):
        await world.advance(601)
        await scene.look()
    await world.sweep()

    assert await scene.states(batch) == {TaskState.CANCELLED}
    budget = await scene.budget(batch)
    assert (budget.reserved, budget.unconfirmed) == (0, reserved)
    assert "create" not in scene.provider.asked


async def test_a_window_that_ends_while_a_call_is_with_the_provider_takes_its_result_first(world: World) -> None:
    scene = Scene(world)
    batch = await scene.send(2)
    await world.advance(86_400)
    await world.sweep()
    assert await scene.states(batch) == {TaskState.SUBMITTED}
    scene.provider.finish()
    await scene.look()

    assert (await world.see(batch)).done == 2
    await scene.assert_paid_once(batch)
    assert await world.finish(batch) is BatchStatus.EXPIRED


async def test_the_cap_is_asked_for_the_batch_tiers_worst_case_and_a_refusal_holds(world: World) -> None:
    probe = Scene(world)
    batch = await probe.submit(1)
    await probe.work()
    worst = (await probe.budget(batch)).reserved
    await world.api.cancel_batch(batch.project_id, batch.id)

    scene = Scene(world)
    batch = await scene.submit(3, cap=NanoUSD(2 * worst + worst // 2))
    await scene.work()
    seen = await world.see(batch)
    assert (seen.submitted, {reason: n for reason, n in seen.held.items() if n}) == (2, {HoldReason.BUDGET: 1})
    assert seen.needed == worst
    budget = await scene.budget(batch)
    assert budget.reserved == 2 * worst

    await scene.to_the_end(batch, rounds=30)
    assert (await world.see(batch)).done == 3
    await scene.assert_paid_once(batch)
    assert scene.live_calls == 0


async def test_a_live_calls_worst_case_is_twice_that_of_a_gathered_one(world: World) -> None:
    gathered = Scene(world)
    batch = await gathered.submit(1)
    await gathered.work()
    half = (await gathered.budget(batch)).reserved

    live = Scene(world, large=replace(LARGE, batch=None))
    batch, seen = await live.submit(1), []

    async def look(request: ChatRequest) -> ChatAnswer:
        seen.append((await live.budget(batch)).reserved)
        return nine()

    live.parts.model = ScriptedModel(look)
    await live.work()
    assert seen == [2 * half]


async def test_no_money_and_on_budget_fail_fails_instead_of_being_gathered(world: World) -> None:
    scene = Scene(world)
    batch = await scene.submit(2, cap=NanoUSD(0), on_budget=OnBudget.FAIL)
    await scene.work()

    seen = await world.see(batch)
    assert (seen.failed, seen.submitted) == (2, 0)


async def test_a_paused_projects_gathered_calls_wait_and_its_sent_ones_still_commit(world: World) -> None:
    scene = Scene(world)
    sent = await scene.send(2)
    waiting = await scene.submit(2)
    await scene.work()
    for batch in (sent, waiting):
        await world.api.update_project(batch.project_id, paused=True)
    assert not await scene.batcher.send_gathered()
    scene.provider.finish()
    await scene.look()
    assert (await world.see(sent)).done == 2
    assert await scene.states(waiting) == {TaskState.SUBMITTED}

    await world.api.update_project(waiting.project_id, paused=False)
    await scene.to_the_end(waiting)
    assert len(scene.provider.billed) == 4


async def test_a_batch_held_by_hand_keeps_its_gathered_calls_from_leaving_until_it_is_resumed(world: World) -> None:
    scene = Scene(world)
    waiting = await scene.submit(2)
    await scene.work()
    await world.api.hold_batch(waiting.project_id, waiting.id)
    assert not await scene.batcher.send_gathered()
    assert scene.provider.batches == {}

    await world.api.resume_batch(waiting.project_id, waiting.id)
    await scene.to_the_end(waiting)
    assert len(scene.provider.billed) == 2


async def test_a_project_paused_between_upload_and_creation_keeps_its_calls_from_leaving(world: World) -> None:
    scene = Scene(world, large=replace(LARGE, batch=replace(TIER, min_lines=1)))
    kept, paused = await scene.submit(1), await scene.submit(1)
    await scene.work()
    assert await die(scene, "store", "send_provider_batch", "before")
    await world.api.update_project(paused.project_id, paused=True)
    await world.advance(LEASE_S + 1)
    assert await scene.batcher.work_next()

    (sent,) = scene.provider.batches.values()
    assert len(sent.lines) == 1
    scene.provider.finish()
    await scene.look()
    assert ((await world.see(kept)).done, (await world.see(paused)).submitted) == (1, 1)


async def test_an_overrun_is_recorded_and_stops_the_project_as_for_a_live_call(world: World) -> None:
    dear = replace(nine(), usage=replace(nine().usage, completion=10_000_000))  # type: ignore[type-var]
    scene = Scene(world, script=lambda body: dear)
    batch = await scene.send(2)
    scene.provider.finish()
    await scene.look()

    budget = await scene.budget(batch)
    assert budget.overrun > 0
    project = await world.worker.project(batch.project_id)
    assert project is not None
    assert project.paused


async def test_the_shortest_window_of_many_decides_when_the_provider_is_cut_off(world: World) -> None:
    scene = Scene(world)
    project = await world.project()
    short = await scene.submit(1, window_s=5 * 3600, project=project)
    long = await scene.submit(1, project=project)
    await scene.work()
    await scene.batcher.send_gathered()
    await world.advance(4 * 3600 + 60)
    await scene.look()
    assert scene.provider.asked["cancel"] == 1
    scene.provider.finish(status="cancelled", done=0)
    await scene.look()
    await scene.work()

    assert ((await world.see(short)).done, (await world.see(long)).done) == (1, 1)
    assert scene.live_calls == 2
