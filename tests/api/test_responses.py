"""The Responses API through the unmodified openai client: live, streamed, in the background, as a batch."""

import itertools
import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response

from cope.core.webhooks import secret_key
from tests.api.whole import ADMIN, KEY, Whole, whole_service

T = TypeVar("T")
PENDING = {"queued", "in_progress"}


@pytest.fixture(scope="module")
def service() -> Iterator[Whole]:
    with whole_service() as whole:
        yield whole


@pytest.fixture
def client(service: Whole) -> Iterator[OpenAI]:
    with OpenAI(base_url=service.url, api_key=KEY, max_retries=0) as client:
        yield client


def until(look: Callable[[], T], good: Callable[[T], bool]) -> T:
    """Look again every 20 ms; the test's own time-out ends a wait in vain."""
    while not good(seen := look()):
        time.sleep(0.02)
    return seen


def ended(client: OpenAI, made: Response) -> Response:
    return until(lambda: client.responses.retrieve(made.id), lambda seen: seen.status not in PENDING)


def test_text_in_is_solved_by_the_cascade_and_the_answer_is_an_ordinary_response(client: OpenAI):
    made = client.responses.create(
        model="cope",
        input="What is 2 + 3?",
        instructions="Be brief.",
        temperature=0.5,
        top_p=0.9,
        max_output_tokens=200,
        metadata={"st": "full"},
        user="u-1",
        text={"format": {"type": "text"}},
    )

    assert (made.object, made.status, made.model) == ("response", "completed", "cope")
    assert made.output_text == "The answer is \\boxed{5}"
    assert made.id.startswith("resp_")
    assert (made.instructions, made.temperature, made.top_p, made.max_output_tokens) == ("Be brief.", 0.5, 0.9, 200)
    assert (made.metadata, made.user, made.store, made.background) == ({"st": "full"}, "u-1", True, False)
    assert made.usage is not None
    assert (made.usage.input_tokens, made.usage.output_tokens, made.usage.total_tokens) == (20, 10, 30)
    assert made.model_extra is not None
    assert made.model_extra["cope"]["stage"] == 1
    assert made.created_at > time.time() - 60


def test_message_items_and_an_earlier_responses_output_are_a_conversation(client: OpenAI):
    first = client.responses.create(model="cope", input=[{"role": "user", "content": "What is 2 + 3?"}])
    again = client.responses.create(
        model="cope",
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "What is 2 + 3?"}]},
            *[item.model_dump(exclude_none=True) for item in first.output],  # type: ignore[list-item]
            {"role": "user", "content": "Are you sure?"},
        ],
    )

    assert again.output_text == first.output_text


def test_a_previous_response_gives_its_conversation_without_its_instructions(service: Whole, client: OpenAI):
    first = client.responses.create(model="cope", input="What is 2 + 3?", instructions="Speak Latin.")
    second = client.responses.create(
        model="cope", input="Sure?", previous_response_id=first.id, instructions="Be brief."
    )
    third = client.responses.create(model="cope", input="Really?", previous_response_id=second.id)

    assert third.previous_response_id == second.id
    asked = get(service, f"/tasks/task_{third.id.removeprefix('resp_')}")["request"]["m"]
    assert asked == [
        ["user", "What is 2 + 3?"],
        ["assistant", "The answer is \\boxed{5}"],
        ["user", "Sure?"],
        ["assistant", "The answer is \\boxed{5}"],
        ["user", "Really?"],
    ]


def test_a_stream_has_openais_events_in_order_and_numbered_without_a_gap(client: OpenAI):
    events = list(client.responses.create(model="cope", input="What is 2 + 3?", stream=True))

    kinds = [kind for kind, _ in itertools.groupby(event.type for event in events)]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == text == "The answer is \\boxed{5}"


def test_the_clients_stream_helper_accumulates_the_final_response(client: OpenAI):
    with client.responses.stream(model="cope", input="What is 2 + 3?") as stream:
        texts = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()

    assert texts[-1] == final.output_text == "The answer is \\boxed{5}"


def test_an_answer_cut_at_the_output_limit_is_incomplete_live_and_streamed(client: OpenAI):
    live = client.responses.create(model="small", input="cut this")
    last = list(client.responses.create(model="small", input="cut this", stream=True))[-1]

    assert live.status == "incomplete"
    assert live.incomplete_details is not None
    assert live.incomplete_details.reason == "max_output_tokens"
    assert last.type == "response.incomplete"


def test_a_background_response_is_queued_polled_completed_and_can_be_streamed_afterwards(
    service: Whole, client: OpenAI
):
    service.told.go_on.clear()
    made = client.responses.create(model="cope", input="a slow one", background=True)
    waiting = client.responses.retrieve(made.id)
    service.told.go_on.set()
    done = ended(client, made)

    assert (made.status, made.background) == ("queued", True)
    assert waiting.status in PENDING
    assert (done.status, done.output_text) == ("completed", "The answer is \\boxed{5}")
    assert done.created_at == made.created_at
    events = list(client.responses.retrieve(made.id, stream=True))
    assert [event.type for event in events][:3] == ["response.created", "response.queued", "response.in_progress"]
    rest = list(client.responses.retrieve(made.id, stream=True, starting_after=4))
    assert rest == events[5:]


