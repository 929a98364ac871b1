"""The provider's Batch API through the `openai` client: files, batches, and result files read line by line.

Time-outs are short beside a model's own: nothing here waits for an answer to a prompt. Retries are the caller's.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import openai
import orjson
from openai import AsyncOpenAI, DefaultAioHttpClient
from openai.types import Batch

from cope.adapters.openai_model import model_error, read_answer, request_body
from cope.core.errors import ModelMalformed, ModelOverloaded
from cope.core.models import ModelEntry
from cope.core.redaction import redact
from cope.ports.model import ChatRequest
from cope.ports.provider_batches import RemoteBatch, RemoteLine

T = TypeVar("T")

ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
MARKER = "cope_batch"
"""The key of a batch's metadata that carries our own id."""

_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_CONTROL_TIMEOUT_S = 60.0
_FILE_TIMEOUT_S = 600.0
_PAGE = 100


class OpenAIBatches:
    """A `BatchProvider` over HTTP. Close it in the loop that used it."""

    def __init__(self) -> None:
        self._clients: dict[tuple[str, str], AsyncOpenAI] = {}

    def body(self, request: ChatRequest) -> str:
        """As the live client would send it."""
        return orjson.dumps(request_body(request)).decode()

    async def upload(self, model: ModelEntry, *, name: str, lines: Sequence[tuple[str, str]]) -> str:
        """One JSONL file of purpose `batch`."""
        data = b"".join(_line(custom_id, body) for custom_id, body in lines)
        client = self._client(model)
        file = await _asked(
            model, lambda: client.files.create(file=(name, data), purpose="batch"), timeout_s=_FILE_TIMEOUT_S
        )
        return file.id

    async def create(self, model: ModelEntry, *, file_id: str, marker: str) -> RemoteBatch:
        """The marker goes into the metadata, and along as an idempotency key for providers that know it (ours does)."""
        client, window = self._client(model), "24h" if model.batch is None else model.batch.window
        return await _batch(
            model,
            lambda: client.batches.create(
                input_file_id=file_id,
                endpoint=ENDPOINT,
                completion_window=window,  # type: ignore[arg-type]
                metadata={MARKER: marker},
                extra_headers={"Idempotency-Key": marker},
            ),
        )

    async def find(self, model: ModelEntry, *, marker: str, since: datetime) -> tuple[RemoteBatch, ...]:
        """Lists come newest first, so the search ends at the first batch that is older than `since`."""
        client = self._client(model)

        async def search() -> list[RemoteBatch]:
            found: list[RemoteBatch] = []
            async for batch in client.batches.list(limit=_PAGE):
                if batch.created_at < since.timestamp():
                    break
                if (batch.metadata or {}).get(MARKER) == marker:
                    found.append(_remote(model, batch))
            return found

        return tuple(sorted(await _asked(model, search), key=lambda batch: (batch.created_at, batch.id)))

    async def retrieve(self, model: ModelEntry, batch_id: str) -> RemoteBatch:
        """As it is now."""
        return await _batch(model, lambda: self._client(model).batches.retrieve(batch_id))

    async def cancel(self, model: ModelEntry, batch_id: str) -> RemoteBatch:
        """Ask for its end."""
        return await _batch(model, lambda: self._client(model).batches.cancel(batch_id))

    async def results(self, model: ModelEntry, file_id: str) -> AsyncIterator[RemoteLine]:
        """Fetched whole before the first line is given: a file that is cut off must not look like a short one."""
        client = self._client(model)
        content = await _asked(model, lambda: client.files.content(file_id), timeout_s=_FILE_TIMEOUT_S)
        for line in _lines(model, content.content):
            yield line

    async def aclose(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()

    def _client(self, model: ModelEntry) -> AsyncOpenAI:
        key = (model.base_url, model.api_key)
        if key not in self._clients:
            self._clients[key] = AsyncOpenAI(
                base_url=model.base_url,
                api_key=model.api_key or "none",
                max_retries=0,
                timeout=_FILE_TIMEOUT_S,
                http_client=DefaultAioHttpClient(),
            )
        return self._clients[key]


async def _batch(model: ModelEntry, ask: Callable[[], Awaitable[Batch]]) -> RemoteBatch:
    async def read() -> RemoteBatch:
        return _remote(model, await ask())

    return await _asked(model, read)


async def _asked(model: ModelEntry, ask: Callable[[], Awaitable[T]], *, timeout_s: float = _CONTROL_TIMEOUT_S) -> T:
    """The answer, or what the client's error says, as a `ModelError`."""
    try:
        async with asyncio.timeout(timeout_s):
            return await ask()
    except TimeoutError:
        raise ModelOverloaded(f"{model.name}: no answer in time.") from None
    except (openai.APIStatusError, openai.APIConnectionError) as error:
        raise model_error(model, error) from None
    except (openai.OpenAIError, ValueError, TypeError, AttributeError) as unreadable:
        raise ModelMalformed(f"{model.name}: the Batch API's answer can't be read: {unreadable}"[:300]) from None


def _line(custom_id: str, body: str) -> bytes:
    line = {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": orjson.Fragment(body)}
    return orjson.dumps(line) + b"\n"


def _remote(model: ModelEntry, batch: Batch) -> RemoteBatch:
    if not batch.id or not batch.status:
        raise ValueError("a batch without id or status")
    counts, complaints = batch.request_counts, None if batch.errors is None else batch.errors.data
    return RemoteBatch(
        id=batch.id,
        status=batch.status,
        ended=batch.status in _ENDED,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        completed=None if counts is None else counts.completed,
        created_at=datetime.fromtimestamp(batch.created_at, UTC),
        error=redact(f"{complaints[0].code}: {complaints[0].message}", [model.api_key])[:300] if complaints else None,
    )


def _lines(model: ModelEntry, content: bytes) -> Iterator[RemoteLine]:
    # Cut at newlines only: other separators of Unicode stand inside texts.
    for raw in content.split(b"\n"):
        with contextlib.suppress(orjson.JSONDecodeError):
            line = orjson.loads(raw) if raw.strip() else None
            if isinstance(line, dict) and isinstance(line.get("custom_id"), str):
                yield _result(model, line)


def _result(model: ModelEntry, line: dict[str, Any]) -> RemoteLine:
    custom_id, response = line["custom_id"], line.get("response")
    if isinstance(response, dict) and response.get("status_code") == 200:
        try:
            return RemoteLine(custom_id, read_answer(model, orjson.dumps(response.get("body"))))
        except ModelMalformed as unreadable:
            return RemoteLine(custom_id, None, unreadable.message[:300], malformed=True)
    return RemoteLine(custom_id, None, redact(_why(line, response), [model.api_key])[:300])


def _why(line: dict[str, Any], response: object) -> str:
    error = line.get("error")
    if not isinstance(error, dict) and isinstance(response, dict):
        body = response.get("body")
        error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return "failed"
    return f"{error.get('code') or error.get('type') or 'failed'}: {error.get('message') or ''}"
