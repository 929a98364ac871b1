r"""From one mathematical answer to its canonical key: lists, sets, tuples, intervals, matrices and relations here,
single expressions through `Leaves`.

What is equal, decided once (equality of keys is an equivalence whatever is decided here):
- A bare list is unordered: `1,-2`, `-2 and 1` and `\{1,-2\}` are one class, `(1,-2)` another, `[1,-2]` a third. `(1,2)`
  may be a pair or an open interval: written the same, it is the same class. A set or list of one is its member.
- `x = 5`, `f(x) = 5` and `5` are one class (so `y = 5` too): the left side is a name for what was asked. This holds for
  `y = 2x + 3` and `2x + 3`; other equations are compared up to a factor, solved for y if they are linear in it.
- `x \in S` is `S`; an inequality in one variable is its interval; `a \pm b` is the list of both.
- A column is not a row and not a tuple. Words are compared without case.
"""

import json
import re
from fractions import Fraction
from typing import Protocol

from cope.core.answers import bounds, latex, matrices, split, words
from cope.core.answers.expression import (
    FUNCTIONS,
    Expression,
    NotAnExpression,
    Number,
    Op,
    Symbol,
    free_symbols,
    parse_expression,
)
from cope.core.answers.limits import MAX_DEPTH, MAX_MEMBERS
from cope.core.answers.model import Unreadable

_NAME = r"(?:[A-Za-z]|\\[A-Za-z]+)(?:_(?:\w|\{[\w,\s]+\}))?'?"
_SYMBOL = re.compile(_NAME)
_CALL = re.compile(rf"{_NAME}\s*\(\s*[\w\\]+(?:\s*,\s*[\w\\]+)*\s*\)")
_NAMES_TUPLE = re.compile(rf"\(\s*{_NAME}(?:\s*,\s*{_NAME})+\s*\)")
_LABEL = re.compile(r"\\text\{[^{}]*\}|[A-Z]{2,4}|[A-Za-z]{3,}(?: [A-Za-z]+)*|(?:m\s*)?\\angle\s*[A-Z]{1,3}")
_LETTER = re.compile(r"\(?([A-Z])[).:]?|\(([a-z])\)")
_INFINITY = re.compile(r"([+-]?)\s*(?:\\infty|[Ii]nfinity)")
_CASES = re.compile(r"\\begin\{d?cases\}(.*)\\end\{d?cases\}", re.DOTALL)
_ALL_REALS = frozenset({"all real numbers", "all reals", "the real numbers", "real numbers"})
_MEMBERSHIP = re.compile(rf"{_NAME}\s*\\in(?![A-Za-z])\s*(.+)", re.DOTALL)
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![A-Za-z])")
_HALF_OF_DAY = re.compile(r"\b([ap])\.\s*m\b", re.IGNORECASE)
_COMMA = frozenset({","})
_EQUALS = frozenset({"=", r"\approx"})
_ORDER = {"<": (False, True), r"\le": (False, False), ">": (True, True), r"\ge": (True, False)}
_RELATIONS = _EQUALS | _ORDER.keys() | {r"\ne"}


class Leaves(Protocol):
    """What a single expression is worth: the caller's process knows rationals, the helper everything."""

    def value(self, node: Expression) -> str:
        """The key of an expression."""
        ...

    def equation(self, difference: Expression) -> str:
        """The key of `difference = 0`."""
        ...

    def other(self, text: str) -> str | None:
        """The key of LaTeX that `expression` does not know (a sum, an integral), or None: it stays text."""
        ...


def structural_key(answer: str, leaves: Leaves) -> str:
    """The canonical key of one answer. Raises `Unreadable`, and whatever `leaves` raises."""
    text = latex.clean(answer)
    return _Reader(leaves).key(text)


def text_key(text: str) -> str:
    """A key for words: a JSON string, so that it can't be taken for a number or a list."""
    plain = re.sub(r"\\text\{([^{}]*)\}", r"\1", split.unmark_conjunctions(text))
    plain = _HALF_OF_DAY.sub(r"\1m", " ".join(plain.split())).strip(" .\"'")
    if "\\" in plain or re.search(r"\d", plain):
        plain = plain.replace(" ", "")
    return json.dumps(plain if "\\" in plain else plain.casefold(), ensure_ascii=False)


