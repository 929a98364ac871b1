"""Responses in the store: a background one's end is told, and a deleted one leaves no text."""

import json
from dataclasses import replace

import pytest

from cope.core.errors import ErrorInfo
from cope.core.lifecycle import TaskState
from cope.core.records import Project
from cope.core.responses.form import ResponseForm, response_id
from cope.core.responses.result import ERASED
from cope.core.task import StoreLevel, TaskSpec
from cope.ports.store import StepCommit, ToDone, ToFailed
from tests.contracts.world import World, bill
from tests.support import finished_step, make_endpoint, make_problem, make_spec

TYPES = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
BACKGROUND = ResponseForm(background=True)


def asked(form: ResponseForm | None = BACKGROUND, *, text: str = "What is 2 + 3?") -> TaskSpec:
    return replace(make_spec(make_problem(text), store=StoreLevel.FULL), form=form)


async def told(world: World) -> list[tuple[str, str]]:
    bodies = [json.loads(delivery.body) for delivery in await world.deliveries()]
    return sorted((body["type"], body["data"]["id"]) for body in bodies)


async def listening(world: World) -> Project:
    project = await world.project()
    await world.api.create_endpoint(make_endpoint(project.id, event_types=TYPES))
    return project


@pytest.mark.parametrize("status", ["completed", "incomplete"])
async def test_a_background_response_that_is_done_is_told_once_by_its_own_id(world: World, status: str) -> None:
    project = await listening(world)
    task_id = await world.live(project, spec=asked())
    task = await world.claim_one()
    body = json.dumps({"status": status})
    await world.commit(StepCommit(task.task_id, task.fence, finished_step(), ToDone(body, 1, True)))

    assert await told(world) == [(f"response.{status}", response_id(task_id))]
    assert [e.task_id for e in await world.events(project) if e.type == f"response.{status}"] == [task_id]


async def test_a_background_response_that_fails_is_told(world: World) -> None:
    project = await listening(world)
    task_id = await world.live(project, spec=asked())
    task = await world.claim_one()
    failed = ToFailed(ErrorInfo("model_rejected", "No."), "{}", 400)
    await world.commit(StepCommit(task.task_id, task.fence, None, failed))

    assert await told(world) == [("response.failed", response_id(task_id))]


async def test_cancelled_at_once_or_after_a_crash_in_a_paid_call_it_is_told_once(world: World) -> None:
    project = await listening(world)
    at_once = await world.live(project, spec=asked(), body=b"1")
    await world.api.cancel_live_task(project.id, at_once)
    later = await world.live(project, spec=asked(), body=b"2", queue="large")
    await world.send(await world.claim_one("large"), 100)
    await world.api.cancel_live_task(project.id, later)
    assert await told(world) == [("response.cancelled", response_id(at_once))]

    await world.advance(31)  # the worker died in the call
    await world.sweep()
    seen = await told(world)
    assert ("response.cancelled", response_id(later)) in seen


@pytest.mark.parametrize("form", [None, ResponseForm(metadata=(("bg", "true"),))])
async def test_nobody_is_told_of_a_call_that_somebody_waits_for(world: World, form: ResponseForm | None) -> None:
    project = await listening(world)
    await world.live(project, spec=asked(form, text='"bg":true'))
    task = await world.claim_one()
    await world.commit(StepCommit(task.task_id, task.fence, finished_step(), ToDone("{}", 1, True)))

    assert await told(world) == []


async def test_an_erased_task_keeps_its_money_and_no_text(world: World) -> None:
    project = await world.project()
    task_id = await world.live(project, spec=asked(text="a secret question"), queue="large", body=b"hash")
    task = await world.claim_one("large")
    granted = await world.send(task, 100)
    done = ToDone('{"output":"a secret answer"}', 1, True)
    step = replace(
        finished_step(),
        samples=tuple(replace(s, plan="a secret plan", solution="a secret answer") for s in finished_step().samples),
    )
    await world.commit(StepCommit(task.task_id, task.fence, step, done, (bill(granted, 60),)))
    assert "secret" in repr(await world.detail(project.id, task_id))

    assert await world.api.erase_live_task(project.id, task_id)
    assert await world.api.erase_live_task(project.id, task_id)

    left = await world.detail(project.id, task_id)
    assert "secret" not in repr(left)
    assert (left.state, left.attempts[0].cost, len(left.history)) == (TaskState.DONE, 60, 1)
    (result,) = await world.api.live_results([task_id])
    assert (result.status, json.loads(result.body)["error"]["code"]) == (404, ERASED.code)
    assert await world.live(project, body=b"hash", retry=True) != task_id


async def test_only_the_projects_own_ended_live_task_can_be_erased(world: World) -> None:
    project, other = await world.project(), await world.project()
    batch = await world.finish_all(project)
    running = await world.live(project, spec=asked(), body=b"1")
    page = await world.api.list_tasks(project.id, batch.id, state=None, after=None, limit=1)

    assert not await world.api.erase_live_task(project.id, running)
    assert not await world.api.erase_live_task(project.id, page.items[0].id)
    await world.api.cancel_live_task(project.id, running)
    assert not await world.api.erase_live_task(other.id, running)
    assert await world.api.erase_live_task(project.id, running)
