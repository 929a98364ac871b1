"""Reading single values of a request, each refusal naming its place."""

from collections.abc import Mapping, Sequence
from typing import cast

from cope.core.errors import BadRequest
from cope.core.money import NanoUSD, parse_usd


def as_mapping(value: object, param: str) -> Mapping[str, object]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise BadRequest(f"`{param}` must be an object.", param=param)
    return cast("Mapping[str, object]", value)


def as_text(value: object, param: str, *, longest: int, allow_empty: bool = False) -> str:
    """A string of 1 (or 0) to `longest` characters without NUL."""
    if not isinstance(value, str) or (not value and not allow_empty):
        raise BadRequest(f"`{param}` must be a non-empty string.", param=param)
    if len(value) > longest or "\x00" in value:
        raise BadRequest(f"`{param}` must have at most {longest} characters and no NUL.", param=param)
    return value


def as_text_list(value: object, param: str, *, fewest: int, most: int) -> tuple[str, ...]:
    """A list of `fewest` to `most` non-empty strings."""
    if not isinstance(value, list) or not fewest <= len(value) <= most:
        raise BadRequest(f"`{param}` must be a list of {fewest} to {most} strings.", param=param)
    return tuple(as_text(item, f"{param}[{i}]", longest=10_000) for i, item in enumerate(value))


def as_int(value: object, param: str, *, low: int, high: int) -> int:
    """A whole number in [low, high]; booleans and floats are refused."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadRequest(f"`{param}` must be a whole number from {low} to {high}.", param=param)
    return value


def as_bool(value: object, param: str) -> bool:
    """true or false, and nothing that looks like it."""
    if not isinstance(value, bool):
        raise BadRequest(f"`{param}` must be true or false.", param=param)
    return value


def as_number(value: object, param: str, *, low: float, high: float, open_low: bool = False) -> float:
    """A number in [low, high], or (low, high] with `open_low`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise BadRequest(f"`{param}` must be a number from {low} to {high}.", param=param)
    if open_low and value == low:
        raise BadRequest(f"`{param}` must be above {low}.", param=param)
    return float(value)


def as_usd(value: object, param: str) -> NanoUSD:
    """An amount of dollars as decimal text, or a whole number. Fractions as JSON numbers are refused: they are floats,
    and a float is not money."""
    if isinstance(value, float):
        raise BadRequest(
            f'`{param}` must be written as text, such as "0.002": JSON fractions are inexact.', param=param
        )
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise BadRequest(f'`{param}` must be an amount of dollars as text, such as "0.002".', param=param)
    try:
        return parse_usd(text)
    except ValueError as wrong:
        raise BadRequest(f"`{param}`: {wrong}.", param=param) from None


def as_metadata(value: object, param: str) -> tuple[tuple[str, str], ...] | None:
    """Up to 16 pairs: keys of up to 64 characters, texts of up to 512. None where nothing was given."""
    if value is None:
        return None
    given = as_mapping(value, param)
    if len(given) > 16:
        raise BadRequest(f"`{param}` holds at most 16 pairs.", param=param)
    for key, text in given.items():
        if len(key) > 64 or "\x00" in key or not isinstance(text, str) or len(text) > 512 or "\x00" in text:
            raise BadRequest(
                f"`{param}` maps keys of up to 64 characters to texts of up to 512, without NUL.", param=param
            )
    return tuple((key, cast("str", text)) for key, text in given.items())


def as_choice(value: object, param: str, allowed: Sequence[str]) -> str:
    """One of `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise BadRequest(f"`{param}` must be one of {', '.join(str(a) for a in allowed)}.", param=param)
    return value
