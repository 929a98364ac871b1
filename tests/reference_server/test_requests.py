"""Every field of a chat request is honoured or refused by its name."""

from typing import Any

import pytest

from cope_reference.requests import Refused, read_chat

MESSAGES = [{"role": "user", "content": "1 + 1?"}]


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": MESSAGES, **fields}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"functions": [{}]}, "functions"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": -1}, "presence_penalty"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"store": True}, "store"),
        ({"top_k": 5}, "top_k"),
        ({"anything_else": 1}, "anything_else"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": True}, "n"),
        ({"n": 1.5}, "n"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": "9"}, "max_completion_tokens"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"seed": 1.0}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"logprobs": 5}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": []}, "stream_options"),
        ({"stream": True, "stream_options": {"colour": 1}}, "stream_options.colour"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"rid": ""}, "rid"),
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
        ({"messages": [*MESSAGES, {"role": "user", "content": None}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": "x", "name": "Ann"}]}, "messages[0].name"),
        ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content"),
    ],
)
def test_what_cant_be_honoured_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Refused) as refused:
        read_chat(body(**fields))
    assert refused.value.body["error"]["param"] == param
    assert refused.value.status == 400


@pytest.mark.parametrize("what", [None, [], "text", 5])
def test_a_body_that_is_not_an_object_is_refused(what: object) -> None:
    with pytest.raises(Refused):
        read_chat(what)


def test_fields_that_ask_for_nothing_pass() -> None:
    chat = read_chat(
        body(
            tools=None, functions=[], logit_bias={}, frequency_penalty=0, presence_penalty=0.0, store=False, n=None,
            response_format={"type": "text"}, service_tier="auto", user="u", metadata={"a": "b"}, temperature=None,
            max_tokens=None, top_p=None, stop=None, seed=None, stream=None, stream_options=None, logprobs=False,
        )
    )  # fmt: skip
    assert (chat.n, chat.temperature, chat.top_p, chat.max_tokens, chat.top) == (1, 1.0, 1.0, None, None)


def test_the_smaller_of_both_limits_counts_and_null_is_no_limit() -> None:
    assert read_chat(body(max_tokens=7, max_completion_tokens=9)).max_tokens == 7
    assert read_chat(body(max_tokens=7, max_completion_tokens=None)).max_tokens == 7


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "1 +"}, {"type": "text", "text": " 1?"}]
    assert read_chat(body(messages=[{"role": "user", "content": parts}])).messages == MESSAGES


def test_without_a_limit_the_answer_may_fill_the_context() -> None:
    assert [one.max_tokens for one in read_chat(body(n=2)).settings(1000, 1024)] == [24, 24]


def test_each_choice_draws_from_a_stream_of_its_own() -> None:
    assert [one.seed for one in read_chat(body(n=2, seed=-1)).settings(1, 9)] == [(2**64 - 1, 0), (2**64 - 1, 1)]


@pytest.mark.parametrize(("prompt_tokens", "limit"), [(1024, None), (2000, None), (1000, 25)])
def test_prompt_and_limit_above_the_context_are_refused_with_openais_code(prompt_tokens: int, limit: int) -> None:
    with pytest.raises(Refused) as refused:
        read_chat(body(max_tokens=limit)).settings(prompt_tokens, 1024)
    assert refused.value.body["error"]["code"] == "context_length_exceeded"
