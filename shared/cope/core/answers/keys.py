"""Canonical answer keys: pure functions of one answer, so that equality is reflexive, symmetric and transitive.

`quick_key` answers in the caller's process wherever exact rational arithmetic of bounded size is enough; `symbolic`
(imported by the helper alone) goes through the same reader with the same conventions and knows the rest.
"""

import re
import unicodedata
from collections.abc import Callable

from cope.core.answers.actions import MAX_ACTION_CHARS, normalised_action
from cope.core.answers.exact import NotRational, TooBig, Undefined, rational
from cope.core.answers.expression import Expression, Symbol
from cope.core.answers.json_text import canonical_json, parse_json
from cope.core.answers.limits import MAX_EXACT_CHARS, MAX_MATH_CHARS, QUICK_BITS
from cope.core.answers.model import AnswerKey, HelperNeeded, Keyed, NeedsHelper, Unkeyable, Unreadable, shortened
from cope.core.answers.structure import Leaves, number_key, structural_key
from cope.core.problem import Kind

FOREIGN = re.compile(r"\\(?:sum|prod|int|lim|begin\{[vV]matrix\}|mod|bmod|pmod|gcd|lcm|max|min)(?![A-Za-z])")
"""LaTeX that only `latex2sympy2_extended` can read; everything else unknown stays text."""


class _QuickLeaves:
    """Rationals and single symbols; everything else needs the helper."""

    def value(self, node: Expression) -> str:
        if isinstance(node, Symbol):
            return node.name
        try:
            return number_key(rational(node, bits=QUICK_BITS))
        except Undefined:
            raise Unreadable("undefined") from None
        except (NotRational, TooBig):
            raise HelperNeeded from None

    def equation(self, difference: Expression) -> str:
        raise HelperNeeded

    def other(self, text: str) -> str | None:
        if FOREIGN.search(text):
            raise HelperNeeded
        return None


def quick_key(kind: Kind, answer: str) -> Keyed | Unkeyable | NeedsHelper:
    """The key of one answer, as far as the caller's process can tell; a few tens of microseconds, always bounded.

    Raises `ValueError` for kinds whose answers are not voted on by key.
    """
    try:
        return Keyed(canonical_key(kind, answer, _QuickLeaves()))
    except Unreadable as error:
        return Unkeyable(str(error))
    except HelperNeeded:
        return NeedsHelper()


def canonical_key(kind: Kind, answer: str, leaves: Leaves) -> AnswerKey:
    """The key of one answer. Raises `Unreadable`, and whatever `leaves` raises."""
    match kind:
        case Kind.MATH:
            return _bounded(answer, MAX_MATH_CHARS, lambda: structural_key(answer, leaves))
        case Kind.CHOICE:
            return _bounded(answer, MAX_EXACT_CHARS, lambda: _text(answer).casefold())
        case Kind.EXACT:
            return _bounded(answer, MAX_EXACT_CHARS, lambda: _exact(answer))
        case Kind.ACTION:
            return _bounded(answer, MAX_ACTION_CHARS, lambda: normalised_action(answer))
        case _:
            raise ValueError(f"answers of kind {kind.value} have no key")


def _bounded(answer: str, limit: int, make: Callable[[], str]) -> AnswerKey:
    if len(answer) > limit:
        raise Unreadable(f"longer than {limit} characters")
    try:
        key = make()
    except RecursionError:
        raise Unreadable("nested too deeply") from None
    if not key:
        raise Unreadable("empty")
    return shortened(key)


def _text(answer: str) -> str:
    """NFC, with every run of white space as one space. Case matters to kind `exact` and not to `choice`."""
    return " ".join(unicodedata.normalize("NFC", answer).split())


def _exact(answer: str) -> str:
    """Canonical JSON for an object, an array or a quoted string; normalised text otherwise (`007` is not `7`)."""
    written = answer.strip()
    if written[:1] in {"{", "[", '"'}:
        try:
            value = parse_json(written)
        except ValueError:
            return _text(answer)
        return _text(value) if isinstance(value, str) else canonical_json(value)
    return _text(answer)
