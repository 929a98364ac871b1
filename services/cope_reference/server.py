"""The HTTP side: OpenAI's chat completions over the engines, with SGLang's `rid` and `/abort_request`.

Plain Starlette: request bodies are read by `requests.py`, answers written by `replies.py`, and every error has OpenAI's
shape.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cope_reference import replies
from cope_reference.engine import EngineDown, QueueFull
from cope_reference.requests import Refused, read_chat
from cope_reference.served import Call, Served

MOST_BODY_BYTES = 8 << 20
_CALLER_GONE = 499  # nginx's number; nobody reads it


def create_app(models: list[Served]) -> Starlette:
    """The server for these models. It closes their engines when it stops."""
    api = _Api({one.name: one for one in models})

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        for one in models:
            one.engine.close()

    return Starlette(
        routes=[
            Route("/v1/chat/completions", api.chat, methods=["POST"]),
            Route("/v1/models", api.models, methods=["GET"]),
            Route("/abort_request", api.abort, methods=["POST"]),
            Route("/health", api.health, methods=["GET"]),
            Route("/metrics", api.metrics, methods=["GET"]),
        ],
        exception_handlers={Refused: _refused, HTTPException: _no_route, Exception: _broken},
        lifespan=lifespan,
    )


class _Api:
    def __init__(self, served: dict[str, Served]) -> None:
        self._served = served

    async def chat(self, request: Request) -> Response:
        chat = read_chat(await _json_body(request))
        served = self._served.get(chat.model)
        if served is None:
            known = ", ".join(self._served)
            raise Refused(f"No model {chat.model!r} here; there are: {known}.", "model", "model_not_found", status=404)
        number = uuid.uuid4().hex
        rid = chat.rid or request.headers.get("x-request-id") or f"req_{number}"
        try:
            call = Call(served, chat, rid)
        except QueueFull:
            message = "Too many requests wait here already."
            raise Refused(message, None, "overloaded", status=503, headers={"retry-after": "1"}) from None
        except EngineDown:
            raise Refused("This model has stopped.", None, "engine_down", status=503) from None
        head = {"id": f"chatcmpl-{number}", "created": int(time.time()), "model": chat.model}
        if chat.stream:
            return _Stream(call, head)
        try:
            return await _whole(request, call, head)
        finally:
            call.close()

    async def models(self, _: Request) -> Response:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "cope"} for name in self._served]
        return _json({"object": "list", "data": data})

    async def abort(self, request: Request) -> Response:
        body = await _json_body(request)
        rid = body.get("rid") if isinstance(body, dict) else None
        # An empty one is the beginning of every id.
        if not isinstance(rid, str) or not rid:
            raise Refused("`rid` must be a non-empty string.", "rid")
        for served in self._served.values():
            served.abort(rid)
        return _json({})

    async def health(self, _: Request) -> Response:
        failed = [name for name, one in self._served.items() if one.engine.failed]
        return _json({"status": "failed" if failed else "ok", "failed": failed}, 503 if failed else 200)

    async def metrics(self, _: Request) -> Response:
        return PlainTextResponse(replies.metrics(self._served.values()))


async def _json_body(request: Request) -> Any:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BODY_BYTES:
            raise Refused(f"The body exceeds {MOST_BODY_BYTES} bytes.", status=413)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as wrong:
        raise Refused(f"The body is not JSON: {wrong}") from None


async def _whole(request: Request, call: Call, head: dict[str, Any]) -> Response:
    """The answer when all choices have ended; nothing more is computed once the caller hangs up."""
    gone, ended = asyncio.ensure_future(request.receive()), asyncio.ensure_future(call.moved.wait())
    try:
        await asyncio.wait((gone, ended), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        ended.cancel()
    if not call.finished:
        return Response(status_code=_CALLER_GONE)
    if call.failed:
        raise Refused("The engine failed.", None, "engine_failed", status=500)
    return _json(replies.completion(call, head), headers={"x-request-id": call.rid})


class _Stream(StreamingResponse):
    """Server-sent events of one call, which is closed however the response ends."""

    def __init__(self, call: Call, head: dict[str, Any]) -> None:
        super().__init__(_events(call, head), media_type="text/event-stream", headers={"x-request-id": call.rid})
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._call.close()


async def _events(call: Call, head: dict[str, Any]) -> AsyncIterator[bytes]:
    count = len(call.sequences)
    sent, scored, over = [0] * count, [0] * count, [False] * count
    for index in range(count):
        yield _event(replies.chunk(head, index, {"role": "assistant", "content": ""}))
    while not all(over):
        await call.moved.wait()
        call.moved.clear()
        if call.failed:
            yield _event(Refused("The engine failed.", None, "engine_failed", status=500).body)
            return
        for index, sequence in enumerate(call.sequences):
            if over[index]:
                continue
            finish = sequence.finish  # before the text: what is read after it is then complete
            text, scores = sequence.shown(), replies.logprobs(call.served, sequence, scored[index])
            if len(text) > sent[index] or (finish and scores and scores["content"]):
                yield _event(replies.chunk(head, index, {"content": text[sent[index] :]}, scores))
                sent[index] = len(text)
                scored[index] += len(scores["content"]) if scores else 0
            if finish:
                over[index] = True
                yield _event(replies.chunk(head, index, {}, finish=finish))
    if call.chat.include_usage:
        yield _event(replies.usage_chunk(call, head))
    yield b"data: [DONE]\n\n"


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


def _json(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, "application/json")


async def _refused(_: Request, refused: Exception) -> Response:
    assert isinstance(refused, Refused)
    return _json(refused.body, refused.status, dict(refused.headers))


async def _no_route(request: Request, wrong: Exception) -> Response:
    if isinstance(wrong, HTTPException) and wrong.status_code == 405:
        refused = Refused(f"{request.url.path} does not take {request.method}.", None, "method_not_allowed", status=405)
    else:
        refused = Refused(f"There is no {request.url.path} here.", None, "not_found", status=404)
    return _json(refused.body, refused.status)


async def _broken(_: Request, wrong: Exception) -> Response:
    if isinstance(wrong, ClientDisconnect):
        return Response(status_code=_CALLER_GONE)
    return _json(Refused("The server failed.", None, "internal_error", status=500).body, 500)
