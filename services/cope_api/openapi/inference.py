"""Live calls: chat completions, responses, models."""

from cope.core.request import MAX_MESSAGES, MAX_STOPS
from cope_api.openapi.operation import op
from cope_api.openapi.shapes import (
    DELETED,
    ID,
    METADATA,
    SECONDS,
    Schema,
    array,
    closed,
    const,
    either,
    example,
    flag,
    listed,
    named,
    nullable,
    number,
    one_of,
    record,
    text,
    whole,
)
from cope_api.openapi.shared import BIG, CHAT_USAGE, LINE_COPE, RESULT_COPE

MODEL = named("Model", record({"id": text(), "object": const("model"), "created": whole(), "owned_by": const("cope")}))
ROLE = one_of(["system", "developer", "user", "assistant"])
ANYTHING: Schema = {}


def neutral(*values: object) -> Schema:
    """A field that can't be honoured, and so may only say what is the case anyway."""
    return {"enum": list(values), "description": "Can't be honoured: only a neutral value is taken."}


_SAMPLING = {
    "temperature": nullable(number("Of the executors of Stages 1 and 2.", low=0, high=2)),
    "top_p": nullable({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
    "cope": nullable(LINE_COPE),
}
_MODEL_NAME = text("A policy (cope, cope@0.75,0.5, small, …) or a configured model.", low=1, high=256)
_CHAT_PART = record({"type": const("text"), "text": text()})
MESSAGE = closed({"role": ROLE, "content": either(text(), array(_CHAT_PART))}, optional={"refusal": {"type": "null"}})
_STREAM_OPTIONS = closed({}, optional={"include_usage": nullable(flag()), "include_obfuscation": neutral(None, False)})
_LIMIT = nullable(whole("Caps every solution.", low=1, high=1_000_000))
CHAT = named(
    "ChatCompletionRequest",
    closed(
        {"model": _MODEL_NAME, "messages": array(MESSAGE, low=1, high=MAX_MESSAGES)},
        optional={
            **_SAMPLING,
            "stream": nullable(flag()),
            "stream_options": nullable(_STREAM_OPTIONS),
            "max_tokens": _LIMIT,
            "max_completion_tokens": _LIMIT,
            "stop": either(text(low=1, high=10_000), array(text(low=1, high=10_000), high=MAX_STOPS), {"type": "null"}),
            "n": nullable(whole("Choices to return.", low=1, high=64)),
            "seed": nullable(whole(low=-BIG - 1, high=BIG)),
            **dict.fromkeys(("user", "metadata", "safety_identifier", "prompt_cache_key", "store"), ANYTHING),
            "logprobs": neutral(None, False),
            "top_logprobs": neutral(None, 0),
            "presence_penalty": neutral(None, 0),
            "frequency_penalty": neutral(None, 0),
            "logit_bias": neutral(None, {}),
            "tools": neutral(None, []),
            "tool_choice": neutral(None, "none"),
            "functions": neutral(None, []),
            "function_call": neutral(None, "none"),
            "response_format": neutral(None, {"type": "text"}),
            "service_tier": neutral(None, "auto", "default"),
            "modalities": neutral(None, ["text"]),
            "parallel_tool_calls": neutral(None, True, False),
            **{
                name: neutral(None)
                for name in ("reasoning_effort", "verbosity", "prediction", "audio", "web_search_options")
            },
        },
    ),
)
COMPLETION = named(
    "ChatCompletion",
    record(
        {
            "id": text(),
            "object": const("chat.completion"),
            "created": SECONDS,
            "model": text(),
            "choices": array(
                record(
                    {
                        "index": whole(low=0),
                        "message": record({"role": const("assistant"), "content": text(), "refusal": {"type": "null"}}),
                        "logprobs": {"type": "null"},
                        "finish_reason": text(),
                    }
                ),
                low=1,
            ),
            "usage": CHAT_USAGE,
            "cope": RESULT_COPE,
        }
    ),
)

_ITEM_PART = closed(
    {"type": one_of(["input_text", "output_text", "text"]), "text": text()},
    optional={"annotations": ANYTHING, "logprobs": ANYTHING},
)
ITEM = closed(
    {"role": ROLE, "content": either(text(), array(_ITEM_PART))},
    optional={"type": const("message"), "id": ANYTHING, "status": ANYTHING, "phase": {"type": "null"}},
)
_LABEL = nullable(text(low=1, high=512))
NEW_RESPONSE = named(
    "ResponseRequest",
    closed(
        {"model": _MODEL_NAME, "input": either(text(), array(ITEM, low=1, high=MAX_MESSAGES))},
        optional={
            **_SAMPLING,
            "instructions": nullable(text("Come first in the conversation; not handed on to the next response.")),
            "max_output_tokens": _LIMIT,
            "metadata": nullable(METADATA),
            "store": nullable(flag("false: it can't be read back, and its samples are not kept.")),
            "background": nullable(flag("Return at once; poll, or wait for a webhook.")),
            "stream": nullable(flag()),
            "previous_response_id": nullable(text("A stored response of the project to go on from.", low=1, high=64)),
            "text": nullable(
                closed(
                    {},
                    optional={"format": nullable(closed({"type": const("text")})), "verbosity": {"type": "null"}},
                )
            ),
            "user": _LABEL,
            "safety_identifier": _LABEL,
            "prompt_cache_key": _LABEL,
            "stream_options": neutral(None, {}, {"include_obfuscation": False}),
            "tools": neutral(None, []),
            "tool_choice": neutral(None, "auto", "none"),
            "parallel_tool_calls": neutral(None, True, False),
            "include": neutral(None, []),
            "top_logprobs": neutral(None, 0),
            "truncation": neutral(None, "disabled"),
            "service_tier": neutral(None, "auto", "default"),
            "reasoning": neutral(None, {}, {"effort": None}, {"effort": None, "summary": None}),
            "context_management": neutral(None, []),
            "background_options": neutral(None, {}),
            **{
                name: neutral(None)
                for name in (
                    "max_tool_calls",
                    "conversation",
                    "prompt",
                    "prompt_cache_retention",
                    "prompt_cache_options",
                    "moderation",
                    "image",
                    "access_programs",
                )
            },
        },
    ),
)
_STATUSES = ["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
RESPONSE = named(
    "Response",
    record(
        {
            "id": text(like="^resp_"),
            "object": const("response"),
            "created_at": SECONDS,
            "status": one_of(_STATUSES),
            "background": flag(),
            "completed_at": nullable(SECONDS),
            "error": nullable(record({"code": text(), "message": text()})),
            "incomplete_details": nullable(record({"reason": one_of(["max_output_tokens", "content_filter"])})),
            "instructions": nullable(text()),
            "max_output_tokens": nullable(whole(low=1)),
            "metadata": METADATA,
            "model": text(),
            "output": array(
                record(
                    {
                        "id": text(like="^msg_"),
                        "type": const("message"),
                        "status": one_of(["completed", "incomplete"]),
                        "role": const("assistant"),
                        "content": array(
                            record(
                                {
                                    "type": const("output_text"),
                                    "text": text(),
                                    "annotations": array(ANYTHING, high=0),
                                    "logprobs": array(ANYTHING, high=0),
                                }
                            )
                        ),
                    }
                ),
                "Empty until there is an answer.",
                high=1,
            ),
            "max_tool_calls": {"type": "null"},
            "parallel_tool_calls": flag(),
            "previous_response_id": nullable(text()),
            "prompt_cache_key": nullable(text()),
            "reasoning": record({"effort": {"type": "null"}, "summary": {"type": "null"}}),
            "safety_identifier": nullable(text()),
            "service_tier": const("default"),
            "top_logprobs": const(0),
            "store": flag(),
            "temperature": nullable(number()),
            "text": record({"format": record({"type": const("text")})}),
            "tool_choice": const("auto"),
            "tools": array(ANYTHING, high=0),
            "top_p": nullable(number()),
            "truncation": const("disabled"),
            "usage": nullable(
                record(
                    {
                        "input_tokens": whole(low=0),
                        "input_tokens_details": record({"cached_tokens": whole(low=0), "cache_write_tokens": whole()}),
                        "output_tokens": whole(low=0),
                        "output_tokens_details": record({"reasoning_tokens": whole(low=0)}),
                        "total_tokens": whole(low=0),
                    }
                )
            ),
            "user": nullable(text()),
            "cope": either(
                RESULT_COPE,
                record({"task_id": ID}, optional={"error": record({"code": text(), "param": nullable(text())})}),
            ),
        }
    ),
)
_CHAT_STREAM = record(
    {"data": text()},
    "Server-sent events: `data:` lines of chat.completion.chunk objects, `data: [DONE]` last. Lines that begin with a "
    "colon keep the connection alive. An error after the start is a `data:` line with an error object.",
)
_RESPONSE_STREAM = record(
    {"event": text(like="^response\\."), "data": text()},
    "Server-sent events, each `event: <type>` and `data: {…}` with `type` and `sequence_number` (0, 1, 2 …): "
    "response.created, (response.queued,) response.in_progress, response.output_item.added, "
    "response.content_part.added, response.output_text.delta …, response.output_text.done, "
    "response.content_part.done, response.output_item.done, and response.completed, response.incomplete or "
    "response.failed.",
)
_STREAM = "text/event-stream"
_PAID_ERRORS = (429, 502)

OPERATIONS = {
    "GET /v1/models": op("Live calls", listed(MODEL)),
    "GET /v1/models/{name}": op("Live calls", MODEL),
    "POST /v1/chat/completions": op(
        "Live calls",
        COMPLETION,
        body=example(CHAT, {"model": "cope", "messages": [{"role": "user", "content": "What is 2 + 3?"}]}),
        also={_STREAM: _CHAT_STREAM},
        errors=_PAID_ERRORS,
    ),
    "POST /v1/responses": op(
        "Live calls",
        RESPONSE,
        body=example(NEW_RESPONSE, {"model": "cope", "input": "What is 2 + 3?"}),
        also={_STREAM: _RESPONSE_STREAM},
        errors=_PAID_ERRORS,
    ),
    "GET /v1/responses/{response_id}": op(
        "Live calls",
        RESPONSE,
        query={
            "stream": one_of(["true", "false"]),
            "starting_after": whole("The last sequence number seen, of a stream.", low=0, high=999_999_999),
            "include_obfuscation": one_of(["false"]),
        },
        also={_STREAM: _RESPONSE_STREAM},
    ),
    "POST /v1/responses/{response_id}/cancel": op("Live calls", RESPONSE),
    "DELETE /v1/responses/{response_id}": op(
        "Live calls", record({"id": text(), "object": const("response"), "deleted": DELETED}), errors=(422,)
    ),
}
