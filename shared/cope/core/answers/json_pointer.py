"""The last JSON value in a text, and RFC 6901 pointers into it."""

import re

from cope.core.answers.json_text import parse_json, parse_json_at

_FENCE = re.compile(r"```[A-Za-z]*[ \t]*\n(.*?)```", re.DOTALL)
_OPENING = re.compile(r"[{\[]")
_MAX_FAILURES = 64
"""Openings tried in vain before giving up: it bounds the work on text full of brackets."""


def last_json_value(text: str) -> object:
    """The value of the whole text, else of the last fenced block that is JSON, else the last object or array in it.

    Raises `LookupError` where there is none.
    """
    for written in (text, *reversed(_FENCE.findall(text)[-_MAX_FAILURES:])):
        try:
            return parse_json(written.strip())
        except ValueError:
            continue
    found: list[object] = []
    at, failures = 0, 0
    while failures < _MAX_FAILURES and (opening := _OPENING.search(text, at)):
        try:
            value, at = parse_json_at(text, opening.start())
            found = [value]
        except ValueError:
            failures += 1
            at = opening.start() + 1
    if not found:
        raise LookupError("no JSON value")
    return found[0]


def check_pointer(pointer: str) -> None:
    """Raises `ValueError` unless `pointer` is one of RFC 6901: empty, or tokens that each begin with a slash."""
    if pointer and not pointer.startswith("/"):
        raise ValueError("a pointer is empty or begins with '/'")
    if len(pointer) > 1_000:
        raise ValueError("a pointer has at most 1000 characters")
    if re.search(r"~(?![01])", pointer):
        raise ValueError("in a pointer '~' is written '~0'")


def resolve(value: object, pointer: str) -> object:
    """The value at `pointer`. Raises `LookupError` where there is none."""
    for written in pointer.split("/")[1:]:
        token = written.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value[token]
        elif isinstance(value, list) and re.fullmatch(r"0|[1-9]\d{0,8}", token, re.ASCII):
            value = value[int(token)]
        else:
            raise LookupError(pointer)
    return value
