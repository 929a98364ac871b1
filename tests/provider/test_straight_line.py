"""Gathered, sent, polled, settled: the way of a call through the provider's own batch."""

from dataclasses import replace

from cope.core.lifecycle import AttemptState, TaskState
from cope.core.policies.spec import PolicyName
from cope.core.records import ProviderBatchView
from cope.core.task import ProviderBatch
from tests.contracts.world import World
from tests.provider.scene import HALF_COST, LARGE, TIER, Scene
from tests.support import make_policy


async def test_calls_go_through_the_providers_batch_at_its_price_and_end_their_tasks(world: World) -> None:
    scene = Scene(world)
    batch = await scene.submit(3)
    assert await scene.work() == 3

    seen = await world.see(batch)
    assert (seen.submitted, seen.done, await scene.states(batch)) == (3, 0, {TaskState.SUBMITTED})
    assert seen.reserved > 0
    (first, *_) = await scene.tasks(batch)
    assert first.provider_batch == ProviderBatchView(None, "gathering")
    assert [attempt.state for attempt in first.attempts] == [AttemptState.RESERVED]

    assert await scene.batcher.send_gathered()
    (first, *_) = await scene.tasks(batch)
    (remote,) = scene.provider.batches
    assert first.provider_batch == ProviderBatchView(remote, "in_progress")
    assert [attempt.state for attempt in first.attempts] == [AttemptState.SENT]
    assert await scene.work() == 0

    scene.provider.finish()
    await scene.look()
    seen = await world.see(batch)
    assert (seen.submitted, seen.done, seen.spent) == (0, 3, 3 * HALF_COST)
    assert {task.provider_batch for task in await scene.tasks(batch)} == {None}
    assert {attempt.price_version for task in await scene.tasks(batch) for attempt in task.attempts} == {"2026-11"}
    await scene.assert_paid_once(batch)
    assert scene.live_calls == 0


async def test_a_cascades_large_steps_are_gathered_one_after_the_other(world: World) -> None:
    scene = Scene(world, large=replace(LARGE, batch=replace(TIER, min_lines=1)))
    batch = await scene.submit(1, policy=make_policy(PolicyName.LARGE))
    await scene.work()
    await scene.batcher.send_gathered()
    scene.provider.finish()
    await scene.look()

    (task,) = await scene.tasks(batch)
    assert [(step.name, step.model, step.cost) for step in task.history] == [("solve", "large", HALF_COST)]
    assert task.history[0].samples[0].answer == "9"


async def test_fewer_than_the_least_number_wait_until_the_first_has_waited_long_enough(world: World) -> None:
    scene = Scene(world)
    await scene.submit(1)
    await scene.work()

    assert not await scene.batcher.send_gathered()
    await world.advance(601)
    assert await scene.batcher.send_gathered()
    assert len(scene.provider.batches) == 1


async def test_a_window_that_leaves_the_provider_too_little_time_means_a_live_call(world: World) -> None:
    scene = Scene(world)
    batch = await scene.submit(2, window_s=600 + 7200 + 3600 - 60)
    await scene.work()

    assert (await world.see(batch)).done == scene.live_calls == 2
    assert scene.provider.asked == {}


async def test_a_line_that_says_off_is_called_live(world: World) -> None:
    scene = Scene(world)
    batch = await scene.submit(2, way=ProviderBatch.OFF)
    await scene.work()

    assert (await world.see(batch)).done == scene.live_calls == 2


async def test_a_model_without_a_batch_tier_is_called_live(world: World) -> None:
    scene = Scene(world, large=replace(LARGE, batch=None))
    batch = await scene.submit(2)
    await scene.work()

    assert (await world.see(batch)).done == scene.live_calls == 2


async def test_several_samples_in_one_step_are_called_live(world: World) -> None:
    scene = Scene(world, large=replace(LARGE, batch=TIER))
    project = await world.project()
    batch = await scene.submit(1, project=project, policy=make_policy(PolicyName.LARGE))
    await scene.work()
    assert (await world.see(batch)).submitted == 1
