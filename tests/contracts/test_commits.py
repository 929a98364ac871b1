"""Each step exactly once, and what a batch shows of it."""

from dataclasses import replace

import pytest

from cope.core.lifecycle import BatchStatus, TaskState
from cope.core.money import TokenUsage
from cope.core.policies.spec import PolicyName
from cope.core.task import StoreLevel
from cope.ports.store import CommitStatus, GiveBack
from tests.contracts.world import World, done, fails, goes_on, large_step
from tests.support import finished_step, make_policy, make_spec, sample


async def test_committing_the_same_step_twice_writes_it_once(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 2)
    task = await world.claim_one()

    first = await world.commit(done(task))
    second = await world.commit(done(task))

    assert (first, second) == ([CommitStatus.COMMITTED], [CommitStatus.FENCED])
    seen = await world.see(batch)
    assert (seen.done, seen.failed) == (1, 0)
    assert len((await world.detail(project.id, task.task_id)).history) == 1


async def test_a_step_that_leads_to_a_queue_is_written_once_too(world: World) -> None:
    await world.batch(await world.project())
    task = await world.claim_one()

    first = await world.commit(goes_on(task))
    second = await world.commit(goes_on(task))

    assert (first, second) == ([CommitStatus.COMMITTED], [CommitStatus.FENCED])
    assert len((await world.claim_one("large")).history) == 1


async def test_a_group_of_commits_gives_each_its_own_status_in_order(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 4)
    good, lost, bad, on = await world.claim(limit=4)
    await world.worker.give_back([GiveBack(lost.task_id, lost.fence)])

    statuses = await world.commit(done(good), done(lost), fails(bad), goes_on(on))

    assert statuses == [
        CommitStatus.COMMITTED,
        CommitStatus.FENCED,
        CommitStatus.COMMITTED,
        CommitStatus.COMMITTED,
    ]
    assert await world.states(batch) == ["done", "failed", "ready", "ready"]


async def test_committing_nothing_is_fine(world: World) -> None:
    assert await world.commit() == []


async def test_a_batch_counts_done_and_failed_tasks_by_stage_and_error(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 4)
    a, b, c, d = await world.claim(limit=4)

    await world.commit(done(a, stage=1), done(b, stage=1), done(c, stage=3), fails(d, code="model_rejected"))

    seen = await world.see(batch)
    assert (seen.total, seen.done, seen.failed) == (4, 3, 1)
    assert {k: v for k, v in seen.by_stage.items() if v} == {"1": 2, "3": 1, "failed": 1}
    assert dict(seen.error_counts) == {"model_rejected": 1}


async def test_a_batch_adds_up_the_tokens_of_its_steps(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project)
    usage = TokenUsage(prompt=100, cached=40, completion=20, reasoning=5, calls=4)

    await world.commit(goes_on(await world.claim_one(), step=finished_step("stage1", usage=usage)))
    await world.commit(done(await world.claim_one("large"), step=finished_step("stage3", usage=usage)))

    seen = await world.see(batch)
    assert (seen.prompt_tokens, seen.cached_tokens) == (200, 80)
    assert (seen.completion_tokens, seen.reasoning_tokens) == (40, 10)


async def test_the_last_task_moves_its_batch_to_finalizing_and_not_the_one_before(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 2)
    first, last = await world.claim(limit=2)

    await world.commit(done(first))
    assert (await world.see(batch)).status is BatchStatus.IN_PROGRESS
    assert await world.worker.claim_finalisation(lease_s=30) is None

    await world.commit(fails(last))
    seen = await world.see(batch)
    assert seen.status is BatchStatus.FINALIZING
    assert seen.finalizing_at is not None
    assert (await world.finalisation()).batch.id == batch.id


async def test_the_last_tasks_may_end_in_one_commit(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 3)

    await world.commit(*[done(task) for task in await world.claim(limit=3)])

    assert (await world.see(batch)).status is BatchStatus.FINALIZING


async def test_a_done_task_shows_its_result_history_and_end(world: World) -> None:
    project = await world.project()
    await world.batch(project)
    task = await world.claim_one()
    step = finished_step("stage1", sample(0, "5"), sample(1, None, plan=None))

    await world.commit(done(task, step=step, body='{"choices": []}'))

    seen = await world.detail(project.id, task.task_id)
    assert seen.state is TaskState.DONE
    assert seen.result == '{"choices": []}'
    (kept,) = seen.history
    assert (kept.name, kept.reason, kept.usage) == (step.name, step.reason, step.usage)
    assert [one.answer for one in kept.samples] == ["5", None]
    assert seen.finished_at is not None
    assert seen.custom_id == "line-1"
    assert seen.error is None


