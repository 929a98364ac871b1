"""Live chat completions: a task without a batch, first in every queue, and whoever waits for it."""

import asyncio
import contextlib
import hashlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
from fastapi import APIRouter, Request
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.responses import Response, StreamingResponse

from cope.adapters.celery_wakeup import LIVE_CHANNEL
from cope.bootstrap import ApiParts
from cope.core.errors import BadRequest
from cope.core.ids import KeyId, ProjectId, TaskId
from cope.core.problem import Kind
from cope.core.request import ParsedRequest, RequestDefaults, parse_request
from cope.core.request_values import as_mapping
from cope.core.task import OnBudget
from cope.ports.store import LiveResult, NewLiveTask
from cope.usecases.ingest import new_live_task
from cope_api.context import json_object, only_keys, project_of, project_row, raw_body, retry_count
from cope_api.failures import NO_RETRY
from cope_api.prices import check_priced

logger = logging.getLogger(__name__)
router = APIRouter()

KEEP_ALIVE = b": the cascade is at work\n\n"
KEEP_ALIVE_S = 10.0
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
_POLL_S = 0.2
_DISCONNECT_CHECK_S = 0.5
_PIECE = 24


class LiveWaiter:
    """Who waits for which live task. Told over Redis when it is there; one batched query each 200 ms in any case."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self._waiting: dict[TaskId, asyncio.Future[LiveResult]] = {}
        self._callers: Counter[TaskId] = Counter()
        self._cancelling: set[asyncio.Task[None]] = set()
        self._look = asyncio.Event()
        self._hearers: list[Callable[[str], None]] = []

    def also(self, hear: Callable[[str], None]) -> None:
        """Tell `hear` too of everything that was announced over Redis."""
        self._hearers.append(hear)

    async def wait(self, task_id: TaskId) -> LiveResult:
        """The task's end. Several callers may wait for one task (an SDK's retry joins the first call)."""
        future = self._waiting.get(task_id)
        if future is None:
            future = self._waiting[task_id] = asyncio.get_running_loop().create_future()
        self._callers[task_id] += 1
        try:
            return await asyncio.shield(future)
        finally:
            self._callers[task_id] -= 1
            if not self._callers[task_id]:
                del self._callers[task_id]

    def caller_left(self, project_id: ProjectId, task_id: TaskId) -> None:
        """A caller who was still waiting has gone: the task is cancelled, unless somebody else waits for it too (an
        SDK's retry, after the first call timed out). In a task of its own: the caller's is being cancelled itself."""
        if self._callers[task_id] > 1:
            return
        task = asyncio.create_task(self._cancel(project_id, task_id))
        self._cancelling.add(task)
        task.add_done_callback(self._cancelling.discard)

    async def _cancel(self, project_id: ProjectId, task_id: TaskId) -> None:
        try:
            await self._parts.store.cancel_live_task(project_id, task_id)
        except Exception:
            logger.warning("live call %s could not be cancelled; it goes on", task_id, exc_info=True)

    async def run(self) -> None:
        """Poll and listen until cancelled."""
        listener = asyncio.create_task(self._listen())
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._look.wait(), _POLL_S)
                self._look.clear()
                await self._poll()
        finally:
            listener.cancel()
            await asyncio.gather(listener, *self._cancelling, return_exceptions=True)

    async def _poll(self) -> None:
        if not self._waiting:
            return
        try:
            results = await self._parts.store.live_results(list(self._waiting))
        except Exception:
            logger.warning("live calls could not be looked up; trying again", exc_info=True)
            return
        for result in results:
            future = self._waiting.pop(result.task_id, None)
            if future is not None and not future.done():
                future.set_result(result)

    async def _listen(self) -> None:
        url = self._parts.settings.broker_url
        if not url.startswith(("redis://", "rediss://")):
            return
        while True:
            with contextlib.suppress(RedisError, OSError):
                async with Redis.from_url(url, socket_connect_timeout=1) as client, client.pubsub() as channel:
                    await channel.subscribe(LIVE_CHANNEL)
                    async for message in channel.listen():
                        data = message.get("data")
                        name = data.decode("ascii", "replace") if isinstance(data, bytes) else ""
                        if TaskId(name) in self._waiting:
                            self._look.set()
                        for hear in self._hearers:
                            hear(name)
            await asyncio.sleep(2.0)


@router.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    """Solve one problem now. Running out of money is refused at once unless `cope.on_budget` says to hold."""
    parts, project_id, principal = await project_of(request)
    raw = await raw_body(request)
    body = json_object(raw)
    streaming = _flag(body.pop("stream", None), "stream")
    wants_usage = streaming and _wants_usage(body.pop("stream_options", None))
    project = await project_row(parts, project_id)
    parsed = parse_request(
        body,
        defaults=RequestDefaults(Kind(project.default_kind), on_budget=OnBudget.FAIL),
        catalog=parts.catalog,
    )
    await check_priced(parts, parsed.policy)
    task_id = await enqueue(request, parts, project_id, principal.key_id, raw, parsed)
    waiter: LiveWaiter = request.app.state.waiter
    if streaming:
        return StreamingResponse(
            _stream(waiter, project_id, task_id, wants_usage=wants_usage),
            media_type="text/event-stream",
            headers=STREAM_HEADERS,
        )
    result = await ended(request, waiter, project_id, task_id)
    headers = NO_RETRY if result.status == 429 else {}
    return Response(result.body.encode(), result.status, headers, "application/json")


def _flag(value: object, param: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise BadRequest(f"`{param}` must be true or false.", param=param)
    return value is True


def _wants_usage(value: object) -> bool:
    options = {} if value is None else as_mapping(value, "stream_options")
    only_keys(options, frozenset({"include_usage", "include_obfuscation"}))
    if _flag(options.get("include_obfuscation"), "stream_options.include_obfuscation"):
        raise BadRequest(
            "`stream_options.include_obfuscation` can't be honoured here: leave it out.",
            param="stream_options.include_obfuscation",
            code="unsupported_parameter",
        )
    return _flag(options.get("include_usage"), "stream_options.include_usage")


async def enqueue(
    request: Request, parts: ApiParts, project_id: ProjectId, key_id: KeyId | None, raw: bytes, parsed: ParsedRequest
) -> TaskId:
    """A live task for this request, or the one that it joins: an SDK's own retry does not pay again."""
    task = new_live_task(parts.ids, parsed)
    task_id = await parts.store.create_live_task(
        NewLiveTask(
            task=task,
            project_id=project_id,
            key_id=key_id,
            body_hash=hashlib.sha256(raw).digest(),
            is_retry=retry_count(request) >= 1,
        )
    )
    await parts.wake.poke(task.queue)
    return task_id


async def ended(request: Request, waiter: LiveWaiter, project_id: ProjectId, task_id: TaskId) -> LiveResult:
    """The task's end; a caller that goes away cancels it before its next step."""
    waiting = asyncio.create_task(waiter.wait(task_id))
    try:
        while True:
            done, _ = await asyncio.wait([waiting], timeout=_DISCONNECT_CHECK_S)
            if done:
                return waiting.result()
            if await request.is_disconnected():
                waiter.caller_left(project_id, task_id)
                return LiveResult(task_id, 499, "{}")
    finally:
        waiting.cancel()


async def _stream(
    waiter: LiveWaiter, project_id: ProjectId, task_id: TaskId, *, wants_usage: bool
) -> AsyncIterator[bytes]:
    """The accepted answer as chunks. Only an accepted answer is ever sent, so the first chunk comes with the vote."""
    waiting = asyncio.create_task(waiter.wait(task_id))
    try:
        while not (await asyncio.wait([waiting], timeout=KEEP_ALIVE_S))[0]:
            yield KEEP_ALIVE
        result = waiting.result()
    finally:
        if not waiting.done():  # the caller went away: this generator is being cancelled or closed
            waiter.caller_left(project_id, task_id)
        waiting.cancel()
    body: dict[str, Any] = orjson.loads(result.body)
    if result.status != 200:
        yield _event(body)
        return
    head = {key: body[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    for choice in body["choices"]:
        yield _chunk(head, choice["index"], {"role": "assistant", "content": ""})
        text = choice["message"]["content"]
        for start in range(0, len(text), _PIECE):
            yield _chunk(head, choice["index"], {"content": text[start : start + _PIECE]})
        yield _chunk(head, choice["index"], {}, choice["finish_reason"])
    if wants_usage:
        yield _event({**head, "choices": [], "usage": body["usage"], "cope": body["cope"]})
    yield b"data: [DONE]\n\n"


def _chunk(head: dict[str, Any], index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
    return _event({**head, "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}]})


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"
