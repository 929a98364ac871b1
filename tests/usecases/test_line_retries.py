"""Retries and cancelling in whole runs: what was paid for is not paid again, and what is cancelled stops at once."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace

from cope.core.codec import decode_policy, encode_policy
from cope.core.errors import ModelRejected
from cope.core.lifecycle import BatchStatus, TaskState
from cope.core.line_retry import ENDED_WITHOUT_ANSWER, LineRetry, Retryable
from cope.core.money import NanoUSD
from cope.core.policies.spec import PolicyName
from cope.core.prompts import BUILT_IN
from cope.core.records import Batch, TaskDetail
from cope.core.task import OnBudget
from cope.ports.model import ChatAnswer, ChatRequest
from cope.ports.store import NewBatch
from cope.usecases.drain import Drainer
from cope.usecases.finalise import finalise_next
from cope.usecases.ingest import ingest_next
from tests.support import make_batch
from tests.usecases.test_pipeline import (
    LEASE_S,
    SMALL,
    Parts,
    agreeing,
    current,
    divided,
    line,
    make_parts,
    settle,
    submit,
)

EVERY = frozenset(Retryable)
OWN = replace(SMALL, name="own")


async def retry(
    parts: Parts,
    parent: Batch,
    lines: frozenset[Retryable] = ENDED_WITHOUT_ANSWER,
    *,
    policy: str | None = None,
    on_budget: OnBudget | None = None,
) -> Batch:
    batch = replace(make_batch(parent.project_id, parent.input_file_id), retry_of=parent.id)
    wanted = LineRetry(parent.id, lines, policy=policy, on_budget=on_budget)
    child = await parts.store.retry_batch(NewBatch(batch, b"retry", None, retry=0), wanted)
    assert await ingest_next(parts, lease_s=LEASE_S)
    return await current(parts, child)


async def tasks(parts: Parts, batch: Batch) -> list[TaskDetail]:
    page = await parts.store.list_tasks(batch.project_id, batch.id, state=None, after=None, limit=100)
    return list(page.items)


async def only_task(parts: Parts, batch: Batch) -> TaskDetail:
    (task,) = await tasks(parts, batch)
    return task


class Scripted:
    """`divided`, but that the large model refuses to solve as long as `broken`; counts calls by model."""

    def __init__(self) -> None:
        self.broken = True
        self.calls: list[str] = []

    def __call__(self, request: ChatRequest) -> ChatAnswer:
        self.calls.append(request.model.name)
        if self.broken and request.model.name == "large" and not request.messages[-1].content.endswith("Guideline?"):
            raise ModelRejected("HTTP 400: no", answered=True)
        return divided(request)


async def test_a_retry_goes_on_behind_the_last_finished_step_and_pays_for_none_of_them_twice():
    script = Scripted()
    parts = make_parts(script)
    parent = await submit(parts, line("a"))
    await settle(parts)
    failed = await only_task(parts, parent)
    assert (failed.state, [step.name for step in failed.history]) == (
        TaskState.FAILED,
        ["stage1", "stage2-plan", "stage2-execute"],
    )
    before, script.broken, script.calls = (await current(parts, parent)).spent, False, []

    child = await retry(parts, parent)
    await settle(parts)

    task = await only_task(parts, child)
    assert script.calls == ["large"]
    assert task.state is TaskState.DONE
    assert [(step.name, step.reused_from == failed.id) for step in task.history] == [
        ("stage1", True),
        ("stage2-plan", True),
        ("stage2-execute", True),
        ("stage3", False),
    ]
    assert sum(step.cost for step in task.history) == (await current(parts, child)).spent > 0
    assert (await current(parts, parent)).spent == before
    assert task.result is not None
    block = json.loads(task.result)["cope"]
    assert block["cost_nanousd"] == (await current(parts, child)).spent
    assert [step.get("reused_from") for step in block["steps"]] == [failed.id] * 3 + [None]


async def test_a_retry_of_a_retry_names_the_task_that_did_the_work():
    script = Scripted()
    parts = make_parts(script)
    parent = await submit(parts, line("a"))
    await settle(parts)
    child = await retry(parts, parent)
    await settle(parts)
    script.broken = False

    grandchild = await retry(parts, child)
    await settle(parts)

    first, last = await only_task(parts, parent), await only_task(parts, grandchild)
    assert last.state is TaskState.DONE
    assert {step.reused_from for step in last.history[:3]} == {first.id}


async def test_another_policy_takes_nothing_over():
    script = Scripted()
    parts = make_parts(script)
    parent = await submit(parts, line("a"))
    await settle(parts)
    script.broken, script.calls = False, []
    own = decode_policy((await only_task(parts, parent)).policy)

    child = await retry(parts, parent, policy=encode_policy(replace(own, name=PolicyName.LARGE)))
    await settle(parts)

    task = await only_task(parts, child)
    assert (task.state, [step.reused_from for step in task.history]) == (TaskState.DONE, [None])
    assert script.calls == ["large"]


async def test_prompts_of_another_version_take_nothing_over():
    script = Scripted()
    parts = make_parts(script)
    parent = await submit(parts, line("a"))
    await settle(parts)
    script.broken = False
    newer = {name: replace(prompts, revision="next") for name, prompts in BUILT_IN.items()}
    parts = replace(parts, catalog=replace(parts.catalog, prompt_sets=newer))

    child = await retry(parts, parent)
    await settle(parts)

    task = await only_task(parts, child)
    assert (task.state, {step.reused_from for step in task.history}) == (TaskState.DONE, {None})


async def test_degraded_lines_are_retried_with_money_and_reach_their_end():
    parts = make_parts(divided)
    parent = await submit(parts, line("a", on_budget="best_vote"), cap=NanoUSD(0))
    await settle(parts)
    assert (await only_task(parts, parent)).state is TaskState.DONE
    await parts.store.set_cap(parent.project_id, None)

    child = await retry(parts, parent, frozenset({Retryable.DEGRADED}), on_budget=OnBudget.HOLD)
    await settle(parts)

    task = await only_task(parts, child)
    assert [step.name for step in task.history] == ["stage1", "stage2-plan", "stage2-execute", "stage3"]
    assert (task.history[0].reused_from is not None, task.history[1].reused_from) == (True, None)
    assert (await current(parts, parent)).done == 1


async def test_a_held_line_goes_on_in_its_retry_with_every_sample_it_has():
    parts = make_parts(divided)
    parent = await submit(parts, line("a"), cap=NanoUSD(0))
    await settle(parts)
    assert (await only_task(parts, parent)).state is TaskState.HELD
    await parts.store.set_cap(parent.project_id, None)

    child = await retry(parts, parent, EVERY)
    await settle(parts)

    task = await only_task(parts, child)
    assert (task.state, task.history[0].reused_from is not None) == (TaskState.DONE, True)
    assert await finalise_next(parts, lease_s=LEASE_S)
    assert (await current(parts, parent)).status is BatchStatus.COMPLETED


async def test_a_line_that_names_a_single_model_is_refused_where_a_policy_is_to_replace_it():
    def refuses(request: ChatRequest) -> ChatAnswer:
        raise ModelRejected("HTTP 400: no", answered=True)

    parts = make_parts(refuses)
    parts = replace(parts, catalog=replace(parts.catalog, entries={**parts.catalog.entries, "own": OWN}))
    parent = await submit(parts, line("a", model="own"))
    await settle(parts)
    policy = encode_policy(replace(decode_policy((await only_task(parts, parent)).policy), name=PolicyName.COPE))

    child = await retry(parts, parent, policy=policy)

    assert child.status is BatchStatus.FAILED
    assert [(error.param, error.line) for error in child.errors] == [("cope.policy", 1)]
    assert (await retry(parts, parent)).status is BatchStatus.IN_PROGRESS


async def test_a_model_that_is_gone_is_said_and_the_lines_stay_to_be_retried():
    script = Scripted()
    parts = make_parts(script)
    parent = await submit(parts, line("a"))
    await settle(parts)
    gone = replace(parts.catalog, entries={"small": parts.catalog.entries["small"]})

    child = await retry(replace(parts, catalog=gone), parent)

    assert (child.status, child.errors[0].code) == (BatchStatus.FAILED, "model_not_found")
    assert (await retry(parts, parent)).status is BatchStatus.IN_PROGRESS


async def until(reached: Callable[[], bool]) -> None:
    while not reached():
        await asyncio.sleep(0.01)


async def test_cancelling_aborts_running_samples_keeps_paid_calls_and_begins_nothing_more():
    aborted: list[str] = []
    begun: list[str] = []
    paid = asyncio.Event()

    async def slow(request: ChatRequest) -> ChatAnswer:
        begun.append(request.model.name)
        if request.model.name == "large":
            await paid.wait()
            return divided(request)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            aborted.append(request.request_id)
            raise
        return agreeing(request)

    parts = make_parts(slow)
    batch = await submit(parts, line("a"), line("b", model="large"))
    over = False
    drainers = [
        Drainer(parts, queue=queue, worker="w", concurrency=16, lease_s=LEASE_S)  # type: ignore[arg-type]
        for queue in ("small", "large")
    ]
    running = [asyncio.create_task(drainer.run(lambda: over)) for drainer in drainers]
    n = decode_policy((await tasks(parts, batch))[0].policy).n
    await until(lambda: begun.count("small") == n and begun.count("large") == 1)

    await parts.store.cancel_batch(batch.project_id, batch.id)
    await until(lambda: len(aborted) == n)

    states = {task.custom_id: task.state for task in await tasks(parts, batch)}
    assert states == {"a": TaskState.CANCELLED, "b": TaskState.LEASED}
    paid.set()
    await until(lambda: drainers[1].in_flight == 0)
    over = True
    await asyncio.gather(*running)
    task = (await tasks(parts, batch))[1]
    assert (task.state, len(begun)) == (TaskState.DONE, n + 1)
    assert (await current(parts, batch)).spent > 0
