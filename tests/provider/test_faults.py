"""Whatever dies, refuses, doubles or is silent: nothing is paid twice, no line is lost, the books agree."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cope.core.errors import ModelOverloaded, ModelQuotaExhausted, ModelRateLimited, ModelRejected, ModelUnreachable
from cope.core.lifecycle import AttemptState, TaskState
from cope.ports.provider_batches import RemoteLine
from tests.contracts.world import LEASE_S, World
from tests.provider.scene import FULL_COST, HALF_COST, LARGE, TIER, Scene, nine


class Killed(Exception):
    """kill -9, as far as one process can show it: nothing after it runs."""


class Mortal:
    """Passes every call on, and dies before or after the `turn`-th call of one method."""

    def __init__(self, real: Any, method: str, when: str, turn: int = 1) -> None:
        self._real = real
        self._method = method
        self._when = when
        self._left = turn

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name != self._method:
            return found

        async def mortal(*args: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left == 0 and self._when == "before":
                raise Killed
            result = await found(*args, **options)
            if self._left == 0:
                raise Killed
            return result

        return mortal


async def die(scene: Scene, part: str, method: str, when: str, turn: int = 1) -> bool:
    """Let a process that dies there take one round; whether it died."""
    real = scene.parts.store if part == "store" else scene.provider
    batcher = scene.new_batcher(**{part: Mortal(real, method, when, turn)})
    try:
        await batcher.send_gathered()
        while await batcher.work_next():
            pass
    except Killed:
        return True
    return False


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("part", "method"),
    [
        ("store", "form_provider_batch"),
        ("batches", "upload"),
        ("store", "send_provider_batch"),
        ("batches", "create"),
        ("store", "change_provider_job"),
    ],
)
async def test_a_process_killed_while_it_sends_leaves_what_the_next_one_finishes(
    world: World, part: str, method: str, when: str
) -> None:
    scene = Scene(world)
    batch = await scene.submit(3)
    await scene.work()
    assert await die(scene, part, method, when)

    await world.advance(LEASE_S + 1)
    await scene.to_the_end(batch)

    assert (await world.see(batch)).done == 3
    assert len(scene.provider.batches) == 1
    assert scene.live_calls == 0
    await scene.assert_paid_once(batch)


async def test_a_process_killed_after_the_provider_created_the_batch_finds_it_by_its_marker(world: World) -> None:
    scene = Scene(world)
    batch = await scene.submit(3)
    await scene.work()
    assert await die(scene, "batches", "create", "after")
    assert (await world.see(batch)).reserved > 0

    await world.advance(LEASE_S + 1)
    assert await scene.batcher.work_next()

    assert scene.provider.asked == {"upload": 1, "create": 1, "find": 1}
    (task, *_) = await scene.tasks(batch)
    assert task.provider_batch is not None
    assert task.provider_batch.id in scene.provider.batches


async def test_a_creation_that_never_left_is_made_again_only_once_the_list_has_not_shown_it_for_long_enough(
    world: World,
) -> None:
    scene = Scene(world)
    batch = await scene.submit(3)
    await scene.work()
    assert await die(scene, "batches", "create", "before")

    await world.advance(LEASE_S + 1)
    assert await scene.batcher.work_next()
    assert scene.provider.asked == {"upload": 1, "find": 1}
    await world.advance(120)
    assert await scene.batcher.work_next()
    assert scene.provider.asked == {"upload": 1, "find": 2, "create": 1}

    await scene.to_the_end(batch)
    await scene.assert_paid_once(batch)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("part", "method", "turn"),
    [
        ("batches", "retrieve", 1),
        ("store", "change_provider_job", 1),
        ("store", "provider_lines", 1),
        ("store", "commit", 1),
        ("store", "close_provider_lines", 1),
        ("store", "change_provider_job", 2),
    ],
)
async def test_a_process_killed_while_it_takes_results_in_leaves_what_the_next_one_finishes(
    world: World, part: str, method: str, turn: int, when: str
) -> None:
    scene = Scene(world)
    batch = await scene.send(3)
    scene.provider.finish()
    await world.advance(31)
    died = await die(scene, part, method, when, turn)

    await world.advance(LEASE_S + 1)
    await scene.to_the_end(batch)

    assert died
    assert (await world.see(batch)).done == 3
    assert scene.live_calls == 0
    await scene.assert_paid_once(batch)


async def test_two_workers_at_once_send_one_batch_and_take_each_result_once(world: World) -> None:
    scene = Scene(world)
    batch = await scene.submit(6)
    await scene.work()
    first, second = scene.new_batcher(), scene.new_batcher()
    await first.send_gathered()
    await second.send_gathered()
    assert len(scene.provider.batches) == 1
    scene.provider.finish()
    await world.advance(31)

    slow = await world.worker.claim_provider_job(lease_s=LEASE_S)  # type: ignore[attr-defined]
    assert slow is not None
    assert not await second.work_next()
    await world.advance(LEASE_S + 1)
    assert await second.work_next()
    assert not await world.worker.close_provider_lines(slow, [])  # type: ignore[attr-defined]

    assert (await world.see(batch)).done == 6
    await scene.assert_paid_once(batch)


# ---- what the provider may do --------------------------------------------------------------------------------------


async def test_a_batch_that_fails_validation_costs_nothing_and_its_calls_go_live(world: World) -> None:
    scene = Scene(world)
    batch = await scene.send(3)
    scene.provider.finish(status="failed")
    await scene.look()
    assert await scene.states(batch) == {TaskState.READY}
    assert (await scene.budget(batch)).reserved == 0
    await scene.work()

    assert (await world.see(batch)).done == scene.live_calls == 3
    await scene.assert_paid_once(batch)


async def test_a_provider_whose_queue_is_full_gets_the_batch_again_later_instead_of_live_calls(world: World) -> None:
    scene = Scene(world)
    batch = await scene.send(3)
    (kept,) = scene.provider.batches.values()
    scene.provider.finish(status="failed")
    kept.remote = replace(kept.remote, error="token_limit_exceeded: enqueued token limit reached")
    await scene.look()
    assert await scene.work() == 0
    await world.advance(301)
    assert await scene.work() == 3
    await scene.to_the_end(batch)

    assert (len(scene.provider.batches), scene.live_calls) == (2, 0)
    await scene.assert_paid_once(batch)


async def test_a_batch_that_expires_half_done_keeps_its_half_and_the_rest_goes_live(world: World) -> None:
    scene = Scene(world)
    batch = await scene.send(4)
    scene.provider.finish(status="expired", done=2)
    await scene.look()
    assert (await world.see(batch)).done == 2
    await scene.work()

    seen = await world.see(batch)
    assert (seen.done, scene.live_calls, seen.spent) == (4, 2, 2 * HALF_COST + 2 * FULL_COST)
    await scene.assert_paid_once(batch)


async def test_results_in_another_order_with_doubles_and_strangers_settle_each_line_once(world: World) -> None:
    scene = Scene(world)
    batch = await scene.send(3)
    scene.provider.finish()
    (kept,) = scene.provider.batches.values()
    strangers = [RemoteLine("att_nobody", nine()), RemoteLine("", None, "failed")]
    assert kept.remote.output_file_id is not None
    scene.provider.change_results(
        kept.remote.output_file_id, lambda lines: [*strangers, *reversed(lines), *lines, *strangers]
    )
    await scene.look()

    assert (await world.see(batch)).done == 3
    await scene.assert_paid_once(batch)


async def test_a_line_without_usage_settles_at_its_reserve_and_says_so(world: World) -> None:
    scene = Scene(world, script=lambda body: replace(nine(), usage=None))
    batch = await scene.send(2)
    reserved = (await scene.budget(batch)).reserved
    scene.provider.finish()
    await scene.look()

    budget = await scene.budget(batch)
    assert (budget.spent, budget.reserved) == (reserved, 0)
    attempts = [attempt for task in await scene.tasks(batch) for attempt in task.attempts]
    assert {attempt.flag for attempt in attempts} == {"usage_missing"}


async def test_a_line_that_the_provider_refused_costs_nothing_and_is_called_live(world: World) -> None:
    def script(body: object) -> Any:
        raise ModelRejected("HTTP 400: no", answered=True)

    scene = Scene(world, script=script)
    batch = await scene.send(2)
    scene.provider.finish()
    await scene.look()
    await scene.work()

    assert (await world.see(batch)).done == scene.live_calls == 2
    await scene.assert_paid_once(batch)


async def test_a_successful_line_that_cannot_be_read_costs_its_reserve_and_is_called_live(world: World) -> None:
    scene = Scene(world)
    batch = await scene.send(2)
    (task, *_) = await scene.tasks(batch)
    (attempt,) = task.attempts
    scene.provider.finish()
    (kept,) = scene.provider.batches.values()
    assert kept.remote.output_file_id is not None
    scene.provider.change_results(
        kept.remote.output_file_id,
        lambda lines: [
            RemoteLine(line.custom_id, None, "no choices", malformed=True) if line.custom_id == attempt.id else line
            for line in lines
        ],
    )
    await scene.look()
    await scene.work()

    seen = await world.see(batch)
    assert (seen.done, scene.live_calls) == (2, 1)
    assert seen.spent == attempt.reserved + HALF_COST + FULL_COST


async def test_lines_of_which_nothing_comes_back_are_unconfirmed_where_the_providers_count_does_not_clear_them(
    world: World,
) -> None:
    scene = Scene(world)
    batch = await scene.send(3)
    (lost, *_) = [attempt for task in await scene.tasks(batch) for attempt in task.attempts]
    scene.provider.finish()
    (kept,) = scene.provider.batches.values()
    assert kept.remote.output_file_id is not None
    scene.provider.change_results(
        kept.remote.output_file_id, lambda lines: [line for line in lines if line.custom_id != lost.id]
    )
    await scene.look()
    await world.sweep()
    await scene.work()

    assert (await world.see(batch)).done == 3
    budget = await scene.budget(batch)
    assert (budget.spent, budget.unconfirmed) == (2 * HALF_COST + FULL_COST, lost.reserved)


async def test_a_provider_that_is_away_for_hours_loses_nothing_and_is_asked_ever_more_seldom(world: World) -> None:
    scene = Scene(world)
    batch = await scene.submit(3)
    await scene.work()
    away = Failing(scene.provider, "upload", lambda: ModelUnreachable("refused", sent=False))
    batcher = scene.new_batcher(batches=away)
    await batcher.send_gathered()
    for _ in range(24):
        await world.advance(600)
        await batcher.work_next()
    assert await scene.states(batch) == {TaskState.SUBMITTED}
    assert away.failures == 25
    await scene.to_the_end(batch)

    assert scene.live_calls == 0
    await scene.assert_paid_once(batch)


@pytest.mark.parametrize(
    "error",
    [
        ModelRateLimited("slow down", answered=True, retry_after_s=1800.0),
        ModelQuotaExhausted("no money", answered=True),
        ModelUnreachable("refused", sent=False),
        ModelOverloaded("busy", answered=True),
    ],
)
async def test_a_creation_that_was_surely_not_made_is_repeated_without_doubt(world: World, error: Exception) -> None:
    scene = Scene(world)
    batch = await scene.submit(3)
    await scene.work()
    failing = Failing(scene.provider, "create", lambda: error)
    await scene.new_batcher(batches=failing).send_gathered()
    assert failing.failures == 1
    await world.advance(31)
    waited = isinstance(error, ModelRateLimited)
    assert await scene.batcher.work_next() is not waited
    await scene.to_the_end(batch, rounds=30)

    assert (scene.live_calls, scene.provider.asked["create"]) == (0, 1)
    await scene.assert_paid_once(batch)


async def test_a_provider_that_takes_no_batches_costs_nothing_and_its_calls_go_live(world: World) -> None:
    for method in ("upload", "create"):
        scene = Scene(world)
        batch = await scene.submit(2)
        await scene.work()
        failing = Failing(scene.provider, method, lambda: ModelRejected("HTTP 404: no such thing", answered=True))
        await scene.new_batcher(batches=failing).send_gathered()
        await scene.work()

        assert (await world.see(batch)).done == scene.live_calls == 2
        await scene.assert_paid_once(batch)


async def test_a_creation_that_nobody_heard_of_but_that_was_made_is_not_made_again(world: World) -> None:
    scene = Scene(world)
    batch = await scene.submit(3)
    await scene.work()
    deaf = Failing(scene.provider, "create", lambda: ModelOverloaded("no answer in time"), after=True)
    await scene.new_batcher(batches=deaf).send_gathered()
    await scene.to_the_end(batch)

    assert len(scene.provider.batches) == 1
    await scene.assert_paid_once(batch)


async def test_of_two_batches_with_one_marker_the_second_is_cancelled(world: World) -> None:
    scene = Scene(world)
    batch = await scene.submit(3)
    await scene.work()
    assert await die(scene, "batches", "create", "after")
    (kept,) = scene.provider.batches.values()
    await scene.provider.create(LARGE, file_id=next(iter(scene.provider._files)), marker=kept.marker)
    await world.advance(LEASE_S + 1)
    assert await scene.batcher.work_next()

    assert [one.remote.status for one in scene.provider.batches.values()] == ["in_progress", "cancelling"]
    assert (await world.see(batch)).submitted == 3


# ---- deadlines -----------------------------------------------------------------------------------------------------


async def test_near_the_deadline_the_batch_is_cancelled_its_finished_lines_are_taken_and_the_rest_goes_live(
    world: World,
) -> None:
    scene = Scene(world)
    batch = await scene.send(4, window_s=6 * 3600)
    await world.advance(5 * 3600 + 60)
    await scene.look()
    (kept,) = scene.provider.batches.values()
    assert kept.remote.status == "cancelling"
    scene.provider.finish(status="cancelled", done=1)
    await scene.look()
    await scene.work()

    seen = await world.see(batch)
    assert (seen.done, scene.live_calls, seen.spent) == (4, 3, HALF_COST + 3 * FULL_COST)
    await scene.assert_paid_once(batch)


async def test_without_the_providers_word_the_tasks_go_live_in_time_and_a_late_result_still_settles(
    world: World,
) -> None:
    scene = Scene(world)
    batch = await scene.send(2, window_s=6 * 3600)
    reserved = (await scene.budget(batch)).reserved
    silent = Failing(scene.provider, "retrieve", lambda: ModelUnreachable("away", sent=False))
    batcher = scene.new_batcher(batches=silent)
    for seconds in (5 * 3600 + 60, 1000, 1000):
        await world.advance(seconds)
        await batcher.work_next()
    await world.sweep()
    budget = await scene.budget(batch)
    assert (budget.reserved, budget.unconfirmed) == (0, reserved)
    await scene.work()
    assert (await world.see(batch)).done == scene.live_calls == 2

    scene.provider.finish()
    await world.advance(3600)
    await scene.look()
    budget = await scene.budget(batch)
    assert (budget.spent, budget.unconfirmed) == (2 * HALF_COST + 2 * FULL_COST, 0)
    attempts = [attempt for task in await scene.tasks(batch) for attempt in task.attempts]
    assert {attempt.state for attempt in attempts} == {AttemptState.SETTLED}


async def test_a_late_result_is_adopted_by_a_task_that_has_not_been_called_again_yet(world: World) -> None:
    scene = Scene(world)
    batch = await scene.send(2, window_s=6 * 3600)
    silent = Failing(scene.provider, "retrieve", lambda: ModelUnreachable("away", sent=False))
    batcher = scene.new_batcher(batches=silent)
    for seconds in (5 * 3600 + 60, 1000, 1000):
        await world.advance(seconds)
        await batcher.work_next()
    await world.sweep()
    assert await scene.states(batch) == {TaskState.READY}
    scene.provider.finish()
    await world.advance(601)
    await scene.look()
    await scene.work()

    assert ((await world.see(batch)).done, scene.live_calls) == (2, 0)
    await scene.assert_paid_once(batch)


async def test_gathered_calls_whose_time_runs_out_before_they_are_sent_are_released_and_go_live(world: World) -> None:
    scene = Scene(world, large=replace(LARGE, batch=replace(TIER, min_lines=50, max_wait_s=1200)))
    batch = await scene.submit(2, window_s=1200 + 7200 + 3600 + 60)
    await scene.work()
    await world.advance(1300)
    assert not await scene.batcher.send_gathered()
    assert (await scene.budget(batch)).reserved == 0
    await scene.work()

    assert (await world.see(batch)).done == scene.live_calls == 2
    assert scene.provider.asked == {}


async def test_a_model_that_has_lost_its_batch_tier_lets_its_gathered_calls_go_live(world: World) -> None:
    scene = Scene(world)
    batch = await scene.submit(2)
    await scene.work()
    scene.parts.catalog = replace(
        scene.parts.catalog, entries={**scene.parts.catalog.entries, "large": replace(LARGE, batch=None)}
    )
    await scene.new_batcher().send_gathered()
    await scene.work()

    assert (await world.see(batch)).done == scene.live_calls == 2


class Failing:
    """Passes every call on, but one method fails until told otherwise: before, or `after`, it was carried out."""

    def __init__(self, real: Any, method: str, error: Callable[[], Exception], *, after: bool = False) -> None:
        self._real = real
        self._method = method
        self._error = error
        self._after = after
        self.failures = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name != self._method:
            return found

        async def failing(*args: Any, **options: Any) -> Any:
            self.failures += 1
            if self._after:
                await found(*args, **options)
            raise self._error()

        return failing