def test_a_background_response_is_cancelled_and_its_end_is_an_event_and_a_webhook(service: Whole, client: OpenAI):
    endpoint = client.post(
        "/webhook_endpoints",
        body={"url": "https://example.com/r", "event_types": ["response.completed", "response.cancelled"]},
        cast_to=dict[str, Any],
    )
    service.told.go_on.clear()
    cancelled = client.responses.create(model="cope", input="another slow one", background=True)
    assert client.responses.cancel(cancelled.id).status == "cancelled"
    assert client.responses.cancel(cancelled.id).status == "cancelled"
    service.told.go_on.set()
    completed = ended(client, client.responses.create(model="cope", input="and one more", background=True))
    client.responses.create(model="cope", input="nobody is told of this one")

    sent = until(lambda: list(service.webhooks.sent), lambda seen: len(seen) >= 2)
    told = [client.webhooks.unwrap(one.body, dict(one.headers), secret=endpoint["signing_secret"]) for one in sent]
    assert secret_key(endpoint["signing_secret"])
    assert {(event.type, event.data.id) for event in told} == {
        ("response.cancelled", cancelled.id),
        ("response.completed", completed.id),
    }


def test_only_a_background_response_can_be_cancelled(client: OpenAI):
    made = client.responses.create(model="cope", input="What is 2 + 3?")
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.cancel(made.id)

    assert refused.value.code == "response_not_cancellable"


def test_a_deleted_response_is_gone_with_every_text_of_it(service: Whole, client: OpenAI):
    made = client.responses.create(model="cope", input="my secret sum", extra_body={"cope": {"store": "full"}})
    client.responses.delete(made.id)

    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    left = json.dumps(get(service, f"/tasks/task_{made.id.removeprefix('resp_')}"))
    assert "secret" not in left
    assert "The answer" not in left
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(made.id)


def test_a_response_that_was_not_to_be_stored_can_not_be_read_back_or_gone_on_from(client: OpenAI):
    made = client.responses.create(model="cope", input="What is 2 + 3?", store=False)
    assert made.store is False
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="cope", input="Sure?", previous_response_id=made.id)

    assert (refused.value.param, refused.value.code) == ("previous_response_id", "previous_response_not_found")


def test_another_project_sees_none_of_it(service: Whole, client: OpenAI):
    made = client.responses.create(model="cope", input="What is 2 + 3?", background=True)
    project = post(service, "/organization/projects", {"name": "other"}, key=ADMIN)["id"]
    other = post(service, f"/organization/projects/{project}/service_accounts", {}, key=ADMIN)["api_key"]["value"]
    with OpenAI(base_url=service.url, api_key=other, max_retries=0) as stranger:
        for reach in (stranger.responses.retrieve, stranger.responses.cancel, stranger.responses.delete):
            with pytest.raises(openai.NotFoundError):
                reach(made.id)
        with pytest.raises(openai.BadRequestError):
            stranger.responses.create(model="cope", input="Sure?", previous_response_id=made.id)


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools", "unsupported_parameter"),
        ({"tool_choice": "required"}, "tool_choice", "unsupported_parameter"),
        ({"include": ["reasoning.encrypted_content"]}, "include", "unsupported_parameter"),
        ({"truncation": "auto"}, "truncation", "unsupported_parameter"),
        ({"reasoning": {"effort": "high"}}, "reasoning", "unsupported_parameter"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
        ({"service_tier": "flex"}, "service_tier", "unsupported_parameter"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options", "unsupported_parameter"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format", "not_available_yet"),
        ({"text": {"verbosity": "low"}}, "text.verbosity", "unsupported_parameter"),
        ({"messages": []}, "messages", "unknown_parameter"),
        ({"stop": "x"}, "stop", "unknown_parameter"),
        ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"store": "yes"}, "store", "invalid_value"),
        ({"background": True, "store": False}, "store", "invalid_value"),
        ({"metadata": {"a": 1}}, "metadata", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]", "invalid_value"),
        ({"input": [{"role": "user", "content": [{"type": [], "text": ""}]}]}, "input[0].content[0]", "invalid_value"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type", "invalid_value"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role", "invalid_value"),
        ({"input": [{"role": "assistant", "content": "x"}]}, "input", "invalid_value"),
        ({"input": "a\x00b"}, "input", "invalid_value"),
        ({"instructions": ["x"]}, "instructions", "invalid_value"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "previous_response_not_found"),
        ({"previous_response_id": "ä" * 9}, "previous_response_id", "previous_response_not_found"),
        ({"model": "nobody"}, "model", "model_not_found"),
        ({"cope": {"theta": 1}}, "cope.theta", "invalid_value"),
        ({"cope": {"on_expiry": "best_vote"}}, "cope.on_expiry", "not_available_yet"),
        ({"stream": "yes"}, "stream", "invalid_value"),
    ],
)
def test_what_can_not_be_honoured_is_refused_by_name(client: OpenAI, changes: dict[str, Any], param: str, code: str):
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/responses", body={"model": "cope", "input": "2 + 3?", **changes}, cast_to=Response)

    assert (refused.value.param, refused.value.code) == (param, code)


