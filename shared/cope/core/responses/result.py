"""A task as OpenAI's Response object, with our `cope` block, and the events that a stream of one is made of."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from cope.core.errors import ErrorInfo
from cope.core.ids import TASK, TaskId, made_at_s
from cope.core.lifecycle import TaskState
from cope.core.responses.form import MESSAGE, ResponseForm, response_id
from cope.core.task import TaskSpec

Json = dict[str, Any]
PIECE = 24
ERASED = ErrorInfo("response_deleted", "The response was deleted.")
_PLAIN_FORM = ResponseForm()
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_ERROR_CODES = {429: "rate_limit_exceeded", 400: "invalid_prompt"}
_EVENTS = {TaskState.FAILED: "failed", TaskState.EXPIRED: "failed", TaskState.CANCELLED: "cancelled"}


def finished_response(spec: TaskSpec, completion: Json, *, finished_at: datetime) -> Json:
    """The Response that says what the `chat.completion` of the same task says."""
    (choice, *_), usage = completion["choices"], completion["usage"]
    reason = _INCOMPLETE.get(choice["finish_reason"])
    status = "completed" if reason is None else "incomplete"
    body = _shell(spec, status)
    body["completed_at"] = int(finished_at.timestamp()) if reason is None else None
    body["incomplete_details"] = None if reason is None else {"reason": reason}
    body["output"] = [message_item(spec.task_id, status, choice["message"]["content"])]
    body["usage"] = {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": {
            "cached_tokens": usage["prompt_tokens_details"]["cached_tokens"],
            "cache_write_tokens": 0,
        },
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": usage["completion_tokens_details"]["reasoning_tokens"]},
        "total_tokens": usage["total_tokens"],
    }
    body["cope"] = completion["cope"]
    return body


def unfinished_response(spec: TaskSpec, status: str, *, error: ErrorInfo | None = None) -> Json:
    """A Response without an answer: ``queued``, ``in_progress``, ``cancelled`` or ``failed``. OpenAI's list of error
    codes is short; ours stands in the `cope` block."""
    body = _shell(spec, status)
    if error is not None and status == "failed":
        body["error"] = {"code": _ERROR_CODES.get(error.status or 500, "server_error"), "message": error.message}
        body["cope"]["error"] = {"code": error.code, "param": error.param}
    return body


def message_item(task_id: TaskId, status: str, text: str | None) -> Json:
    """The one output item; without its content where `text` is None."""
    return {
        "id": MESSAGE + task_id.removeprefix(TASK),
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [] if text is None else [_text_part(text)],
    }


def _text_part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _shell(spec: TaskSpec, status: str) -> Json:
    form, options = spec.form or _PLAIN_FORM, spec.options
    labels = dict(form.labels)
    return {
        "id": response_id(spec.task_id),
        "object": "response",
        "created_at": made_at_s(spec.task_id),
        "status": status,
        "background": form.background,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": spec.problem.conversation[0].content if form.instructions else None,
        "max_output_tokens": options.max_tokens,
        "max_tool_calls": None,
        "metadata": dict(form.metadata),
        "model": spec.requested_model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": form.previous,
        "prompt_cache_key": labels.get("prompt_cache_key"),
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": labels.get("safety_identifier"),
        "service_tier": "default",
        "store": form.store,
        "temperature": options.temperature,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": options.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": labels.get("user"),
        "cope": {"task_id": spec.task_id},
    }


# ---- events --------------------------------------------------------------------------------------------------------


def webhook_type(state: TaskState, body: Json | None) -> str:
    """The event of a background response's end: ``response.completed``, ``incomplete``, ``failed`` or ``cancelled``."""
    incomplete = body is not None and body.get("status") == "incomplete"
    return f"response.{_EVENTS.get(state, 'incomplete' if incomplete else 'completed')}"


def opening_events(spec: TaskSpec) -> list[Json]:
    """The events before there is an answer. The same task gives the same events with the same numbers each time, so a
    stream can be resumed after any of them."""
    background = spec.form is not None and spec.form.background
    waits = unfinished_response(spec, "queued" if background else "in_progress")
    names = ["created", "queued"] if background else ["created"]
    events = [{"type": f"response.{name}", "response": waits} for name in names]
    events.append({"type": "response.in_progress", "response": unfinished_response(spec, "in_progress")})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def closing_events(response: Json, task_id: TaskId, *, first: int) -> Iterator[Json]:
    """The events of an ended response, numbered from `first`: its text in pieces, then how it ended."""
    number = first
    for event in _closing(response, task_id):
        yield {**event, "sequence_number": number}
        number += 1


def _closing(response: Json, task_id: TaskId) -> Iterator[Json]:
    if not response["output"]:
        yield {"type": "response.failed", "response": response}
        return
    (item,) = response["output"]
    (part,) = item["content"]
    text, at = part["text"], {"item_id": item["id"], "output_index": 0, "content_index": 0}
    begun = message_item(task_id, "in_progress", None)
    yield {"type": "response.output_item.added", "output_index": 0, "item": begun}
    yield {"type": "response.content_part.added", **at, "part": _text_part("")}
    for start in range(0, len(text), PIECE):
        yield {"type": "response.output_text.delta", **at, "delta": text[start : start + PIECE], "logprobs": []}
    yield {"type": "response.output_text.done", **at, "text": text, "logprobs": []}
    yield {"type": "response.content_part.done", **at, "part": part}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": f"response.{response['status']}", "response": response}
