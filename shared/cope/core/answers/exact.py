"""Exact rational arithmetic over an expression tree, with every size checked before it is computed."""

from fractions import Fraction
from math import ceil, comb, factorial, floor, isqrt

from cope.core.answers.expression import Constant, Expression, Number, Op, Symbol


class NotRational(Exception):
    """The value is irrational, complex or depends on a variable (or this module can't tell)."""


class TooBig(Exception):
    """The value, or a step towards it, has more bits than allowed. Nothing of that size was computed."""


class Undefined(Exception):
    """Division by zero, 0^0, a factorial of a negative integer."""


def rational(node: Expression, *, bits: int) -> Fraction:
    """The exact value of a tree whose numerators and denominators stay under `bits` bits at each step.

    Raises `NotRational`, `TooBig` or `Undefined`. Degrees outside a trigonometric function are their number.
    """
    match node:
        case Number(value):
            return checked(value, bits)
        case Symbol() | Constant():
            raise NotRational
        case Op(name, args):
            return checked(apply(name, tuple(rational(arg, bits=bits) for arg in args), bits=bits), bits)


def checked(value: Fraction, bits: int) -> Fraction:
    """The value itself; raises `TooBig` beyond `bits`."""
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > bits:
        raise TooBig
    return value


def apply(name: str, args: tuple[Fraction, ...], *, bits: int) -> Fraction:
    """One operation on rationals. Raises as `rational` does; `NotRational` for every function it does not know."""
    match name, args:
        case "add", (a, b):
            return a + b
        case "sub", (a, b):
            return a - b
        case "mul", (a, b):
            return a * b
        case "div", (a, b):
            if not b:
                raise Undefined
            return a / b
        case "neg", (a,):
            return -a
        case "degree", (a,):
            return a
        case "abs", (a,):
            return abs(a)
        case "floor", (a,):
            return Fraction(floor(a))
        case "ceil", (a,):
            return Fraction(ceil(a))
        case "pow", (a, b):
            return _power(a, b, bits)
        case "root", (a, b):
            return _root(a, b)
        case "fact", (a,):
            return _factorial(a, bits)
        case "binom", (a, b):
            return _binomial(a, b, bits)
        case _:
            raise NotRational


def _power(base: Fraction, exponent: Fraction, bits: int) -> Fraction:
    if exponent.denominator != 1:
        return _fractional_power(base, exponent)
    if not base and exponent <= 0:
        raise Undefined
    if base in {0, 1}:
        return base
    if base == -1:
        return Fraction(1 if exponent.numerator % 2 == 0 else -1)
    width = max(base.numerator.bit_length(), base.denominator.bit_length())
    # ⌈log2⌉ - 1 is at least half of the true logarithm's bits for every width ≥ 2: no false refusal by more than 2x.
    if (width - 1) * abs(exponent.numerator) > bits:
        raise TooBig
    return base**exponent.numerator


def _fractional_power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent == Fraction(1, 2):
        return _root(base, Fraction(2))
    raise NotRational


def _root(value: Fraction, index: Fraction) -> Fraction:
    if index != 2 or value < 0:
        raise NotRational
    top, bottom = isqrt(value.numerator), isqrt(value.denominator)
    if top * top != value.numerator or bottom * bottom != value.denominator:
        raise NotRational
    return Fraction(top, bottom)


def _factorial(value: Fraction, bits: int) -> Fraction:
    if value.denominator != 1:
        raise NotRational
    n = value.numerator
    if n < 0:
        raise Undefined
    if n * max(n.bit_length() - 2, 1) > bits:  # n! has about n·(log2 n - 1.44) bits
        raise TooBig
    return Fraction(factorial(n))


def _binomial(top: Fraction, bottom: Fraction, bits: int) -> Fraction:
    if top.denominator != 1 or bottom.denominator != 1 or top < 0:
        raise NotRational
    n, k = top.numerator, bottom.numerator
    if k < 0 or k > n:
        return Fraction(0)
    k = min(k, n - k)
    if min(k * n.bit_length(), n) > bits:
        raise TooBig
    return Fraction(comb(n, k))
