"""What the caller asks of a helper and what it answers: one JSON object a line, both ways."""

import json
from dataclasses import asdict, dataclass

from cope.core.problem import Kind


@dataclass(frozen=True, slots=True)
class KeyOf:
    """The canonical key of one answer: a string, or None where it can't be read."""

    kind: Kind
    answer: str


@dataclass(frozen=True, slots=True)
class Find:
    """The last match of a caller's regular expression in a text: a string, or None."""

    pattern: str
    text: str


@dataclass(frozen=True, slots=True)
class Grade:
    """Whether math-verify takes `answer` for `gold`: a bool."""

    gold: str
    answer: str


Request = KeyOf | Find | Grade
Value = str | bool | None


@dataclass(frozen=True, slots=True)
class Reply:
    """`tired`: the helper ran out of memory over it and wants to be replaced."""

    value: Value
    tired: bool = False


READY = b'{"state":"ready"}\n'
"""Sent once, when the helper can work."""
LOADING = b'{"state":"loading"}\n'
"""A heavy import comes first; its time is not the answer's."""
WORKING = b'{"state":"working"}\n'
"""The import is done: the answer's own time begins."""

_OPERATIONS: dict[str, type[KeyOf] | type[Find] | type[Grade]] = {"key": KeyOf, "find": Find, "grade": Grade}


def encode_request(request: Request) -> bytes:
    """One line."""
    operation = next(name for name, made in _OPERATIONS.items() if isinstance(request, made))
    return json.dumps({"op": operation, **asdict(request)}).encode() + b"\n"


def decode_request(line: bytes) -> Request:
    """Raises `KeyError`, `TypeError` or `ValueError` for a line that `encode_request` did not make."""
    fields = json.loads(line)
    made = _OPERATIONS[fields.pop("op")]
    if made is KeyOf:
        return KeyOf(Kind(fields["kind"]), fields["answer"])
    return made(**fields)


def encode_reply(reply: Reply) -> bytes:
    """One line."""
    return json.dumps({"value": reply.value, "tired": reply.tired}).encode() + b"\n"


def decode_reply(line: bytes) -> Reply:
    """Raises `KeyError` or `ValueError` for a line that `encode_reply` did not make."""
    fields = json.loads(line)
    return Reply(fields["value"], fields["tired"])
