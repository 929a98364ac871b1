"""Cutting cleaned LaTeX at its outermost level: separators, relations and brackets. Linear in the text."""

import re
from collections.abc import Iterator

from cope.core.answers.limits import MAX_DEPTH
from cope.core.answers.model import Unreadable

_UNIT = re.compile(r"\\[A-Za-z]+|\\.|.", re.DOTALL)
_OPENERS = frozenset({"(", "[", "{", r"\{", r"\langle", r"\begin", r"\lfloor", r"\lceil"})
_CLOSERS = frozenset({")", "]", "}", r"\}", r"\rangle", r"\end", r"\rfloor", r"\rceil"})
_CONJUNCTION = re.compile(
    r"(?:,\s*)?\\text\{\s*,?\s*(and|or)\s*\}|(?:,\s*)?(?<![A-Za-z\\])(and|or)(?![A-Za-z])|(?:,\s*)?\\(lor|vee|land|wedge)(?![A-Za-z])"
)
_GROUPED = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
_AND, _OR = r"\sepand", r"\sepor"


def units(text: str) -> Iterator[tuple[str, int, int]]:
    """Every TeX unit with its start and its depth (an opener has the outer depth). Raises `Unreadable` if unbalanced.

    `(` and `[` close each other's brackets: `(3,4]` is an interval.
    """
    depth = 0
    for found in _UNIT.finditer(text):
        unit = found.group()
        if unit in _CLOSERS:
            depth -= 1
        yield unit, found.start(), depth
        if unit in _OPENERS:
            depth += 1
        if depth < 0 or depth > MAX_DEPTH:
            raise Unreadable("brackets do not match, or are nested too deeply")
    if depth:
        raise Unreadable("brackets do not match")


def outermost(text: str, separators: frozenset[str]) -> tuple[list[str], list[str]]:
    """The stripped parts between outermost separators, and those separators."""
    parts: list[str] = []
    found: list[str] = []
    start = 0
    for unit, at, depth in units(text):
        if depth == 0 and unit in separators:
            parts.append(text[start:at].strip())
            found.append(unit)
            start = at + len(unit)
    parts.append(text[start:].strip())
    return parts, found


def mark_conjunctions(text: str) -> str:
    r"""`\text{ and }`, `or` and the like as separators of their own (with the comma before them)."""
    return _CONJUNCTION.sub(lambda m: f" {_OR if (m[1] or m[2] or m[3]) in {'or', 'lor', 'vee'} else _AND} ", text)


def unmark_conjunctions(text: str) -> str:
    """The words back, for text that stays text."""
    return text.replace(_AND, "and").replace(_OR, "or")


def list_parts(text: str) -> tuple[list[str], frozenset[str]]:
    r"""A bare list's members and the separators used: `1,-2`, `3 and 5`, `x=1 or x=2`.

    A comma between groups of three digits with no space is a thousands separator (`58,500`), but never inside brackets
    (`(1,234)` is a pair).
    """
    if "(" not in text and "[" not in text and r"\{" not in text:
        text = _GROUPED.sub(lambda m: m.group().replace(",", ""), text)
    parts, found = outermost(text, frozenset({",", ";", _AND, _OR}))
    return parts, frozenset("or" if unit == _OR else "and" if unit == _AND else "," for unit in found)


def enclosed(text: str) -> tuple[str, str, str] | None:
    """Opener, inside and closer, if one pair of brackets encloses the whole text; None otherwise."""
    spots = list(units(text))
    if len(spots) < 2 or spots[0][0] not in _OPENERS or spots[-1][0] not in _CLOSERS:
        return None
    if any(depth == 0 for _, _, depth in spots[1:-1]):
        return None
    opener, closer = spots[0][0], spots[-1][0]
    return opener, text[len(opener) : -len(closer)].strip(), closer
