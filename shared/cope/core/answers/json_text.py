"""Canonical JSON, so that two writings of one value are one string."""

import json
import unicodedata
from decimal import Decimal, InvalidOperation

from cope.core.answers.model import Unreadable


def parse_json(text: str) -> object:
    """A JSON value with exact numbers. Raises `ValueError` (also for NaN, infinities and nesting beyond Python's)."""
    try:
        return _DECODER.decode(text)
    except (RecursionError, InvalidOperation):
        raise ValueError("not JSON that can be read") from None


def parse_json_at(text: str, start: int) -> tuple[object, int]:
    """The JSON value that begins at `start` and the index after it. Raises `ValueError` as `parse_json` does."""
    try:
        return _DECODER.raw_decode(text, start)
    except (RecursionError, InvalidOperation):
        raise ValueError("not JSON that can be read") from None


def canonical_json(value: object) -> str:
    """Sorted keys, no spaces, NFC strings, numbers by value (1.0 is 1, 1e2 is 100). Of doubled keys the last has won.

    Raises `Unreadable` for nesting beyond Python's.
    """
    try:
        return _write(value)
    except RecursionError:
        raise Unreadable("nested too deeply") from None


def _write(value: object) -> str:
    match value:
        case Decimal():
            return _number(value)
        case dict():
            members = sorted((_string(str(name)), _write(item)) for name, item in value.items())
            return "{" + ",".join(f"{name}:{item}" for name, item in members) + "}"
        case list():
            return "[" + ",".join(_write(item) for item in value) + "]"
        case str():
            return _string(value)
        case _:
            return json.dumps(value)


def _string(text: str) -> str:
    return json.dumps(unicodedata.normalize("NFC", text), ensure_ascii=False)


def _number(value: Decimal) -> str:
    """Exact: the context's precision, which `Decimal.normalize` rounds to, is not touched."""
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)  # NaN and infinities were refused when reading
    written = "".join(map(str, digits)).lstrip("0")
    stripped = written.rstrip("0")
    if not stripped:
        return "0"
    exponent += len(written) - len(stripped)
    minus = "-" if sign else ""
    # Expanding 1e999999999 would be an attack; within 300 places it is what people read.
    if 0 <= exponent <= 300:
        return minus + stripped + "0" * exponent
    if -300 <= exponent < 0:
        stripped = stripped.zfill(1 - exponent)
        return f"{minus}{stripped[:exponent]}.{stripped[exponent:]}"
    return f"{minus}{stripped}e{exponent}"


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse)
