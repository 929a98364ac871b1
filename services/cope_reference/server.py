"""The HTTP side: OpenAI's chat completions over the engines, with SGLang's `rid` and `/abort_request`.

Plain Starlette: request bodies are read by `requests.py`, and every error has OpenAI's shape.
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from jinja2.sandbox import ImmutableSandboxedEnvironment
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from cope_reference.engine import Engine, QueueFull, Sequence
from cope_reference.requests import Chat, Refused, read_chat

_DISCONNECT_CHECK_S = 0.25


class _Served:
    """One model: its engine, chat template and the sequences that can be aborted by request id."""

    def __init__(self, name: str, engine: Engine, folder: Path) -> None:
        self.name = name
        self.engine = engine
        config = json.loads((folder / "tokenizer_config.json").read_text())
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        self._template = environment.from_string(config["chat_template"])
        self.by_rid: dict[str, list[Sequence]] = {}

    def encode(self, messages: list[dict[str, str]]) -> list[int]:
        """Prompt tokens. A template mark inside a message is broken up, so that no message can forge another."""
        safe = [{**message, "content": message["content"].replace("<|", "< |")} for message in messages]
        text = self._template.render(messages=safe, add_generation_prompt=True)
        return list(self.engine.tokenizer.encode(text, add_special_tokens=False).ids)


class _Call:
    """The sequences of one request, and an event that is set when any of them moves."""

    def __init__(self, served: _Served, chat: Chat) -> None:
        loop = asyncio.get_running_loop()
        self.moved = asyncio.Event()
        pending = False

        def wake() -> None:
            nonlocal pending
            pending = False
            self.moved.set()

        def notify() -> None:
            # From the engine's thread. A plain answer needs to know of ends only, and of many tokens at once.
            nonlocal pending
            if not pending and (chat.stream or all(s.finish for s in self.sequences)):
                pending = True
                loop.call_soon_threadsafe(wake)

        prompt = served.encode(chat.messages)
        room = served.engine.weights.context - len(prompt)
        self.sequences = [Sequence(prompt, chat.settings(room, index), notify) for index in range(chat.n)]
        self._served = served
        self._rid = chat.rid
        if chat.rid is not None:
            served.by_rid.setdefault(chat.rid, []).extend(self.sequences)
        try:
            for sequence in self.sequences:
                served.engine.submit(sequence)
        except QueueFull:
            self.close()
            raise

    @property
    def finished(self) -> bool:
        """Whether every sequence has ended."""
        return all(sequence.finish is not None for sequence in self.sequences)

    def close(self) -> None:
        """Abort what has not ended: the caller is gone, or has everything."""
        for sequence in self.sequences:
            if sequence.finish is None:
                sequence.aborted = True
        if self._rid is not None:
            self._served.by_rid.pop(self._rid, None)

    def usage(self) -> dict[str, Any]:
        """OpenAI's usage: the prompt once, every choice's completion."""
        prompt = len(self.sequences[0].prompt)
        completion = sum(len(sequence.tokens) for sequence in self.sequences)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": min(s.cached for s in self.sequences)},
        }


def create_app(engines: dict[str, tuple[Engine, Path]]) -> Starlette:
    """The server for these models by name."""
    served = {name: _Served(name, engine, folder) for name, (engine, folder) in engines.items()}
    api = _Api(served)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        for one in served.values():
            one.engine.close()

    return Starlette(
        routes=[
            Route("/v1/chat/completions", api.chat, methods=["POST"]),
            Route("/v1/models", api.models, methods=["GET"]),
            Route("/abort_request", api.abort, methods=["POST"]),
            Route("/health", api.health, methods=["GET"]),
            Route("/metrics", api.metrics, methods=["GET"]),
        ],
        exception_handlers={404: _not_found, 405: _not_found, 500: _internal},
        lifespan=lifespan,
    )


class _Api:
    def __init__(self, served: dict[str, _Served]) -> None:
        self._served = served

    async def chat(self, request: Request) -> Response:
        try:
            chat = read_chat(orjson.loads(await request.body()))
            served = self._served.get(chat.model)
            if served is None:
                known = ", ".join(self._served)
                raise Refused(f"No model {chat.model!r} here; there are: {known}.", "model", "model_not_found", 404)
            call = _Call(served, chat)
        except orjson.JSONDecodeError:
            return _json(Refused("The body is not JSON.").body, 400)
        except Refused as refused:
            return _json(refused.body, refused.status)
        except QueueFull:
            full = Refused("Too many requests wait here already.", None, "overloaded", 503)
            return _json(full.body, full.status, {"retry-after": "1"})
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": chat.model}
        if chat.stream:
            return StreamingResponse(_stream(served, chat, call, head), media_type="text/event-stream")
        try:
            await _until_finished(request, call)
        finally:
            call.close()
        return _json(_completion(served, call, head), 200)

    async def models(self, _: Request) -> Response:
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "cope"} for name in self._served]
        return _json({"object": "list", "data": data}, 200)

    async def abort(self, request: Request) -> Response:
        try:
            rid = orjson.loads(await request.body())["rid"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return _json(Refused("Give the request's `rid`.", "rid").body, 400)
        for served in self._served.values():
            for known, sequences in list(served.by_rid.items()):
                if known.startswith(str(rid)):
                    for sequence in sequences:
                        sequence.aborted = True
        return _json({}, 200)

    async def health(self, _: Request) -> Response:
        return _json({"status": "ok"}, 200)

    async def metrics(self, _: Request) -> Response:
        lines = []
        for name, one in self._served.items():
            c, label = one.engine.counters, f'{{model="{name}"}}'
            for metric, value in (
                ("requests_total", c.requests),
                ("requests_aborted_total", c.aborted),
                ("prompt_tokens_total", c.prompt_tokens),
                ("cached_prompt_tokens_total", c.cached_tokens),
                ("completion_tokens_total", c.completion_tokens),
                ("running", one.engine.running),
                ("queued", one.engine.queued),
            ):
                lines.append(f"cope_reference_{metric}{label} {value}")
        return PlainTextResponse("\n".join(lines) + "\n")


async def _until_finished(request: Request, call: _Call) -> None:
    while not call.finished:
        try:
            await asyncio.wait_for(call.moved.wait(), _DISCONNECT_CHECK_S)
        except TimeoutError:
            if await request.is_disconnected():
                call.close()
        call.moved.clear()


def _completion(served: _Served, call: _Call, head: dict[str, Any]) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": sequence.text},
            "logprobs": _logprobs(served, sequence),
            "finish_reason": sequence.finish,
        }
        for index, sequence in enumerate(call.sequences)
    ]
    return {**head, "object": "chat.completion", "choices": choices, "usage": call.usage()}


def _logprobs(served: _Served, sequence: Sequence) -> dict[str, Any] | None:
    if sequence.settings.top is None:
        return None

    def item(token: int, logprob: float) -> dict[str, Any]:
        text = served.engine.decode([token])
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    content = [
        {**item(score.token, score.logprob), "top_logprobs": [item(t, lp) for t, lp in score.alternatives]}
        for score in sequence.scores
    ]
    return {"content": content}


async def _stream(served: _Served, chat: Chat, call: _Call, head: dict[str, Any]) -> AsyncIterator[bytes]:
    sent = [0] * chat.n
    over = [False] * chat.n

    def chunk(index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return b"data: " + orjson.dumps({**head, "object": "chat.completion.chunk", "choices": [choice]}) + b"\n\n"

    try:
        for index in range(chat.n):
            yield chunk(index, {"role": "assistant", "content": ""})
        while not all(over):
            await call.moved.wait()
            call.moved.clear()
            for index, sequence in enumerate(call.sequences):
                if over[index]:
                    continue
                finish = sequence.finish
                text = sequence.text if finish else served.engine.partial_text(sequence)
                if len(text) > sent[index]:
                    yield chunk(index, {"content": text[sent[index] :]})
                    sent[index] = len(text)
                if finish:
                    over[index] = True
                    yield chunk(index, {}, finish)
        if chat.include_usage:
            last = {**head, "object": "chat.completion.chunk", "choices": [], "usage": call.usage()}
            yield b"data: " + orjson.dumps(last) + b"\n\n"
        yield b"data: [DONE]\n\n"
    finally:
        call.close()


def _json(body: dict[str, Any], status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status, headers, "application/json")


async def _not_found(request: Request, _: Exception) -> Response:
    return _json(Refused(f"There is no {request.method} {request.url.path} here.", None, "not_found").body, 404)


async def _internal(_: Request, __: Exception) -> Response:
    return _json(Refused("The server failed.", None, "internal").body, 500)