class _Reader:
    def __init__(self, leaves: Leaves) -> None:
        self._leaves = leaves
        self._depth = 0

    def key(self, text: str) -> str:
        members = self._members(text)
        return members[0] if len(members) == 1 else "{" + "; ".join(sorted(members)) + "}"

    def _members(self, text: str) -> list[str]:
        """One key, or those of an unordered list (none for the empty set)."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")
        members = self._members_of(text)
        self._depth -= 1
        if len(members) > MAX_MEMBERS:
            raise Unreadable("too many members")
        return members

    def _members_of(self, text: str) -> list[str]:
        text = latex.unwrap(text)
        inner = latex.whole_text(text)
        if inner is not None:
            text = latex.clean(inner)
        if not text:
            raise Unreadable("empty")
        letter = _LETTER.fullmatch(text)
        if letter and (letter[1] or letter[2] not in {"e", "i"}):
            return [letter[1] or letter[2]]
        if infinity := _INFINITY.fullmatch(text):
            return ["-oo" if infinity[1] == "-" else "oo"]
        if text.casefold() in _ALL_REALS:
            return ["(-oo; oo)"]
        if system := _CASES.fullmatch(text):  # x = 1 over y = 2: one list
            text = ", ".join(row for row in split.outermost(system[1].replace("&", ""), frozenset({r"\cr"}))[0] if row)
        text = split.mark_conjunctions(text)
        parts, separators = split.list_parts(text)
        if len(parts) > 1:
            return self._list(parts, separators)
        text = parts[0]
        if words.is_prose(text, marked=inner is not None):
            return [text_key(text)]
        if text == r"\emptyset":
            return []
        around = split.enclosed(text)
        braces = around and (around[0], around[2])
        # A set's backslash is easily lost: braces around a list are a set, around anything else a group.
        if around and (braces == (r"\{", r"\}") or (braces == ("{", "}") and split.outermost(around[1], _COMMA)[1])):
            return self._set(around[1])
        if _PLUS_MINUS.search(text):
            return [key for variant in _signs(text) for key in self._members(variant)]
        return self._single(text, around)

    def _list(self, parts: list[str], separators: frozenset[str]) -> list[str]:
        if not all(parts):
            raise Unreadable("a list with an empty place")
        sides = [split.outermost(part, _RELATIONS) for part in parts]
        if any(not _EQUALS.issuperset(ops) for _, ops in sides):
            if separators == {"or"}:
                return [_union([self.key(part) for part in parts])]
            if separators == {"and"} and (both := self._both(parts, sides)):
                return [both]
            return [text_key(" , ".join(parts))]
        names = [pieces[0] for pieces, ops in sides if len(ops) == 1 and _SYMBOL.fullmatch(pieces[0])]
        if len(names) == len(parts) and len(set(names)) == len(names):
            # x=1, y=2 names its members: their order does not matter, their names do.
            return [
                "[" + "; ".join(sorted(f"{pieces[0]}={self.key(pieces[1])}" for pieces, _ in sides)) + "]",
            ]
        return [key for part in parts for key in self._members(part)]

    def _both(self, parts: list[str], sides: list[tuple[list[str], list[str]]]) -> str | None:
        """The interval of two inequalities in one variable."""
        names = frozenset[str]().union(*(bounds.variables(side) for pieces, _ in sides for side in pieces))
        return bounds.meet(self.key(parts[0]), self.key(parts[1])) if len(parts) == 2 and len(names) == 1 else None

    def _set(self, inside: str) -> list[str]:
        if not inside:
            return []
        parts, separators = split.outermost(inside, frozenset({",", ";"}))
        built = ":" in inside or "|" in inside or bool(split.outermost(inside, _RELATIONS)[1])
        if built and not separators:  # a set by its property, {x : x > 3}, stays text
            return [text_key(rf"\{{{inside}\}}")]
        return list(dict.fromkeys(key for part in parts for key in self._members(part)))

    def _single(self, text: str, around: tuple[str, str, str] | None) -> list[str]:
        if member := _MEMBERSHIP.fullmatch(text):
            return self._members(member[1])
        pieces, cups = split.outermost(text, frozenset({r"\cup"}))
        if cups:
            return [_union([self.key(piece) for piece in pieces])]
        inside = around[1] if around and around[0] in {"(", "["} else text
        if (rows := matrices.rows_of(inside)) is not None:
            return [_matrix_key([[self.key(cell) for cell in row] for row in rows])]
        sides, ops = split.outermost(text, _RELATIONS)
        if ops:
            return self._relation(text, sides, ops)
        if (cells := matrices.computed(text)) is not None:
            return [_matrix_key([[self._leaves.value(cell) for cell in row] for row in cells])]
        if around and around[0] in {"(", "[", r"\langle"}:
            parts, commas = split.outermost(around[1], frozenset({",", ";"}))
            if commas:
                opener, closer = ("(", ")") if around[0] == r"\langle" else (around[0], around[2])
                return [opener + "; ".join(self.key(part) for part in parts) + closer]
            if (around[0], around[2]) == ("(", ")"):
                return self._members(around[1])
        if text in {r"\mathbb{R}", r"\mathbf{R}", r"\R"}:
            return ["(-oo; oo)"]
        return [self._leaf(text)]

    def _leaf(self, text: str) -> str:
        bare, scale = words.strip_units(text)
        try:
            if words.has_words(bare):
                raise NotAnExpression("words")
            node = parse_expression(bare)
        except NotAnExpression:
            return self._leaves.other(text) or text_key(text)
        return self._leaves.value(node if scale == 1 else Op("mul", (node, Number(scale))))

    def _relation(self, text: str, sides: list[str], ops: list[str]) -> list[str]:
        if not all(sides[1:]):
            raise Unreadable("a relation with an empty side")
        if not _EQUALS.issuperset(ops):
            return [self._inequality(sides, ops) or text_key(text)]
        sides = _exact_sides(sides, ops)
        if len(sides) == 1:
            return self._members(sides[0])
        left, right = sides[0], sides[-1]
        if len(sides) == 2 and _NAMES_TUPLE.fullmatch(left):
            return self._members(right)
        if not left or _is_name(left, right):
            return self._members(right)
        if _constant(left) and (len(sides) > 2 or _SYMBOL.fullmatch(right) or not bounds.variables(right)):
            return self._members(left if _SYMBOL.fullmatch(right) else right)  # 5 = x is x = 5; 7 = 11a + c is neither
        if len(sides) > 2:
            return [text_key(text)]
        try:
            difference = Op("sub", (parse_expression(left), parse_expression(right)))
        except NotAnExpression:
            return [text_key(text)]
        return [self._leaves.equation(difference)]

    def _inequality(self, sides: list[str], ops: list[str]) -> str | None:
        """The interval of `a < x \\le b`, `x > a` or `x \\ne a`; None where it is anything else."""
        at = next((place for place, side in enumerate(sides) if _SYMBOL.fullmatch(side)), None)
        if at is None or any(not self._is_bound(side) for place, side in enumerate(sides) if place != at):
            return _solved(sides, ops)
        if ops == [r"\ne"]:
            bound = self.key(sides[1 - at])
            return _union([f"(-oo; {bound})", f"({bound}; oo)"])
        if r"\ne" in ops or len({_ORDER.get(op, (None,))[0] for op in ops}) != 1 or ops[0] in _EQUALS:
            return None
        if _ORDER[ops[0]][0]:
            sides, ops, at = sides[::-1], [{">": "<", r"\ge": r"\le"}[op] for op in ops[::-1]], len(sides) - 1 - at
        if len(sides) > 3 or (len(sides) == 3 and at != 1):
            return None
        low, high = ("(", "-oo"), ("oo", ")")
        if at > 0:
            low = ("(" if _ORDER[ops[at - 1]][1] else "[", self.key(sides[at - 1]))
        if at < len(sides) - 1:
            high = (self.key(sides[at + 1]), ")" if _ORDER[ops[at]][1] else "]")
        return f"{low[0] if low[1] != '-oo' else '('}{low[1]}; {high[0]}{high[1] if high[0] != 'oo' else ')'}"

    @staticmethod
    def _is_bound(side: str) -> bool:
        return bool(_INFINITY.fullmatch(side)) or _constant(words.strip_units(side)[0])


def _solved(sides: list[str], ops: list[str]) -> str | None:
    """The interval of an inequality, or a chain of two, that is linear in its one variable."""
    if len(sides) == 3 and ops[0] in _ORDER and ops[1] in _ORDER:
        if _ORDER[ops[0]][0] != _ORDER[ops[1]][0] or len(frozenset[str]().union(*map(bounds.variables, sides))) != 1:
            return None
        rays = _solved(sides[:2], ops[:1]), _solved(sides[1:], ops[1:])
        return bounds.meet(rays[0], rays[1]) if rays[0] and rays[1] else None
    if len(sides) != 2 or ops[0] not in _ORDER or (found := bounds.linear_bound(*sides)) is None:
        return None
    (bound, falls), (greater, strict) = found, _ORDER[ops[0]]
    if greater != falls:
        return f"{'(' if strict else '['}{number_key(bound)}; oo)"
    return f"(-oo; {number_key(bound)}{')' if strict else ']'}"


def _matrix_key(cells: list[list[str]]) -> str:
    return "matrix[" + " | ".join("; ".join(row) for row in cells) + "]"


def _exact_sides(sides: list[str], ops: list[str]) -> list[str]:
    """What stands before the first approximation, if that is more than a name: `x = 1/3 \\approx 0.33` says 1/3."""
    if r"\approx" not in ops:
        return sides
    before = sides[: ops.index(r"\approx") + 1]
    named = len(before) == 1 and (not before[0] or _is_name(before[0], sides[-1]))
    return sides if named else before


def _union(keys: list[str]) -> str:
    members: set[str] = set()
    for key in keys:
        if key.startswith("union[") and key.endswith("]"):
            members.update(key[len("union[") : -1].split(" | "))
        else:
            members.add(key)
    return next(iter(members)) if len(members) == 1 else "union[" + " | ".join(sorted(members)) + "]"


def _is_name(left: str, right: str) -> bool:
    """Whether `left = right` only names `right`: a symbol not occurring in it, `f(x)`, `\\text{Area}`, `AB`."""
    if _SYMBOL.fullmatch(left):
        try:
            node, value = parse_expression(left), parse_expression(words.strip_units(right)[0])
        except NotAnExpression:
            return True
        return isinstance(node, Symbol) and node.name not in free_symbols(value)
    return bool(_CALL.fullmatch(left) or (_LABEL.fullmatch(left) and left not in FUNCTIONS))


def _constant(text: str) -> bool:
    try:
        return not free_symbols(parse_expression(text))
    except NotAnExpression:
        return False


def _signs(text: str) -> list[str]:
    r"""Every reading of `\pm`: independent signs, or opposite ones where there is a `\mp`. At most three of them."""
    places = _PLUS_MINUS.findall(text)
    if len(places) > 3:
        raise Unreadable(r"more than three \pm")
    if "mp" in places:
        signs = [["+" if (place == "pm") is upper else "-" for place in places] for upper in (True, False)]
    else:
        signs = [["+-"[number >> place & 1] for place in range(len(places))] for number in range(2 ** len(places))]
    variants = []
    for chosen in signs:
        left = iter(chosen)
        variants.append(_PLUS_MINUS.sub(lambda _, left=left: next(left), text))  # type: ignore[misc]
    return variants


def number_key(value: Fraction) -> str:
    """`42`, `-7/3`; very long numbers in hexadecimal (Python refuses to print more than 4,300 decimal digits)."""
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > 4_096:
        return f"{value.numerator:x}/{value.denominator:x}h"
    return str(value)
