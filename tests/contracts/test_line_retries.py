"""Lines taken up again: each at most once, with the steps they have, out of their batch in the same transaction."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from cope.core.codec import encode_step
from cope.core.errors import BadRequest, Conflict, NotFound
from cope.core.history import History
from cope.core.ids import BatchId, TaskId
from cope.core.lifecycle import BatchStatus, TaskState
from cope.core.line_retry import ENDED_WITHOUT_ANSWER, LineRetry, Retryable
from cope.core.records import Batch, Project
from cope.core.reuse import taken_over
from cope.core.task import StoreLevel
from cope.ports.store import BatchJob, ClaimedTask, NewBatch, NewTask, OldLine, StepCommit, ToDone
from tests.contracts.world import LEASE_S, World, bill, done, fails, goes_on, large_step, pages
from tests.support import finished_step, make_batch, make_new_task, make_spec, new_id, sample

WINDOW = timedelta(days=1)
EVERY = frozenset(Retryable)


def again(project: Project, parent: Batch, *, key: str | None = None, body: bytes = b"", retry: int = 0) -> NewBatch:
    batch = make_batch(project.id, parent.input_file_id, created_at=parent.created_at)
    batch = replace(batch, retry_of=parent.id)
    return NewBatch(batch, body or batch.id.encode(), key, retry=retry)


async def retried(
    world: World,
    project: Project,
    parent: Batch,
    lines: frozenset[Retryable] = ENDED_WITHOUT_ANSWER,
    custom_ids: tuple[str, ...] | None = None,
) -> Batch:
    """A retry whose lines have been taken over."""
    await world.api.retry_batch(again(project, parent), LineRetry(parent.id, lines, custom_ids))
    job = await validation(world)
    assert await world.worker.take_lines(job, as_they_are, expires_in=WINDOW)
    return await world.see(job.batch)


async def validation(world: World) -> BatchJob:
    job = await world.worker.claim_validation(lease_s=LEASE_S)
    assert job is not None
    return job


def as_they_are(lines: Sequence[OldLine]) -> list[tuple[NewTask, History]]:
    """Every step is taken over."""
    made: list[tuple[NewTask, History]] = []
    for line in lines:
        task_id = TaskId(new_id("task_"))
        task = NewTask(
            task_id, line.line, line.custom_id, line.payload, line.policy, line.seed, "small", line.priority,
            line.on_budget,
        )  # fmt: skip
        made.append((task, tuple(taken_over(step, line.task_id) for step in line.history)))
    return made


def degraded(task: ClaimedTask) -> StepCommit:
    body = json.dumps({"cope": {"degraded": True}, "said": 'no "degraded":false\x00'}, separators=(",", ":"))
    return StepCommit(task.task_id, task.fence, None, ToDone(body, 1, accepted=False))


async def names(world: World, batch: Batch) -> list[str | None]:
    page = await world.api.list_tasks(batch.project_id, batch.id, state=None, after=None, limit=1000)
    return [task.custom_id for task in page.items]


async def test_only_failed_lines_come_into_a_retry_and_both_batches_name_each_other(world: World) -> None:
    project = await world.project()
    parent = await world.batch(project, 3)
    first, second, third = await world.claim()
    await world.commit(done(first), fails(second), done(third))

    child = await retried(world, project, parent)

    assert (child.status, child.total, child.retry_of) == (BatchStatus.IN_PROGRESS, 1, parent.id)
    assert await names(world, child) == ["line-2"]
    assert (await world.see(parent)).retried_by == (child.id,)
    again_ = await world.claim_one()
    assert (again_.batch_id, again_.spec.seed) == (child.id, second.spec.seed)
    await world.commit(done(again_))
    assert (await world.see(child)).done == 1


async def test_a_line_is_retried_once_and_then_only_from_its_retry(world: World) -> None:
    project = await world.project()
    parent = await world.batch(project, 2)
    await world.commit(*[fails(task) for task in await world.claim()])
    child = await retried(world, project, parent, custom_ids=("line-1",))
    other = await retried(world, project, parent)

    with pytest.raises(Conflict) as none_left:
        await world.api.retry_batch(again(project, parent), LineRetry(parent.id, EVERY))
    with pytest.raises(BadRequest) as taken:
        await world.api.retry_batch(again(project, parent), LineRetry(parent.id, EVERY, ("line-1",)))

    assert (await names(world, child), await names(world, other)) == (["line-1"], ["line-2"])
    assert none_left.value.code == "nothing_to_retry"
    assert (taken.value.code, child.id in taken.value.message) == ("line_not_retryable", True)


async def test_two_retries_that_wait_share_the_lines_and_the_second_finds_none(world: World) -> None:
    project = await world.project()
    parent = await world.batch(project, 2)
    await world.commit(*[fails(task) for task in await world.claim()])
    for _ in range(2):
        await world.api.retry_batch(again(project, parent), LineRetry(parent.id, EVERY))
    first, second = await validation(world), await validation(world)

    assert await world.worker.take_lines(first, as_they_are, expires_in=WINDOW) == 2
    assert await world.worker.take_lines(second, as_they_are, expires_in=WINDOW) == 0

    assert (await world.see(second.batch)).status is BatchStatus.VALIDATING


async def test_a_held_line_leaves_its_batch_as_it_comes_into_the_retry(world: World) -> None:
    project = await world.project(cap=None)
    parent = await world.batch(project, 2)
    held, other = await world.claim()
    await world.commit(goes_on(held), done(other))
    await world.hold(await world.claim_one("large"), 1_000)

    child = await retried(world, project, parent, frozenset({Retryable.HELD}))

    seen = await world.see(parent)
    assert (seen.status, seen.done, seen.failed, dict(seen.held)) == (BatchStatus.FINALIZING, 1, 1, {})
    (line,) = await world.lines(parent, failed=True)
    assert line.error is not None
    assert (line.error.code, child.id in line.error.message, line.status) == ("moved_to_retry", True, None)
    assert await world.states(child) == ["ready"]
    assert dict(seen.error_counts) == {"moved_to_retry": 1}
    assert (await world.sweep()).resumed == 0


async def test_what_a_line_has_done_comes_with_it_marked_and_costs_nothing_again(world: World) -> None:
    project = await world.project()
    parent = await world.batch(project)
    await world.commit(goes_on(await world.claim_one()))
    paying = await world.claim_one("large")
    granted = await world.send(paying, 1_000, step="stage2-plan")
    step = large_step(700, name="stage2-plan")
    await world.commit(goes_on(paying, "small", step=step, bills=(bill(granted, 700),)))
    await world.commit(fails(await world.claim_one()))

    child = await retried(world, project, parent)

    task = await world.claim_one()
    assert [(s.name, s.cost, s.usage.calls, s.reused_from) for s in task.history] == [
        ("stage1", 0, 0, paying.task_id),
        ("stage2-plan", 0, 0, paying.task_id),
    ]
    assert (child.spent, (await world.see(parent)).spent) == (0, 700)
    assert (await world.budget(project)).spent == 700
    assert (child.prompt_tokens, child.completion_tokens) == (0, 0)


async def test_an_error_while_lines_are_taken_over_takes_everything_back(world: World) -> None:
    project = await world.project()
    parent = await world.batch(project, 2)
    await world.commit(*[goes_on(task) for task in await world.claim()])
    for task in await world.claim("large"):
        await world.hold(task, 1_000)
    await world.api.retry_batch(again(project, parent), LineRetry(parent.id, EVERY))

    def breaks(lines: Sequence[OldLine]) -> list[tuple[NewTask, History]]:
        raise BadRequest("No.")

    with pytest.raises(BadRequest):
        await world.worker.take_lines(await validation(world), breaks, expires_in=WINDOW)

    assert await world.states(parent) == ["held", "held"]
    assert (await world.see(parent)).failed == 0


async def test_a_retry_that_is_cancelled_before_it_begins_leaves_the_lines_where_they_are(world: World) -> None:
    project = await world.project()
    parent = await world.batch(project)
    await world.commit(fails(await world.claim_one()))
    child = await world.api.retry_batch(again(project, parent), LineRetry(parent.id, EVERY))
    job = await validation(world)
    await world.api.cancel_batch(project.id, child.id)

    assert await world.worker.take_lines(job, as_they_are, expires_in=WINDOW) is None

    assert await world.api.retry_batch(again(project, parent), LineRetry(parent.id, EVERY))


async def test_degraded_lines_are_found_by_the_mark_in_their_answers(world: World) -> None:
    project = await world.project()
    parent = await world.batch(project, 3)
    first, second, third = await world.claim()
    forged = StepCommit(
        second.task_id, second.fence, None, ToDone(json.dumps({"said": '"degraded":true'}), 2, accepted=False)
    )
    await world.commit(degraded(first), forged, done(third))

    child = await retried(world, project, parent, frozenset({Retryable.DEGRADED}))

    assert await names(world, child) == ["line-1"]
    assert (await world.see(parent)).done == 3


async def test_cancelled_and_expired_lines_can_be_retried_from_what_they_have(world: World) -> None:
    project = await world.project()
    cancelled, expired = await world.batch(project, 2), await world.batch(project, 1, expires_in_s=60)
    await world.api.cancel_batch(project.id, cancelled.id)
    await world.finish(cancelled)
    await world.advance(61)
    await world.sweep()

    children = [await retried(world, project, parent) for parent in (cancelled, expired)]

    assert [child.total for child in children] == [2, 1]
    assert (await world.see(expired)).status is BatchStatus.FINALIZING


async def test_a_retry_is_repeated_by_key_and_by_the_sdk_though_its_lines_are_gone(world: World) -> None:
    project = await world.project()
    parent = await world.batch(project)
    await world.commit(fails(await world.claim_one()))
    wanted = LineRetry(parent.id, EVERY)
    child = await world.api.retry_batch(again(project, parent, key="k", body=b"b"), wanted)
    await world.worker.take_lines(await validation(world), as_they_are, expires_in=WINDOW)

    by_key = await world.api.retry_batch(again(project, parent, key="k", body=b"b"), wanted)
    by_sdk = await world.api.retry_batch(again(project, parent, body=b"b", retry=1), wanted)
    with pytest.raises(Conflict) as reused:
        await world.api.retry_batch(again(project, parent, key="k", body=b"other"), wanted)

    assert (by_key.id, by_sdk.id, reused.value.code) == (child.id, child.id, "idempotency_key_reused")


async def test_what_can_not_be_retried_is_refused_by_name(world: World) -> None:
    project, stranger = await world.project(), await world.project()
    parent = await world.batch(project, 2)
    running, finished = await world.claim()
    await world.commit(done(finished))
    refused = []
    for custom_id in ("line-9", "line-1", "line-2"):
        with pytest.raises(BadRequest) as wrong:
            await world.api.retry_batch(again(project, parent), LineRetry(parent.id, EVERY, (custom_id,)))
        refused.append((wrong.value.code, wrong.value.param))
    waiting = await world.submit(project)
    for batch, project_, error in ((waiting, project, Conflict), (parent, stranger, NotFound)):
        with pytest.raises(error):
            await world.api.retry_batch(again(project_, batch), LineRetry(batch.id, EVERY))
    with pytest.raises(NotFound):
        await world.api.retry_batch(again(project, parent), LineRetry(BatchId("batch_none"), EVERY))

    assert refused[0] == ("unknown_custom_id", "custom_ids")
    assert refused[1:] == [("line_not_retryable", "custom_ids")] * 2
    assert await world.state(running) is TaskState.LEASED


async def test_the_input_file_of_a_retry_may_be_deleted_while_it_runs(world: World) -> None:
    project = await world.project()
    parent = await world.batch(project)
    await world.commit(fails(await world.claim_one()))
    await world.finish(parent)
    child = await retried(world, project, parent)

    assert child.input_file_id == parent.input_file_id
    assert await world.api.delete_file(project.id, parent.input_file_id)
    assert await world.states(child) == ["ready"]


async def test_lines_whose_texts_were_not_kept_are_refused(world: World) -> None:
    project = await world.project()
    await world.submit(project)
    job = await validation(world)
    spec = make_spec(store=StoreLevel.NONE)
    await world.worker.ingest(job, pages([make_new_task(spec=spec)]), model=lambda: "cope", expires_in=WINDOW)
    await world.commit(fails(await world.claim_one()))
    await world.finish(job.batch)

    with pytest.raises(Conflict) as gone:
        await world.api.retry_batch(again(project, job.batch), LineRetry(job.batch.id, EVERY))

    assert gone.value.code == "text_not_kept"


async def test_a_line_that_ends_without_an_answer_keeps_the_plan_and_vote_that_a_retry_goes_on_from(
    world: World,
) -> None:
    project = await world.project()
    parent = await world.batch(project)
    votes = [sample(0, "5", plan="A"), sample(1, "7", plan="B"), sample(2, "7", plan="C"), sample(3, None, plan="D")]
    task = await world.claim_one()
    await world.commit(goes_on(task, step=finished_step("stage1", *votes)))
    await world.commit(fails(await world.claim_one("large")))
    child = await retried(world, project, parent)

    (step,) = (await world.claim_one()).history

    texts = {s.index: (s.plan, s.solution) for s in step.samples if s.solution is not None}
    assert [s.answer for s in step.samples] == ["5", "7", "7", None]
    assert set(texts) <= {1, 2}
    assert texts[1] == ("B", "The answer is 7.")
    assert child.total == 1


async def test_a_paid_answer_that_came_too_late_for_its_own_task_comes_with_the_line(world: World) -> None:
    project = await world.project()
    parent = await world.batch(project, queue="large")
    paying = await world.claim_one("large", lease_s=1)
    granted = await world.send(paying, 1_000)
    await world.advance(2)
    await world.sweep()
    await world.api.cancel_batch(project.id, parent.id)
    step = large_step(700)
    await world.worker.store_late_answer(bill(granted, 700), encode_step(step))
    await world.finish(parent)
    await world.api.retry_batch(again(project, parent), LineRetry(parent.id, EVERY))
    seen: list[OldLine] = []

    def look(lines: Sequence[OldLine]) -> list[tuple[NewTask, History]]:
        seen.extend(lines)
        return as_they_are(lines)

    await world.worker.take_lines(await validation(world), look, expires_in=WINDOW)

    ((line),) = seen
    assert (line.history, line.late, line.whole) == ((), (step,), False)


async def test_many_pages_of_lines_keep_their_order(world: World) -> None:
    project = await world.project()
    parent = await world.batch(project, 603)
    while tasks := await world.claim(limit=500):
        await world.commit(*[fails(task) for task in tasks])
    assert (await world.see(parent)).failed == 603

    child = await retried(world, project, parent)

    assert child.total == 603
    page = await world.api.list_tasks(project.id, child.id, state=None, after=None, limit=2_000)
    assert [task.custom_id for task in page.items] == [f"line-{line}" for line in range(1, 604)]
