"""From a Responses body to the chat body of the same task, so that both share one parser, its limits and its refusals.

What a cascade can't honour is refused by name here, where it is named otherwise than in a chat body.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from cope.core.errors import BadRequest, NotAvailableYet
from cope.core.problem import Message
from cope.core.request import MAX_MESSAGES, ParsedRequest, RequestParser
from cope.core.request_values import as_int, as_mapping, as_metadata, as_text
from cope.core.responses.form import Pairs, ResponseForm
from cope.core.task import StoreLevel

_PLAIN_FORM = ResponseForm()
_SHARED = ("model", "temperature", "top_p", "cope")
_LABELS = ("user", "safety_identifier", "prompt_cache_key")
_OWN = frozenset({*_SHARED, *_LABELS, "input", "instructions", "max_output_tokens", "metadata", "store", "background"})
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "stream": (False, None),
    "stream_options": (None, {}, {"include_obfuscation": False}),
    "tools": (None, []),
    "tool_choice": (None, "auto", "none"),
    "max_tool_calls": (None,),
    "parallel_tool_calls": (None, True, False),
    "include": (None, []),
    "top_logprobs": (None, 0),
    "truncation": (None, "disabled"),
    "service_tier": (None, "auto", "default"),
    "reasoning": (None, {}, {"effort": None}, {"effort": None, "summary": None}),
    "conversation": (None,),
    "context_management": (None, []),
    "prompt": (None,),
    "prompt_cache_retention": (None,),
    "prompt_cache_options": (None,),
    "background_options": (None, {}),
    "moderation": (None,),
    "image": (None,),
    "access_programs": (None,),
}
_ROLES = frozenset({"user", "assistant", "system", "developer"})
_ITEM_KEYS = frozenset({"type", "role", "content", "id", "status", "phase"})
_PART_KEYS = frozenset({"type", "text", "annotations", "logprobs"})
_PART_TYPES = frozenset({"input_text", "output_text", "text"})
_PARAMS = {"messages": "input", "max_tokens": "max_output_tokens"}


@dataclass(frozen=True, slots=True)
class Earlier:
    """The response that `previous_response_id` names: its conversation without its instructions, its answer last."""

    id: str
    conversation: tuple[Message, ...]


def parse_response(
    parser: RequestParser, body: Mapping[str, object], *, earlier: Earlier | None = None, live: bool = True
) -> ParsedRequest:
    """The request in a Responses body. `earlier` is what its `previous_response_id` was found to be; a line of a batch
    (`live` False) has none, and nobody to wait for it in the background. Raises `BadRequest` with a dotted `param`."""
    if len(body) == 2 and "model" in body and isinstance(body.get("input"), str):
        form = _PLAIN_FORM
        chat: Mapping[str, object] = {"model": body["model"], "messages": _input(body["input"])}
    else:
        form, chat = _translate(body, earlier, live=live)
    try:
        request = parser.parse(chat)._replace(form=form)
    except BadRequest as wrong:
        raise type(wrong)(wrong.message, param=_PARAMS.get(wrong.param or "", wrong.param), code=wrong.code) from None
    if not form.store and not _says(body.get("cope"), "store"):
        return request._replace(store=StoreLevel.NONE)
    return request


def _translate(
    body: Mapping[str, object], earlier: Earlier | None, *, live: bool
) -> tuple[ResponseForm, dict[str, object]]:
    _refuse_unsupported(body, live=live)
    instructions = body.get("instructions")
    messages = [] if instructions is None else [_instructions(instructions)]
    messages += [{"role": m.role, "content": m.content} for m in (() if earlier is None else earlier.conversation)]
    messages += _input(body.get("input"))
    if len(messages) > MAX_MESSAGES:
        raise BadRequest(f"The conversation holds over {MAX_MESSAGES} messages.", param="input")
    chat: dict[str, object] = {key: body[key] for key in _SHARED if key in body}
    chat["messages"] = messages
    if body.get("max_output_tokens") is not None:
        limit = as_int(body["max_output_tokens"], "max_output_tokens", low=1, high=1_000_000)
        chat["max_tokens"] = limit
    form = ResponseForm(
        instructions=instructions is not None,
        previous=None if earlier is None else earlier.id,
        metadata=as_metadata(body.get("metadata"), "metadata") or (),
        store=_flag(body, "store", default=True),
        background=_flag(body, "background", default=False),
        labels=_labels(body),
    )
    if form.background and not form.store:
        raise BadRequest("`background` needs `store`: it could not be asked for again otherwise.", param="store")
    return form, chat


def _refuse_unsupported(body: Mapping[str, object], *, live: bool) -> None:
    for name, value in body.items():
        if name in _OWN:
            continue
        if name == "previous_response_id":
            _previous(value, live=live)
        elif name == "text":
            _text_config(value)
        elif name not in _NEUTRAL:
            raise BadRequest(f"Unknown field `{name}`.", param=name, code="unknown_parameter")
        elif not any(type(value) is type(plain) and value == plain for plain in _NEUTRAL[name]):
            raise _unsupported(name)
    if not live and body.get("background"):
        raise BadRequest("`background` belongs to a live call: a batch's lines are no less in it.", param="background")


def _previous(value: object, *, live: bool) -> None:
    if value is not None and not live:
        raise BadRequest(
            "`previous_response_id` can't be honoured in a batch: give the whole conversation in `input`.",
            param="previous_response_id",
            code="unsupported_parameter",
        )


def _text_config(value: object) -> None:
    config = {} if value is None else as_mapping(value, "text")
    for name, setting in config.items():
        if name == "format":
            if setting is not None and as_mapping(setting, "text.format") != {"type": "text"}:
                raise NotAvailableYet('`text.format` may only be {"type": "text"}.', param="text.format")
        elif setting is not None:
            raise _unsupported(f"text.{name}")


def _unsupported(name: str) -> BadRequest:
    return BadRequest(
        f"`{name}` can't be honoured here, and is not ignored silently: remove it.",
        param=name,
        code="unsupported_parameter",
    )


def _instructions(value: object) -> dict[str, object]:
    return {"role": "developer", "content": as_text(value, "instructions", longest=16_000_000, allow_empty=True)}


def _input(value: object) -> list[dict[str, object]]:
    if isinstance(value, str):
        return [{"role": "user", "content": _clean(value, "input")}]
    if not isinstance(value, list) or not value:
        raise BadRequest("`input` must be text, or a non-empty list of message items.", param="input")
    if len(value) > MAX_MESSAGES:
        raise BadRequest(f"`input` holds over {MAX_MESSAGES} items.", param="input")
    return [_item(item, f"input[{place}]") for place, item in enumerate(value)]


def _item(item: object, where: str) -> dict[str, object]:
    if not isinstance(item, dict):
        raise BadRequest(f"`{where}` must be an object with `role` and `content`.", param=where)
    kind = item.get("type", "message")
    if kind != "message":
        raise BadRequest(
            f"`{where}.type` must be message: tool calls, reasoning and references can't be honoured here.",
            param=f"{where}.type",
        )
    role = item.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise BadRequest(f"`{where}.role` must be one of user, assistant, system, developer.", param=f"{where}.role")
    for name in item:
        if name not in _ITEM_KEYS or (name == "phase" and item[name] is not None):
            raise BadRequest(f"`{where}.{name}` can't be honoured here: remove it.", param=f"{where}.{name}")
    content = item.get("content")
    if isinstance(content, list):
        content = "".join(_part(part, f"{where}.content[{place}]") for place, part in enumerate(content))
    if not isinstance(content, str):
        raise BadRequest(f"`{where}.content` must be text, or a list of text parts.", param=f"{where}.content")
    return {"role": role, "content": _clean(content, f"{where}.content")}


def _part(part: object, where: str) -> str:
    kind, text = (part.get("type"), part.get("text")) if isinstance(part, dict) else (None, None)
    if not isinstance(kind, str) or kind not in _PART_TYPES or not isinstance(text, str):
        raise BadRequest(
            f"`{where}` must be a text part (input_text, output_text): images, audio and files can't be honoured here.",
            param=where,
        )
    for name in cast("dict[str, object]", part):
        if name not in _PART_KEYS:
            raise BadRequest(f"`{where}.{name}` can't be honoured here: remove it.", param=f"{where}.{name}")
    return text


def _clean(text: str, where: str) -> str:
    if "\x00" in text:
        raise BadRequest(f"`{where}` holds a NUL character.", param=where)
    return text


def _flag(body: Mapping[str, object], name: str, *, default: bool) -> bool:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise BadRequest(f"`{name}` must be true or false.", param=name)
    return value


def _labels(body: Mapping[str, object]) -> Pairs:
    return tuple((name, as_text(body[name], name, longest=512)) for name in _LABELS if body.get(name) is not None)


def _says(cope: Any, key: str) -> bool:
    return isinstance(cope, dict) and key in cope


def messages_of(conversation: Sequence[Message], form: ResponseForm) -> tuple[Message, ...]:
    """The conversation without the instructions."""
    return tuple(conversation[1:] if form.instructions else conversation)
