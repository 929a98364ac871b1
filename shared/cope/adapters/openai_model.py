"""Every model behind one protocol: the `openai` client against SGLang, OpenAI and whatever speaks like them.

Time-outs, retries and 429s are the state machine's business, so the client's own retries are off. One client per event
loop and address: it is made in the loop that uses it.
"""

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any

import openai
import orjson
from openai import AsyncOpenAI, DefaultAioHttpClient

from cope.core.errors import (
    ContextTooLong,
    ModelError,
    ModelKeyRefused,
    ModelMalformed,
    ModelOverloaded,
    ModelQuotaExhausted,
    ModelRateLimited,
    ModelRejected,
    ModelUnreachable,
)
from cope.core.limits.hints import RateHints, read_hints
from cope.core.models import ModelEntry
from cope.core.money import TokenUsage
from cope.core.stages import Tier
from cope.ports.model import ChatAnswer, ChatRequest

_CONNECT_CAUSES = ("ConnectError", "ClientConnectorError", "ConnectionRefusedError", "ConnectTimeout")
_ABORT_TIMEOUT_S = 5.0
# A 403 that speaks of these refuses what was asked, not the key.
_ABOUT_CONTENT = ("moderation", "flagged", "content", "policy", "safety")
_RAW = {"X-Stainless-Raw-Response": "raw"}  # what `with_raw_response` sets: the answer's bytes are read by us


class OpenAIModel:
    """A `ChatModel` over HTTP. Close it in the loop that used it."""

    def __init__(self) -> None:
        self._clients: dict[tuple[str, str], AsyncOpenAI] = {}
        self._aborts: set[asyncio.Task[None]] = set()

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        """One answer. Raises a `ModelError`; cancelling drops the connection and, where the server knows request ids,
        tells it to abort."""
        try:
            return await self._with_stale_retry(request)
        except asyncio.CancelledError:
            if request.model.abort == "rid":
                self._abort_later(request)
            raise

    async def _with_stale_retry(self, request: ChatRequest) -> ChatAnswer:
        try:
            return await self._send(request)
        except ModelUnreachable as broken:
            # A kept-alive connection that the server closed meanwhile. A free call may simply be made again; a paid one
            # may have been billed, so it goes through the state machine.
            if request.model.tier is Tier.LARGE or not broken.sent:
                raise
            return await self._send(request)

    async def _send(self, request: ChatRequest) -> ChatAnswer:
        client = self._client(request.model)
        try:
            # `chat.completions.create` walks the whole body against its types and joins addresses with regular
            # expressions: a third of a call's processor time, for a body that we have just made ourselves.
            raw: Any = await client.post(
                f"{request.model.base_url.rstrip('/')}/chat/completions",
                body=_body(request),
                cast_to=object,
                options={"headers": _RAW},
            )
        except openai.APIStatusError as error:
            raise _status_error(error) from None
        except openai.APIConnectionError as error:
            # The client reports even a refused connection as a time-out, so what counts is whether anything was sent.
            sent = _was_sent(error)
            if sent and isinstance(error, openai.APITimeoutError):
                raise ModelOverloaded(f"{request.model.name}: no answer in time.") from None
            cause = error.__cause__ or error
            raise ModelUnreachable(f"{request.model.name}: {type(cause).__name__}: {cause}"[:300], sent=sent) from None
        hints = read_hints(raw.http_response.headers, now=datetime.now(UTC))
        return _answer(request.model, raw.http_response.content, hints)

    def _client(self, model: ModelEntry) -> AsyncOpenAI:
        key = (model.base_url, model.api_key)
        if key not in self._clients:
            self._clients[key] = AsyncOpenAI(
                base_url=model.base_url,
                api_key=model.api_key or "none",
                max_retries=0,
                timeout=model.timeout_s,
                http_client=DefaultAioHttpClient(),
            )
        return self._clients[key]

    def _abort_later(self, request: ChatRequest) -> None:
        task = asyncio.get_running_loop().create_task(self._abort(request))
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)

    async def _abort(self, request: ChatRequest) -> None:
        address = request.model.base_url.rstrip("/").removesuffix("/v1") + "/abort_request"
        with contextlib.suppress(openai.OpenAIError, TimeoutError):
            async with asyncio.timeout(_ABORT_TIMEOUT_S):
                await self._client(request.model).post(address, body={"rid": request.request_id}, cast_to=object)

    async def aclose(self) -> None:
        """Finish aborts under way and close every connection."""
        await asyncio.gather(*self._aborts, return_exceptions=True)
        for client in self._clients.values():
            await client.close()
        self._clients.clear()


def _body(request: ChatRequest) -> dict[str, Any]:
    model = request.model
    body: dict[str, Any] = {
        "model": model.served_name,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        "temperature": request.temperature,
        model.output_limit_field: request.max_tokens,
    }
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop"] = list(request.stop)
    if request.seed is not None:
        body["seed"] = request.seed
    for name in model.unsupported:
        body.pop(name, None)
    body |= model.extra_body
    if model.abort == "rid":
        body["rid"] = request.request_id
    return body


def _answer(model: ModelEntry, content: bytes, hints: RateHints) -> ChatAnswer:
    try:
        body = orjson.loads(content)
        choice = body["choices"][0]
        text = choice["message"]["content"] or ""
        if not isinstance(text, str):
            raise TypeError("content is not text")
        finish = str(choice.get("finish_reason") or "stop")
        return ChatAnswer(text, finish, _usage(body.get("usage")), body.get("id"), hints)
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, AttributeError) as wrong:
        raise ModelMalformed(f"{model.name}: the answer can't be read: {wrong}", hints=hints) from None


def _usage(usage: Any) -> TokenUsage | None:
    if not isinstance(usage, dict):
        return None
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(completion, int) or prompt < 0 or completion < 0:
        return None
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    return TokenUsage(prompt, min(max(int(cached), 0), prompt), completion, int(reasoning), 1)


def _was_sent(error: openai.APIConnectionError) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if any(base.__name__ in _CONNECT_CAUSES for base in type(cause).__mro__):
            return False
        cause = cause.__cause__ or cause.__context__
    return True


def _status_error(error: openai.APIStatusError) -> ModelError:
    hints = read_hints(error.response.headers, now=datetime.now(UTC))
    body: Any = error.body if isinstance(error.body, dict) else {}
    code, kind = str(body.get("code") or ""), str(body.get("type") or "")
    message = str(body.get("message") or error.message)[:1000]
    status = error.status_code
    if status == 429:
        if "insufficient_quota" in {code, kind} or "quota" in code:
            return ModelQuotaExhausted(message, answered=True, hints=hints)
        return ModelRateLimited(message, answered=True, hints=hints)
    if status == 401:
        return ModelKeyRefused(f"HTTP 401: {message}", certain=True, hints=hints)
    if status == 403 and not any(word in f"{code} {kind} {message}".lower() for word in _ABOUT_CONTENT):
        return ModelKeyRefused(f"HTTP 403: {message}", certain=False, hints=hints)
    if code == "context_length_exceeded" or (status == 400 and "context length" in message.lower()):
        return ContextTooLong(message, answered=True, hints=hints)
    if status in {408, 409} or status >= 500:
        return ModelOverloaded(message, answered=True, hints=hints)
    return ModelRejected(f"HTTP {status}: {message}", answered=True, hints=hints)
