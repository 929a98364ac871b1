"""What a Response repeats of its request, kept with the task."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NewType

from cope.core.ids import TASK, TaskId

ResponseId = NewType("ResponseId", str)
RESPONSE, MESSAGE = "resp_", "msg_"
BACKGROUND_MARK = '"bg":true'
"""Stands in the payload of a task that runs in the background, and in no other: quotes in a caller's text are escaped,
and nothing else of a payload is `true`."""

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ResponseForm:
    """A task that was asked for as a Response. Never changes, but for `erased`.

    `instructions` says that the conversation's first message holds them: they are not handed on to the next response.
    `store` False: it can't be read back. `background`: nobody waits on the connection. `labels` are the caller's
    `user`, `safety_identifier` and `prompt_cache_key`. `erased`: the caller deleted it, and its texts are gone.
    """

    instructions: bool = False
    previous: str | None = None
    metadata: Pairs = ()
    store: bool = True
    background: bool = False
    labels: Pairs = ()
    erased: bool = False


def response_id(task_id: TaskId) -> ResponseId:
    """The Response's id: the task's under another prefix."""
    return ResponseId(RESPONSE + task_id.removeprefix(TASK))


def task_id_of(response: str) -> TaskId | None:
    """The inverse of `response_id`; None where it can't be one."""
    return TaskId(TASK + response.removeprefix(RESPONSE)) if response.startswith(RESPONSE) else None


def encode_form(form: ResponseForm) -> dict[str, Any]:
    """For the task's payload. The caller's pairs are lists: as keys they could pass for the payload's own."""
    data: dict[str, Any] = {}
    if form.instructions:
        data["in"] = 1
    if form.previous is not None:
        data["pr"] = form.previous
    if form.metadata:
        data["md"] = form.metadata
    if not form.store:
        data["ns"] = 1
    if form.background:
        data["bg"] = True
    if form.labels:
        data["lb"] = form.labels
    if form.erased:
        data["er"] = 1
    return data


def decode_form(data: Mapping[str, Any] | None) -> ResponseForm | None:
    """The inverse of `encode_form`; None for a task that is a chat completion."""
    if data is None:
        return None
    return ResponseForm(
        instructions="in" in data,
        previous=data.get("pr"),
        metadata=_pairs(data.get("md", ())),
        store="ns" not in data,
        background="bg" in data,
        labels=_pairs(data.get("lb", ())),
        erased="er" in data,
    )


def _pairs(data: list[list[str]] | tuple[()]) -> Pairs:
    return tuple((key, value) for key, value in data)
