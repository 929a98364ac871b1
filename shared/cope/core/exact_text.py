"""Exact numbers from a caller's text, without the caller choosing how long that takes."""

from decimal import Context, Decimal, DecimalException, InvalidOperation, Overflow, Underflow
from fractions import Fraction

_LONGEST = 64
# Digits enough for any text of `_LONGEST` characters, so that nothing is rounded on the way.
_EXACT = Context(prec=2 * _LONGEST, traps=[InvalidOperation, Overflow, Underflow])


def exact_fraction(text: str) -> Fraction:
    """``0.75``, ``3/4`` or ``7.5e-1``. Raises `ValueError`, `ZeroDivisionError`.

    An exponent of more than two digits is refused: ``1e999999999`` would be worked out, all billion digits of it.
    """
    exponent = text.lower().partition("e")[2]
    if len(text) > _LONGEST or not text.isascii() or len(exponent.lstrip("+-0_")) > 2:
        raise ValueError(f"{text[:_LONGEST]!r} is not a number of a usual size")
    return Fraction(text)


def exact_product(text: str, factor: int) -> Decimal:
    """A decimal text times a whole number, exactly. Raises `ValueError`."""
    if len(text) > _LONGEST or not text.isascii():
        raise ValueError(f"{text[:_LONGEST]!r} is not a number of a usual size")
    try:
        return _EXACT.multiply(Decimal(text), Decimal(factor))
    except DecimalException:
        raise ValueError(f"{text!r} is not a number of a usual size") from None
