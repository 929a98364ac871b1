"""Every model behind one protocol: the `openai` client against SGLang, OpenAI and whatever speaks like them.

Time-outs, retries and 429s are the state machine's business, so the client's own retries are off. One client per event
loop and address: it is made in the loop that uses it.
"""

import asyncio
import contextlib
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
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
from cope.core.limits.hints import NO_HINTS, RateHints, read_hints
from cope.core.models import ModelEntry
from cope.core.money import TokenUsage
from cope.core.perplexity import mean_logprob
from cope.core.redaction import redact
from cope.core.stages import Tier
from cope.ports.model import ChatAnswer, ChatRequest

# Only these say that no connection was made. httpx's own names must not be trusted here: its aiohttp transport calls a
# connection that was reset *after* the request a ConnectTimeout too, and such a call may have been billed.
_NOT_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
# More than any context holds. A usage beyond it is nonsense, and its cost need not fit a BIGINT.
_MOST_TOKENS = 1_000_000_000
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
            # The client's own time-out starts anew with every byte, so a slow drip would outlast any lease.
            async with asyncio.timeout(request.model.timeout_s):
                raw: Any = await client.post(
                    f"{request.model.base_url.rstrip('/')}/chat/completions",
                    body=request_body(request),
                    cast_to=object,
                    options={"headers": _headers(request)},
                )
        except TimeoutError:
            raise ModelOverloaded(f"{request.model.name}: no answer in time.") from None
        except (openai.APIStatusError, openai.APIConnectionError) as error:
            raise model_error(request.model, error) from None
        hints = read_hints(raw.http_response.headers, now=datetime.now(UTC))
        return read_answer(request.model, raw.http_response.content, hints)

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


def _headers(request: ChatRequest) -> dict[str, str]:
    if request.model.tier is not Tier.LARGE and request.model.price_id is None:
        return _RAW
    # The provider keeps it beside its bill, so that a call whose answer never came can be found there again.
    return {**_RAW, "X-Client-Request-Id": request.request_id}


def request_body(request: ChatRequest) -> dict[str, Any]:
    """The JSON object that asks for this call."""
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
    if request.logprobs:
        body["logprobs"] = True
    for name in model.unsupported:
        body.pop(name, None)
    body |= model.extra_body
    if model.abort == "rid":
        body["rid"] = request.request_id
    return body


def read_answer(model: ModelEntry, content: bytes, hints: RateHints = NO_HINTS) -> ChatAnswer:
    """The answer in a response's bytes. Raises `ModelMalformed`."""
    try:
        body = orjson.loads(content)
        choice = body["choices"][0]
        text = choice["message"]["content"] or ""
        if not isinstance(text, str):
            raise TypeError("content is not text")
        reason = str(choice.get("finish_reason") or "stop")
        usage, provider_id = _usage(body.get("usage")), _provider_id(body.get("id"))
        return ChatAnswer(text, reason, usage, provider_id, hints, _mean_logprob(choice.get("logprobs")))
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, AttributeError) as wrong:
        raise ModelMalformed(f"{model.name}: the answer can't be read: {wrong}", hints=hints) from None


def _usage(usage: Any) -> TokenUsage | None:
    if not isinstance(usage, dict):
        return None
    prompt, completion = _tokens(usage.get("prompt_tokens")), _tokens(usage.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    cached = _detail(usage.get("prompt_tokens_details"), "cached_tokens", most=prompt)
    reasoning = _detail(usage.get("completion_tokens_details"), "reasoning_tokens", most=completion)
    return TokenUsage(prompt, cached, completion, reasoning, 1)


def _mean_logprob(scores: Any) -> float | None:
    """None where any token lacks its log-probability: a mean over the rest would be surer than the text is."""
    content = scores.get("content") if isinstance(scores, dict) else None
    if not isinstance(content, list):
        return None
    found = [token.get("logprob") if isinstance(token, dict) else None for token in content]
    logprobs = [float(one) for one in found if isinstance(one, int | float) and not isinstance(one, bool)]
    if len(logprobs) != len(content) or not all(math.isfinite(one) for one in logprobs):
        return None
    return mean_logprob(logprobs)


def _tokens(value: Any) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value <= _MOST_TOKENS else None


def _detail(details: Any, name: str, *, most: int) -> int:
    # A part larger than its whole is nonsense: believing it would make the call cheaper than the provider bills it.
    tokens = _tokens(details.get(name)) if isinstance(details, dict) else None
    return tokens if tokens is not None and tokens <= most else 0


def _provider_id(value: Any) -> str | None:
    # It goes into a text column, which takes no NUL.
    return value.replace("\x00", "")[:200] if isinstance(value, str) else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def model_error(model: ModelEntry, error: openai.APIStatusError | openai.APIConnectionError) -> ModelError:
    """What the client's error says of a call."""
    if isinstance(error, openai.APIStatusError):
        return _status_error(error, secret=model.api_key)
    # The client reports even refused and reset connections as time-outs, so what counts are the causes.
    sent = not any(isinstance(cause, _NOT_CONNECTED) for cause in _causes(error))
    if sent and any(isinstance(cause, TimeoutError) for cause in _causes(error)):
        return ModelOverloaded(f"{model.name}: no answer in time.")
    cause = error.__cause__ or error
    return ModelUnreachable(f"{model.name}: {type(cause).__name__}: {cause}"[:300], sent=sent)


def _status_error(error: openai.APIStatusError, *, secret: str) -> ModelError:
    hints = read_hints(error.response.headers, now=datetime.now(UTC))
    body: Any = error.body if isinstance(error.body, dict) else {}
    code, kind = str(body.get("code") or ""), str(body.get("type") or "")
    # It is stored and shown to whoever sent the line, and some providers repeat the key that they refuse.
    message = redact(str(body.get("message") or error.message), [secret])[:1000]
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
        # A failure, or a gateway's word, may come after the work was done and billed. A conflict does not, and neither
        # does "overloaded" where the provider itself says it, in its own form.
        refused = status == 409 or (status in {503, 529} and bool(body.get("message")))
        return ModelOverloaded(message, answered=refused, hints=hints)
    return ModelRejected(f"HTTP {status}: {message}", answered=True, hints=hints)
