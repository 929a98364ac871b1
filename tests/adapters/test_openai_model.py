"""The model client against a scripted server: every answer and every failure becomes what the state machine expects."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cope.adapters.openai_model import OpenAIModel, retry_after_s
from cope.core import errors
from cope.core.models import ModelEntry
from cope.core.money import TokenUsage
from cope.core.problem import Message
from cope.core.stages import Tier
from cope.ports.model import ChatRequest
from cope_local.children import free_port

USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
GOOD = {"id": "x1", "choices": [{"message": {"content": "7"}, "finish_reason": "stop"}], "usage": USAGE}


class Script:
    """What the server says next, and what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.body: bytes = json.dumps(GOOD).encode()
        self.headers: dict[str, str] = {}
        self.asked: list[dict[str, object]] = []


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def request_(script: Script) -> Iterator[ChatRequest]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            script.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(script.status)
            for name, value in {**script.headers, "content-length": str(len(script.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(script.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    entry = ModelEntry("m", "served-m", f"http://127.0.0.1:{server.server_address[1]}/v1", Tier.LARGE, "instruct", 4096)
    yield ChatRequest(entry, (Message("user", "3 + 4?"),), 0.5, 64, "rid-1", stop=("#",))
    server.shutdown()
    server.server_close()
    thread.join()


async def ask(request: ChatRequest) -> object:
    model = OpenAIModel()
    try:
        return await model.chat(request)
    finally:
        await model.aclose()


async def test_an_answer_carries_text_usage_and_the_providers_id(script: Script, request_: ChatRequest):
    answer = await ask(request_)

    assert answer.text == "7"  # type: ignore[attr-defined]
    assert answer.usage == TokenUsage(9, 4, 3, 0, 1)  # type: ignore[attr-defined]
    assert answer.provider_id == "x1"  # type: ignore[attr-defined]
    (asked,) = script.asked
    assert (asked["model"], asked["max_tokens"], asked["temperature"], asked["stop"]) == ("served-m", 64, 0.5, ["#"])


async def test_missing_usage_is_unknown_not_zero(script: Script, request_: ChatRequest):
    script.body = json.dumps({**GOOD, "usage": None}).encode()

    assert (await ask(request_)).usage is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("status", "body", "kind", "answered"),
    [
        (429, {"code": "rate_limit_exceeded", "message": "slow"}, errors.ModelRateLimited, True),
        (429, {"code": "insufficient_quota", "message": "pay"}, errors.ModelQuotaExhausted, True),
        (400, {"code": "context_length_exceeded", "message": "long"}, errors.ContextTooLong, True),
        (400, {"code": "bad", "message": "no"}, errors.ModelRejected, True),
        (401, {"message": "who"}, errors.ModelRejected, True),
        (500, {"message": "oops"}, errors.ModelOverloaded, True),
        (503, {}, errors.ModelOverloaded, True),
    ],
)
async def test_each_status_becomes_its_error(
    script: Script,
    request_: ChatRequest,
    status: int,
    body: dict[str, str],
    kind: type[errors.ModelError],
    answered: bool,
):
    script.status, script.body, script.headers = status, json.dumps({"error": body}).encode(), {"retry-after": "7"}
    with pytest.raises(errors.ModelError) as failed:
        await ask(request_)

    assert type(failed.value) is kind
    assert failed.value.answered is answered
    assert len(script.asked) == 1  # the SDK's own retries are off


@pytest.mark.parametrize(
    "body", [b"not json", b"{}", b'{"choices": []}', b'{"choices": [{"message": {"content": 5}}]}']
)
async def test_an_unreadable_answer_is_malformed_and_was_sent(script: Script, request_: ChatRequest, body: bytes):
    script.body = body
    with pytest.raises(errors.ModelMalformed) as failed:
        await ask(request_)

    assert failed.value.sent
    assert not failed.value.answered


async def test_a_refused_connection_was_never_sent(request_: ChatRequest):
    gone = replace(request_, model=replace(request_.model, base_url=f"http://127.0.0.1:{free_port()}/v1"))
    with pytest.raises(errors.ModelUnreachable) as failed:
        await ask(gone)

    assert not failed.value.sent


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None), ({"retry-after": "7"}, 7.0), ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Mon, 02 Nov 2026 12:01:00 GMT"}, 60.0), ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None), ({"retry-after": "nan"}, None), ({"retry-after": "inf"}, None),
    ],
)  # fmt: skip
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None):
    assert retry_after_s(headers, now=datetime(2026, 11, 2, 12, 0, tzinfo=UTC)) == seconds
