"""From a threshold to the votes it asks for, in exact fractions: ⌈0.56 · 25⌉ is 14, and a float would say 15."""

from enum import StrEnum
from fractions import Fraction
from math import ceil, floor

from cope.core.exact_text import exact_fraction


class ThresholdRule(StrEnum):
    """The paper's text says the ratio "exceeds" τ; both code bases it compares with accept at equality."""

    AT_LEAST = "at_least"
    EXCEEDS = "exceeds"


def parse_threshold(text: str | float) -> Fraction:
    """An exact fraction in [0, 1] from ``"0.75"``, ``"3/4"`` or a JSON number (read by its shortest decimal form).

    Raises `ValueError` for anything else.
    """
    if isinstance(text, bool):
        raise ValueError("a threshold is a number between 0 and 1")
    written = str(text)
    if len(written) > 32:
        raise ValueError("a threshold has at most 32 characters")
    try:
        value = exact_fraction(written)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{written!r} is not a number between 0 and 1") from None
    if not 0 <= value <= 1:
        raise ValueError(f"{written!r} is not between 0 and 1")
    return value


def votes_needed(tau: Fraction, n: int, rule: ThresholdRule) -> int:
    """Votes that accept: ⌈τ·n⌉ for `at_least` (6 of 8 at 0.75) and at least 1; ⌊τ·n⌋ + 1 for `exceeds`.

    A result of n + 1 (`exceeds` at τ = 1) can never be reached: everything escalates.
    """
    if rule is ThresholdRule.AT_LEAST:
        return max(1, ceil(tau * n))
    return floor(tau * n) + 1