async def test_a_failed_task_shows_its_error(world: World) -> None:
    project = await world.project()
    await world.batch(project)
    task = await world.claim_one()

    await world.commit(fails(task, code="context_length_exceeded"))

    seen = await world.detail(project.id, task.task_id)
    assert seen.state is TaskState.FAILED
    assert seen.error is not None
    assert (seen.error.code, seen.error.message) == ("context_length_exceeded", "It does not fit.")


async def test_a_terminal_task_is_never_claimed_or_swept_again(world: World) -> None:
    project = await world.project()
    await world.batch(project)
    task = await world.claim_one()
    await world.commit(done(task))

    await world.advance(1000)
    await world.sweep()

    assert await world.claim("small") == []
    assert await world.state(task) is TaskState.DONE


async def test_tasks_are_listed_by_state(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 3)
    await world.commit(done(await world.claim_one()))

    ended = await world.api.list_tasks(project.id, batch.id, state="done", after=None, limit=10)
    waiting = await world.api.list_tasks(project.id, batch.id, state="ready", after=None, limit=10)

    assert (len(ended.items), len(waiting.items)) == (1, 2)


async def test_listing_tasks_by_pages_gives_each_of_them_once(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 5)

    first = await world.api.list_tasks(project.id, batch.id, state=None, after=None, limit=3)
    rest = await world.api.list_tasks(project.id, batch.id, state=None, after=first.items[-1].id, limit=3)

    assert (first.has_more, rest.has_more) == (True, False)
    assert len({task.id for task in (*first.items, *rest.items)}) == 5


async def test_a_live_task_ends_without_a_batch(world: World) -> None:
    project = await world.project()
    good, bad = await world.live(project, body=b"1"), await world.live(project, body=b"2")
    assert await world.api.live_results([good, bad]) == []
    tasks = {task.task_id: task for task in await world.claim(limit=2)}

    await world.commit(done(tasks[good], body="{}"), fails(tasks[bad], status=400))

    results = {result.task_id: result for result in await world.api.live_results([good, bad])}
    assert (results[good].status, results[good].body) == (200, "{}")
    assert results[bad].status == 400
    assert "context_length_exceeded" in results[bad].body


async def test_large_steps_are_kept_with_their_cost(world: World) -> None:
    project = await world.project()
    await world.batch(project, queue="large")
    task = await world.claim_one("large")

    await world.commit(done(task, step=large_step(cost=212_000), stage=3))

    (step,) = (await world.detail(project.id, task.task_id)).history
    assert (step.cost, step.price_version) == (212_000, "2026-11-01")


@pytest.mark.parametrize(
    ("level", "solutions", "answers"),
    [
        (StoreLevel.FULL, ["six", "five", "5!"], ["6", "5", "5"]),
        (StoreLevel.ANSWERS, [None, "five", None], ["6", "5", "5"]),
        (StoreLevel.NONE, [None, None, None], [None, None, None]),
    ],
)
async def test_a_finished_task_keeps_the_texts_that_its_store_level_says(
    world: World, level: StoreLevel, solutions: list[str | None], answers: list[str | None]
) -> None:
    project = await world.project()
    policy = make_policy(PolicyName.SMALL_MAJORITY, n=3)
    task_id = await world.live(project, spec=make_spec(policy=policy, store=level))
    task = await world.claim_one()
    samples = (sample(0, "6", solution="six"), sample(1, "5", solution="five"), sample(2, "5", solution="5!"))
    step = finished_step("solve", *(replace(one, plan=None) for one in samples))

    await world.commit(done(task, step=step))

    (kept,) = (await world.detail(project.id, task_id)).history
    assert [one.solution for one in kept.samples] == solutions
    assert [one.answer for one in kept.samples] == answers
    assert kept.usage == step.usage


@pytest.mark.parametrize("level", list(StoreLevel))
async def test_a_task_that_goes_on_keeps_every_text_its_next_step_may_need(world: World, level: StoreLevel) -> None:
    project = await world.project()
    await world.live(project, spec=make_spec(store=level))
    step = finished_step("stage1", *(sample(n, str(n), plan=f"plan {n}") for n in range(4)))

    await world.commit(goes_on(await world.claim_one(), "large", step=step))

    assert (await world.claim_one("large")).history == (step,)


async def test_a_failed_task_keeps_no_text_if_its_caller_wants_none_kept(world: World) -> None:
    project = await world.project()
    task_id = await world.live(project, spec=make_spec(store=StoreLevel.NONE))
    await world.commit(goes_on(await world.claim_one(), step=finished_step("stage1", sample(0, plan="a plan"))))

    await world.commit(fails(await world.claim_one("large")))

    (kept,) = (await world.detail(project.id, task_id)).history
    assert [(one.plan, one.solution, one.answer) for one in kept.samples] == [(None, None, None)]
