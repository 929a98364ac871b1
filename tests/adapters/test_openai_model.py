"""The model client against a scripted server: every answer and every failure becomes what the state machine expects."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cope.adapters.openai_model import OpenAIModel
from cope.core import errors
from cope.core.limits.hints import retry_after_s
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
        self.asked_headers: list[dict[str, str]] = []


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def request_(script: Script) -> Iterator[ChatRequest]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            script.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            script.asked_headers.append({name.lower(): value for name, value in self.headers.items()})
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


@pytest.mark.parametrize(
    ("tier", "price_id", "sent"),
    [(Tier.LARGE, "p", "rid-1"), (Tier.LARGE, None, "rid-1"), (Tier.SMALL, "p", "rid-1"), (Tier.SMALL, None, None)],
)
async def test_a_paid_call_carries_its_own_id_for_the_providers_records(
    script: Script, request_: ChatRequest, tier: Tier, price_id: str | None, sent: str | None
):
    await ask(replace(request_, model=replace(request_.model, tier=tier, price_id=price_id)))

    (headers,) = script.asked_headers
    assert headers.get("x-client-request-id") == sent


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        ({"prompt_tokens": True, "completion_tokens": True}, None),
        ({"prompt_tokens": 9.0, "completion_tokens": 3}, None),
        ({"prompt_tokens": 9, "completion_tokens": 10**12}, None),
        ({**USAGE, "prompt_tokens_details": {"cached_tokens": "some"}}, TokenUsage(9, 0, 3, 0, 1)),
        ({**USAGE, "prompt_tokens_details": {"cached_tokens": 10}}, TokenUsage(9, 0, 3, 0, 1)),
        ({**USAGE, "prompt_tokens_details": {"cached_tokens": -1}}, TokenUsage(9, 0, 3, 0, 1)),
        ({**USAGE, "completion_tokens_details": [1]}, TokenUsage(9, 4, 3, 0, 1)),
        ({**USAGE, "completion_tokens_details": {"reasoning_tokens": 2}}, TokenUsage(9, 4, 3, 2, 1)),
    ],
)
async def test_a_usage_that_makes_no_sense_is_never_taken_for_a_cheaper_one(
    script: Script, request_: ChatRequest, usage: dict[str, object], read: TokenUsage | None
):
    script.body = json.dumps({**GOOD, "usage": usage}).encode()

    assert (await ask(request_)).usage == read  # type: ignore[attr-defined]


@pytest.mark.parametrize(("given", "kept"), [("a\0b", "ab"), (7, None), (None, None), ("x" * 999, "x" * 200)])
async def test_a_providers_id_is_kept_only_as_text_that_can_be_stored(
    script: Script, request_: ChatRequest, given: object, kept: str | None
):
    script.body = json.dumps({**GOOD, "id": given}).encode()

    assert (await ask(request_)).provider_id == kept  # type: ignore[attr-defined]


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
        (401, {"message": "who"}, errors.ModelKeyRefused, True),
        (403, {"message": "Your key may not use this model."}, errors.ModelKeyRefused, True),
        (403, {"message": "Your input was flagged by moderation."}, errors.ModelRejected, True),
        (409, {"message": "later"}, errors.ModelOverloaded, True),
        (503, {"message": "overloaded"}, errors.ModelOverloaded, True),
        (529, {"message": "overloaded"}, errors.ModelOverloaded, True),
        # It may have been billed: the work may have been done before it failed, or before a gateway lost it.
        (408, {"message": "too slow"}, errors.ModelOverloaded, False),
        (500, {"message": "oops"}, errors.ModelOverloaded, False),
        (502, {"message": "lost"}, errors.ModelOverloaded, False),
        (503, {}, errors.ModelOverloaded, False),
        (504, {"message": "lost"}, errors.ModelOverloaded, False),
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


@pytest.mark.parametrize("status", [400, 401, 403, 409, 429, 500, 503])
async def test_a_key_that_the_provider_repeats_is_not_repeated_by_us(
    script: Script, request_: ChatRequest, status: int
):
    key = "the-key-of-this-model"
    told = {"message": f"Incorrect API key provided: {key}. Authorization: Bearer {key}", "code": "x"}
    script.status, script.body = status, json.dumps({"error": told}).encode()
    with pytest.raises(errors.ModelError) as failed:
        await ask(replace(request_, model=replace(request_.model, api_key=key)))

    assert script.asked_headers[0]["authorization"] == f"Bearer {key}"
    assert key not in failed.value.message
    assert "[secret]" in failed.value.message


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
        ({"retry-after-ms": "-1", "retry-after": "7"}, 7.0), ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": ""}, None), ({"retry-after": "Mon, 99999999999 Nov 2026 12:01:00 GMT"}, None),
    ],
)  # fmt: skip
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None):
    assert retry_after_s(headers, now=datetime(2026, 11, 2, 12, 0, tzinfo=UTC)) == seconds


_DATES = st.from_regex(
    r"[A-Z][a-z]{2}, [0-9]{1,30} (Jan|Foo) [0-9]{1,30} [0-9]{1,12}:[0-9]{1,9}:[0-9]{1,30} (GMT|[+-][0-9]{4,40})",
    fullmatch=True,
)


@given(st.one_of(st.text(st.characters(min_codepoint=32, max_codepoint=255)), _DATES))
def test_no_retry_after_header_breaks_the_worker(value: str):
    told = retry_after_s({"retry-after": value}, now=datetime(2026, 11, 2, 12, 0, tzinfo=UTC))

    assert told is None or told >= 0


async def test_log_probabilities_are_asked_for_and_their_mean_is_read(script: Script, request_: ChatRequest) -> None:
    tokens = [{"token": "7", "logprob": -0.5}, {"token": "", "logprob": -1.5}]
    choice = {"message": {"content": "7"}, "finish_reason": "stop", "logprobs": {"content": tokens}}
    script.body = json.dumps({**GOOD, "choices": [choice]}).encode()
    model = OpenAIModel()
    try:
        answer = await model.chat(replace(request_, logprobs=True))
        assert script.asked[-1]["logprobs"] is True
        assert answer.mean_logprob == -1.0
        await model.chat(request_)
        assert "logprobs" not in script.asked[-1]
        tokens[1] = {"token": "x", "logprob": None}
        script.body = json.dumps({**GOOD, "choices": [choice]}).encode()
        assert (await model.chat(replace(request_, logprobs=True))).mean_logprob is None
    finally:
        await model.aclose()