def test_a_failed_response_is_an_error_live_and_an_event_when_streamed(service: Whole, client: OpenAI):
    service.told.go_on.set()
    broke = post(service, "/organization/projects", {"name": "broke"}, key=ADMIN)["id"]
    post(service, f"/organization/projects/{broke}/spend_limit", {"threshold_amount": 0}, key=ADMIN)
    key = post(service, f"/organization/projects/{broke}/service_accounts", {}, key=ADMIN)["api_key"]["value"]
    with OpenAI(base_url=service.url, api_key=key, max_retries=0) as poor:
        with pytest.raises(openai.RateLimitError) as refused:
            poor.responses.create(model="large", input="What is 2 + 3?")
        last = list(poor.responses.create(model="large", input="What is 2 + 3?", stream=True))[-1]
        kept = ended(poor, poor.responses.create(model="large", input="What is 2 + 3?", background=True))

    assert refused.value.code == "project_spend_limit_exceeded"
    assert last.type == "response.failed"
    assert kept.status == "failed"
    for response in (last.response, kept):
        assert response.error is not None
        assert response.error.code == "rate_limit_exceeded"
        assert response.model_extra is not None
        assert response.model_extra["cope"]["error"]["code"] == "project_spend_limit_exceeded"


def test_a_batch_of_responses_ends_in_a_file_of_response_objects(client: OpenAI):
    bodies: list[dict[str, Any]] = [
        {"model": "cope", "input": "What is 2 + 3?"},
        {"model": "cope", "input": "never", "instructions": "Be brief.", "cope": {"n": 4}, "store": False},
        {"model": "small", "input": [{"role": "user", "content": "cut"}], "metadata": {"k": "v"}},
    ]
    lines = [
        json.dumps({"custom_id": f"line-{n}", "method": "POST", "url": "/v1/responses", "body": body})
        for n, body in enumerate(bodies)
    ]
    file = client.files.create(file=("in.jsonl", "\n".join(lines).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
    done = until(lambda: client.batches.retrieve(batch.id), lambda seen: seen.status in {"completed", "failed"})

    assert done.output_file_id is not None
    rows = [json.loads(line) for line in client.files.content(done.output_file_id).text.splitlines()]
    output = {row["custom_id"]: Response.model_validate(row["response"]["body"]) for row in rows}
    assert {name: (one.object, one.status) for name, one in output.items()} == {
        "line-0": ("response", "completed"),
        "line-1": ("response", "completed"),
        "line-2": ("response", "incomplete"),
    }
    assert output["line-1"].instructions == "Be brief."
    assert output["line-2"].metadata == {"k": "v"}
    assert {row["custom_id"]: row["response"]["body"]["cope"]["stage"] for row in rows}["line-1"] == 3
    assert client.responses.retrieve(output["line-0"].id).output_text == "The answer is \\boxed{5}"
    with pytest.raises(openai.UnprocessableEntityError):
        client.responses.delete(output["line-0"].id)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "cope", "input": "x", "stream": True}, "body.stream"),
        ({"model": "cope", "input": "x", "background": True}, "body.background"),
        ({"model": "cope", "input": "x", "previous_response_id": "resp_1"}, "body.previous_response_id"),
        ({"model": "cope", "messages": [{"role": "user", "content": "x"}]}, "body.messages"),
    ],
)
def test_a_line_that_can_not_be_a_response_fails_the_batch_by_its_number(client: OpenAI, body: object, param: str):
    line = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": body})
    file = client.files.create(file=("in.jsonl", line.encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/responses", completion_window="24h")
    failed = until(lambda: client.batches.retrieve(batch.id), lambda seen: seen.status in {"completed", "failed"})

    assert failed.errors is not None
    assert failed.errors.data is not None
    assert [(error.line, error.param) for error in failed.errors.data] == [(1, param)]


def test_a_dry_run_quotes_a_file_of_responses(client: OpenAI):
    body = {"model": "cope", "input": "What is 2 + 3?"}
    line = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": body})
    file = client.files.create(file=("in.jsonl", line.encode()), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/responses",
        completion_window="24h",
        extra_body={"cope": {"dry_run": True}},
    )
    done = until(lambda: client.batches.retrieve(batch.id), lambda seen: seen.status in {"completed", "failed"})

    assert done.model_extra is not None
    quote = done.model_extra["cope"]["quote"]
    assert (quote["lines"], quote["pilot"]["accepted"]) == (1, 1)
    assert quote["submit"]["at_max"]["endpoint"] == "/v1/responses"


def get(service: Whole, path: str) -> dict[str, Any]:
    return call(service, path, None, key=KEY)


def post(service: Whole, path: str, body: object, *, key: str) -> dict[str, Any]:
    return call(service, path, json.dumps(body).encode(), key=key)


def call(service: Whole, path: str, body: bytes | None, *, key: str) -> dict[str, Any]:
    request = urllib.request.Request(service.url + path, data=body, headers={"authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found
