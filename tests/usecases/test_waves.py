"""Votes launched in waves, by the real chain runner: what is asked of the model, and what is not any more."""

import asyncio

import pytest

from cope.core.history import SampleStatus, step_named
from cope.core.ids import TaskId
from cope.core.stages import Stage
from cope.ports.model import ChatAnswer, ChatRequest
from cope.usecases.drain import GroupedLedger
from cope.usecases.run_step import StepRun
from tests.usecases.stepping import work_off
from tests.usecases.test_pipeline import LEASE_S, Parts, current, line, make_parts, says, submit


def index_of(request: ChatRequest) -> int:
    return int(request.request_id[-4:-1])


def executors(parts: Parts) -> list[int]:
    """The samples whose solution was asked of the small model, in the order asked."""
    small = [request for request in parts.model.requests if request.model.name == "small"]
    return [index_of(request) for request in small if request.request_id.endswith("x")]


async def only_task(parts: Parts, batch_id: str, project_id: str) -> TaskId:
    page = await parts.store.list_tasks(project_id, batch_id, state=None, after=None, limit=10)  # type: ignore[arg-type]
    return page.items[0].id


async def carried_out(parts: Parts, **cope: object):  # type: ignore[no-untyped-def]
    batch = await submit(parts, line("a", **cope))
    await work_off(parts)
    assert (await current(parts, batch)).done == 1
    detail = await parts.store.get_task(batch.project_id, await only_task(parts, batch.id, batch.project_id))
    assert detail is not None
    return detail.history


async def test_six_that_agree_leave_the_second_wave_unasked() -> None:
    parts = make_parts(lambda request: says("\\boxed{5}"))

    (stage1,) = await carried_out(parts, waves=[6, 2])

    assert executors(parts) == [0, 1, 2, 3, 4, 5]
    assert [s.index for s in stage1.samples if s.status is SampleStatus.ABORTED] == [6, 7]
    assert stage1.stopped_early == "accept was certain after 6 of 8 samples"


async def test_the_second_wave_is_asked_where_the_first_decides_nothing() -> None:
    def all_but_one_agree(request: ChatRequest) -> ChatAnswer:
        return says("\\boxed{7}" if index_of(request) == 0 else "\\boxed{5}")

    parts = make_parts(all_but_one_agree)

    (stage1,) = await carried_out(parts, waves=[6, 2])

    assert executors(parts)[:7] == [0, 1, 2, 3, 4, 5, 6]
    assert stage1.stopped_early in {None, "accept was certain after 7 of 8 samples"}


@pytest.mark.parametrize(("p1_star", "asked"), [("arrived", 4), ("full", 8)])
async def test_an_escalation_launches_its_last_waves_only_where_p1_star_is_drawn_among_all(
    p1_star: str, asked: int
) -> None:
    def never_agrees(request: ChatRequest) -> ChatAnswer:
        if request.model.name == "large":
            return says("Work back." if request.messages[-1].content.endswith("Guideline?") else "\\boxed{9}")
        return says(f"\\boxed{{{request.request_id[-4:-1]}}}")

    parts = make_parts(never_agrees)

    history = await carried_out(parts, waves=[4, 2, 2], p1_star=p1_star)

    stage1 = step_named(history, "stage1")
    assert stage1 is not None
    assert len(stage1.arrived) == asked
    assert history[-1].stage is Stage.LARGE_EXECUTES


async def test_a_plain_majority_ends_with_a_lead_that_the_rest_cannot_overturn() -> None:
    """4 of 8 for one answer after six, and one each for two others: the last two can make 3 at most."""
    answers = ["5", "5", "5", "5", "1", "2", "2", "2"]
    parts = make_parts(lambda request: says(f"\\boxed{{{answers[index_of(request)]}}}"))

    (solved,) = await carried_out(parts, policy="small-majority", waves=[6, 2])

    assert [s.answer for s in solved.arrived] == answers[:6]


async def test_the_worker_is_told_of_every_wave_after_the_first() -> None:
    parts = make_parts(lambda request: says("\\boxed{5}"))
    await submit(parts, line("a", n=4, waves=[2, 2]), line("b", n=4, waves=[2, 2]))
    begun: list[int] = []
    for task in await parts.store.claim("small", worker="w", limit=2, lease_s=LEASE_S):
        ledger = GroupedLedger(parts.store, parts.wake)
        gate = asyncio.Semaphore(4)
        run = StepRun(parts, ledger, task, gate=gate, on_chain_end=lambda: None, on_more_chains=begun.append)  # type: ignore[arg-type]
        await run.run()

    assert begun == [2, 2]  # two that agree are too few for 3 of 4: the second wave is launched in each
