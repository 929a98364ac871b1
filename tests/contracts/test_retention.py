"""What is pruned when, and what never is: in both stores."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from cope.core.keeping import Keeping
from cope.core.lifecycle import BatchStatus
from cope.core.money import NanoUSD
from cope.core.records import Batch, Project
from cope.core.task import StoreLevel
from cope.ports.store import Granted, WebhookOutcome
from tests.contracts.world import World, bill, done
from tests.support import finished_step, make_spec

DAY = 86_400.0
TEN = Keeping(tasks=timedelta(days=10), live=timedelta(days=5), deliveries=timedelta(days=3))
FOREVER = Keeping(tasks=None, live=None, deliveries=None)


async def finished(world: World, project: Project, lines: int = 3) -> Batch:
    batch = await world.batch(project, lines)
    await world.commit(*[done(task, step=finished_step()) for task in await world.claim(limit=lines)])
    assert await world.finish(batch) is BatchStatus.COMPLETED
    return await world.see(batch)


async def test_a_batch_is_pruned_once_its_time_is_over_and_says_so(world: World) -> None:
    project = await world.project()
    batch = await finished(world, project)
    await world.advance(9 * DAY)
    assert (await world.worker.prune(TEN, limit=1000)).tasks == 0
    assert (await world.see(batch)).pruned_at is None

    await world.advance(2 * DAY)
    pruned = await world.worker.prune(TEN, limit=1000)

    assert (pruned.batches, pruned.tasks) == (1, 3)
    after = await world.see(batch)
    assert after.pruned_at is not None
    assert await world.states(batch) == []
    assert replace(after, pruned_at=None) == replace(await world.see(batch), pruned_at=None)
    assert (after.total, after.done, after.spent, after.output_file_id) == (3, 3, batch.spent, batch.output_file_id)
    assert (await world.worker.prune(TEN, limit=1000)).batches == 0


async def test_the_output_file_stays_for_its_own_time(world: World) -> None:
    project = await world.project()
    batch = await finished(world, project)
    await world.advance(11 * DAY)

    await world.worker.prune(TEN, limit=1000)
    await world.worker.expire_files(TEN, limit=1000)

    assert batch.output_file_id is not None
    assert await world.api.get_file(project.id, batch.output_file_id) is not None
    assert await world.api.expired_results(project.id, batch.output_file_id) == batch.id
    stranger = await world.project()
    assert await world.api.expired_results(stranger.id, batch.output_file_id) is None


async def test_an_unfinished_batch_is_never_pruned(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 2, expires_in_s=100 * DAY)
    await world.commit(done(await world.claim_one()))
    await world.advance(50 * DAY)

    assert (await world.worker.prune(TEN, limit=1000)).tasks == 0
    assert len(await world.states(batch)) == 2


async def test_a_projects_own_days_take_the_place_of_the_settings(world: World) -> None:
    short, long, usual = await world.project(), await world.project(), await world.project()
    assert (await world.api.set_keep_days(short.id, 2)) is not None
    assert (await world.api.set_keep_days(long.id, 30)) is not None
    batches = [await finished(world, project) for project in (short, long, usual)]
    task = await world.live(short, body=b"short")
    await world.commit(done(await world.claim_one()))

    await world.advance(3 * DAY)
    assert (await world.worker.prune(TEN, limit=1000)).batches == 1
    assert await world.api.get_task(short.id, task) is None
    await world.advance(8 * DAY)
    assert (await world.worker.prune(TEN, limit=1000)).batches == 1
    assert (await world.worker.prune(FOREVER, limit=1000)).batches == 0
    await world.api.set_keep_days(long.id, None)
    assert (await world.worker.prune(TEN, limit=1000)).batches == 1
    assert None not in [(await world.see(batch)).pruned_at for batch in batches]


async def test_money_in_doubt_keeps_its_batch_until_it_is_settled(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 1, queue="large")
    task = await world.claim_one("large", lease_s=1)
    granted = await world.send(task, 100)
    await world.advance(5)
    await world.sweep()  # its lease is over: the call's outcome is unknown
    again = await world.claim_one("large")
    await world.commit(done(again, stage=3))
    await world.finish(batch)
    await world.advance(20 * DAY)

    assert (await world.worker.prune(TEN, limit=1000)).batches == 0
    assert (await world.worker.look(TEN)).doubted_batches == 1

    await world.worker.store_late_answer(bill(granted, 60), "{}")
    assert (await world.worker.prune(TEN, limit=1000)).batches == 1


async def test_budgets_and_ledger_and_what_calls_cost_outlive_the_tasks(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    batch = await world.batch(project, 1, queue="large")
    task = await world.claim_one("large")
    granted = await world.send(task, 100)
    assert isinstance(granted, Granted)
    await world.commit(done(task, stage=3, bills=(bill(granted, 70),)))
    await world.finish(batch)
    await world.advance(20 * DAY)

    await world.worker.prune(TEN, limit=1000)

    assert (await world.see(batch)).spent == 70
    assert await world.api.ledger_difference(None) == ()
    (kept,) = await world.api.attempts_of_tasks([task.task_id])
    assert kept.cost == 70


async def test_live_calls_are_pruned_by_their_own_time(world: World) -> None:
    project = await world.project()
    ended, waiting = await world.live(project, body=b"1"), await world.live(project, body=b"2")
    await world.commit(done(await world.claim_one()))
    await world.advance(6 * DAY)

    assert (await world.worker.prune(FOREVER, limit=1000)).live == 0
    assert (await world.worker.prune(TEN, limit=1000)).live == 1

    left = [await world.api.get_task(project.id, task) is not None for task in (ended, waiting)]
    assert left == [False, True]


@pytest.mark.parametrize(
    ("level", "kept"), [(StoreLevel.FULL, True), (StoreLevel.ANSWERS, True), (StoreLevel.NONE, False)]
)
async def test_a_live_call_that_stores_nothing_loses_question_and_answer_soon(
    world: World, level: StoreLevel, kept: bool
) -> None:
    project = await world.project()
    task = await world.live(project, spec=make_spec(store=level))
    await world.commit(done(await world.claim_one(), body='{"choices": ["5"]}'))
    before = await world.detail(project.id, task)
    await world.advance(10 * 60)
    await world.worker.prune(TEN, limit=1000)
    assert (await world.detail(project.id, task)).result == before.result  # a retry may still join it

    await world.advance(15 * 60)
    assert (await world.worker.prune(TEN, limit=1000)).wiped == (0 if kept else 1)
    assert (await world.worker.prune(TEN, limit=1000)).wiped == 0

    after = await world.detail(project.id, task)
    assert (after.result == before.result) is kept
    assert (after.payload == before.payload) is kept
    assert kept or json.loads(after.payload) == {"k": "math", "m": [], "r": "", "st": "none"}


async def test_deliveries_that_are_over_are_pruned_and_pending_ones_are_not(world: World) -> None:
    project = await world.project()
    await world.finish_all(project, webhook_url="https://one.example/")
    await world.finish_all(project, webhook_url="https://two.example/")
    (first, _) = await world.deliveries()
    outcome = WebhookOutcome(first.id, delivered=True, retry_in_s=None, status=200, error=None, excerpt="")
    await world.worker.finish_deliveries([outcome])
    await world.advance(4 * DAY)

    assert (await world.worker.look(TEN)).due_deliveries == 1
    assert (await world.worker.prune(TEN, limit=1000)).deliveries == 1
    assert (await world.worker.prune(TEN, limit=1000)).deliveries == 0
    assert [delivery.id for delivery in await world.deliveries()] != [first.id]


async def test_a_look_tells_what_will_go_and_changes_nothing(world: World) -> None:
    project = await world.project()
    batch = await finished(world, project)
    await world.live(project)
    await world.commit(done(await world.claim_one()))
    await world.advance(11 * DAY)

    for _ in range(2):
        seen = await world.worker.look(TEN)
        assert (seen.due_batches, seen.due_tasks, seen.due_live) == (1, 3, 1)
        assert seen.files == 2
        assert seen.stored_bytes == 20
        assert seen.oldest_batch_at is not None
        assert seen.oldest_live_at is not None
    assert len(await world.states(batch)) == 3
    none = await world.worker.look(FOREVER)
    assert (none.due_batches, none.due_tasks, none.due_live) == (0, 0, 0)


async def test_a_turn_is_given_to_one_asker_in_each_interval(world: World) -> None:
    assert await world.worker.take_turn("files", every_s=60)
    assert not await world.worker.take_turn("files", every_s=60)
    assert await world.worker.take_turn("prune", every_s=60)
    await world.advance(61)
    assert await world.worker.take_turn("files", every_s=60)


async def test_the_report_is_kept_until_the_next_one(world: World) -> None:
    assert await world.api.retention_report() is None
    await world.worker.put_retention_report('{"a": 1}')
    await world.worker.put_retention_report('{"a": 2}')
    assert await world.api.retention_report() == '{"a": 2}'


async def test_that_a_batch_was_pruned_is_in_the_log_once(world: World) -> None:
    project = await world.project()
    batch = await finished(world, project)
    await world.advance(11 * DAY)
    for _ in range(2):
        await world.worker.prune(TEN, limit=1000)
    await world.sweep()

    told = [event for event in await world.events(project) if event.type == "batch.pruned"]

    assert [(event.batch_id, json.loads(event.data)) for event in told] == [(batch.id, {"id": batch.id})]
