"""The Responses API: the same live task as a chat completion, asked for and presented otherwise, and kept.

With `background` the call returns at once and the task goes on; nobody's disconnect cancels it.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from cope.bootstrap import ApiParts
from cope.core.codec import decode_task
from cope.core.errors import BadRequest, Conflict, NotFound
from cope.core.ids import ProjectId, TaskId
from cope.core.lifecycle import TERMINAL_TASK_STATES, TaskState
from cope.core.problem import Kind, Message
from cope.core.records import TaskDetail
from cope.core.request import RequestDefaults, RequestParser
from cope.core.request_values import as_text
from cope.core.responses.form import response_id as id_of
from cope.core.responses.form import task_id_of
from cope.core.responses.request import Earlier, messages_of, parse_response
from cope.core.responses.result import closing_events, finished_response, opening_events, unfinished_response
from cope.core.task import OnBudget, TaskSpec
from cope_api.context import clean_id, json_object, project_of, project_row, raw_body
from cope_api.failures import NO_RETRY, json_response
from cope_api.live import KEEP_ALIVE, KEEP_ALIVE_S, STREAM_HEADERS, LiveWaiter, ended, enqueue
from cope_api.prices import check_priced

router = APIRouter()
Json = dict[str, Any]
_STATUS = {TaskState.FAILED: "failed", TaskState.EXPIRED: "failed", TaskState.CANCELLED: "cancelled"}
_LONGEST_NUMBER = 9


@router.post("/v1/responses")
async def create(request: Request) -> Response:
    """Solve one problem: now, streamed, or in the background to be asked for again."""
    parts, project_id, principal = await project_of(request)
    raw = await raw_body(request)
    body = json_object(raw)
    streaming = body.get("stream")
    if streaming is not None and not isinstance(streaming, bool):
        raise BadRequest("`stream` must be true or false.", param="stream")
    body.pop("stream", None)
    project = await project_row(parts, project_id)
    parser = RequestParser(RequestDefaults(Kind(project.default_kind), on_budget=OnBudget.FAIL), parts.catalog)
    earlier = await _earlier(parts, project_id, body.get("previous_response_id"))
    parsed = parse_response(parser, body, earlier=earlier)
    await check_priced(parts, parsed.policy)
    task_id = await enqueue(request, parts, project_id, principal.key_id, raw, parsed)
    background = parsed.form is not None and parsed.form.background
    if streaming:
        task = await _existing(parts, project_id, task_id)
        return _streamed(request, task, after=-1, cancels=not background)
    if background:
        return json_response(_shown(await _existing(parts, project_id, task_id)))
    waiter: LiveWaiter = request.app.state.waiter
    result = await ended(request, waiter, project_id, task_id)
    headers = NO_RETRY if result.status == 429 else {}
    return Response(result.body.encode(), result.status, headers, "application/json")


@router.get("/v1/responses/{response_id}")
async def retrieve(request: Request, response_id: str) -> Response:
    """A stored response as it is now; with `stream=true` its events, after `starting_after` where that is given."""
    _, task = await _kept(request, response_id)
    query = request.query_params
    for name in ("include", "include[]"):
        if query.getlist(name):
            raise BadRequest("`include` can't be honoured here: leave it out.", param="include")
    if query.get("include_obfuscation", "false") != "false":
        raise BadRequest("`include_obfuscation` can't be honoured here: leave it out.", param="include_obfuscation")
    streaming, after = query.get("stream", "false"), query.get("starting_after")
    if streaming not in {"true", "false"}:
        raise BadRequest("`stream` must be true or false.", param="stream")
    if after is not None and (not after.isascii() or not after.isdigit() or len(after) > _LONGEST_NUMBER):
        raise BadRequest("`starting_after` must be an event's sequence number.", param="starting_after")
    if streaming == "false":
        if after is not None:
            raise BadRequest("`starting_after` belongs to `stream=true`.", param="starting_after")
        return json_response(_shown(task))
    if task.batch_id is not None and task.state not in TERMINAL_TASK_STATES:
        raise BadRequest("A batch's line can't be streamed before it has ended.", param="stream")
    return _streamed(request, task, after=-1 if after is None else int(after), cancels=False)


@router.post("/v1/responses/{response_id}/cancel")
async def cancel(request: Request, response_id: str) -> Response:
    """Begin no further step of a background response; a paid call under way commits first, and may still answer. One
    that has ended is returned as it is."""
    parts, task = await _kept(request, response_id)
    form = _spec(task).form
    if form is None or not form.background:
        raise BadRequest(
            "Only a response made with `background` can be cancelled: close the connection of another one.",
            code="response_not_cancellable",
        )
    if task.state not in TERMINAL_TASK_STATES:
        await parts.store.cancel_live_task(task.project_id, task.id)
        task = await _existing(parts, task.project_id, task.id)
    return json_response(_shown(task))


@router.delete("/v1/responses/{response_id}")
async def delete(request: Request, response_id: str) -> Response:
    """Erase a response: what was asked, what was answered, every text in between. Its cost and its events stay. One
    that runs is cancelled first."""
    parts, task = await _kept(request, response_id)
    if task.batch_id is not None:
        raise Conflict(
            "This response is a line of a batch: it stays as long as the batch does.", code="response_in_use"
        )
    if task.state not in TERMINAL_TASK_STATES:
        await parts.store.cancel_live_task(task.project_id, task.id)
    if not await parts.store.erase_live_task(task.project_id, task.id):
        raise Conflict(
            "The response is being cancelled: a paid call under way commits first. Delete it again then.",
            code="response_in_progress",
        )
    return json_response({"id": id_of(task.id), "object": "response", "deleted": True})


# ---- what is kept --------------------------------------------------------------------------------------------------


async def _kept(request: Request, response_id: str) -> tuple[ApiParts, TaskDetail]:
    parts, project_id, _ = await project_of(request)
    task = await _find(parts, project_id, response_id)
    if task is None:
        raise NotFound(f"There is no response {response_id!r}.")
    return parts, task


async def _find(parts: ApiParts, project_id: ProjectId, response: str) -> TaskDetail | None:
    """None for another project's, a chat completion, one that was not to be stored and one that was deleted."""
    task_id = task_id_of(clean_id(response))
    task = None if task_id is None else await parts.store.get_task(project_id, task_id)
    form = None if task is None else _spec(task).form
    return None if form is None or not form.store or form.erased else task


async def _existing(parts: ApiParts, project_id: ProjectId, task_id: TaskId) -> TaskDetail:
    task = await parts.store.get_task(project_id, task_id)
    if task is None:
        raise NotFound(f"There is no response {id_of(task_id)!r}.")
    return task


async def _earlier(parts: ApiParts, project_id: ProjectId, value: object) -> Earlier | None:
    if value is None:
        return None
    param = "previous_response_id"
    named = as_text(value, param, longest=64)
    try:
        task = await _find(parts, project_id, named)
    except NotFound:
        task = None
    if task is None:
        raise BadRequest(f"There is no response {named!r}.", param=param, code="previous_response_not_found")
    body = _shown(task)
    if not body["output"]:
        raise BadRequest(f"The response {named!r} is {body['status']}: it has no answer to go on from.", param=param)
    spec = _spec(task)
    assert spec.form is not None
    said = messages_of(spec.problem.conversation, spec.form)
    return Earlier(named, (*said, Message("assistant", body["output"][0]["content"][0]["text"])))


def _spec(task: TaskDetail) -> TaskSpec:
    return decode_task(task.id, payload=task.payload, policy=task.policy, seed=0, on_budget=OnBudget.FAIL.value)


def _shown(task: TaskDetail) -> Json:
    if task.state is TaskState.DONE and task.result is not None:
        done: Json = orjson.loads(task.result)
        if done["object"] == "response":
            return done
        # A worker of the version before, still there during an upgrade, knew chat completions only.
        return finished_response(_spec(task), done, finished_at=task.finished_at or task.created_at)
    if task.state in _STATUS:
        return unfinished_response(_spec(task), _STATUS[task.state], error=task.error)
    waits = task.state is TaskState.READY and not task.history and not task.tries
    return unfinished_response(_spec(task), "queued" if waits else "in_progress")


# ---- streams -------------------------------------------------------------------------------------------------------


def _streamed(request: Request, task: TaskDetail, *, after: int, cancels: bool) -> Response:
    events = _events(request, task, after=after, cancels=cancels)
    return StreamingResponse(events, media_type="text/event-stream", headers=STREAM_HEADERS)


async def _events(request: Request, task: TaskDetail, *, after: int, cancels: bool) -> AsyncIterator[bytes]:
    """Those with a number above `after`. Only an accepted answer is ever sent, so its text comes with the vote."""
    parts: ApiParts = request.app.state.parts
    opening = opening_events(_spec(task))
    for event in opening:
        if event["sequence_number"] > after:
            yield _event(event)
    if task.state not in TERMINAL_TASK_STATES:
        waiting = asyncio.create_task(request.app.state.waiter.wait(task.id))
        try:
            while not (await asyncio.wait([waiting], timeout=KEEP_ALIVE_S))[0]:
                yield KEEP_ALIVE
        finally:
            if cancels and not waiting.done():  # the caller went away: this generator is being cancelled or closed
                request.app.state.waiter.caller_left(task.project_id, task.id)
            waiting.cancel()
        task = await _existing(parts, task.project_id, task.id)
    for event in closing_events(_shown(task), task.id, first=len(opening)):
        if event["sequence_number"] > after:
            yield _event(event)


def _event(event: Json) -> bytes:
    return f"event: {event['type']}\ndata: ".encode() + orjson.dumps(event) + b"\n\n"
