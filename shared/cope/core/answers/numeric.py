"""High-precision values and fingerprints of expressions. Imported by the helper process only (mpmath).

Two expressions are one class if they have the same value: a constant is computed to 250 significant digits, an
expression with variables at fixed points derived from the variables' names. So `3\\sqrt{13}` meets `\\sqrt{117}`,
`(a+5)(b+2)` its expansion and `\\cot x` `\\cos x / \\sin x` without any search for a normal form, in bounded time.
Rational values are recognised and become the exact key that the caller's process finds by itself. Every value is
computed twice, at two precisions: digits that do not agree are cancellation, not value.
"""

import hashlib
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from mpmath import mp

from cope.core.answers import exact
from cope.core.answers.expression import Constant, Expression, Number, Op, Symbol, free_symbols
from cope.core.answers.limits import HELPER_BITS
from cope.core.answers.model import Unreadable
from cope.core.answers.structure import number_key

Evaluate = Callable[[Mapping[str, Any]], Any]

_CONSTANT_DIGITS = ((300, 250), (700, 600))
_POINT_DIGITS = ((120, 90), (300, 250))
_RATIONAL_LIMIT = 10**100
_MAX_MAGNITUDE = 1_000_000
"""Bits of exponent: numbers beyond 2^1000000 (or below its inverse) are refused before they are computed."""
_SIGNS = ("+", "-", "mixed", "mixed again")
_TRIGONOMETRIC = frozenset(["sin", "cos", "tan", "cot", "sec", "csc"])


def fingerprint(evaluate: Evaluate, symbols: frozenset[str]) -> str:
    """The key of a function of `symbols` (none: a constant) given by its values.

    Raises `Unreadable` where a value is undefined, too large, or lost to cancellation at every precision tried.
    """
    if not symbols:
        return _constant_key(evaluate, {})
    points = [{name: _coordinate(name, place) for name in symbols} for place in range(len(_SIGNS))]
    values = [_settled(evaluate, point, _POINT_DIGITS) for point in points]
    if len(set(values)) == 1:
        return _constant_key(evaluate, points[0])
    for name in sorted(symbols):
        if values == [_settled(lambda at, name=name: at[name], point, _POINT_DIGITS) for point in points]:  # type: ignore[misc]
            return name
    return "f:" + hashlib.sha256("|".join(values).encode()).hexdigest()[:40]


def value_key(node: Expression) -> str:
    """The key of an expression. Raises `Unreadable`."""
    try:
        return number_key(exact.rational(node, bits=HELPER_BITS))
    except exact.NotRational:
        return fingerprint(lambda at: evaluate_at(node, at), free_symbols(node))
    except (exact.TooBig, exact.Undefined):
        raise Unreadable("too large or undefined") from None


def equation_key(difference: Expression) -> str:
    """The key of `difference = 0`, equal for all its multiples.

    Solved for y, or for its only variable, where it is linear in it: `2x - y + 3 = 0` meets `y = 2x + 3`.
    """
    symbols = free_symbols(difference)
    if not symbols:
        raise Unreadable("an equation of constants")
    unknown = "y" if "y" in symbols else next(iter(symbols)) if len(symbols) == 1 else None
    if unknown is not None and (solved := _solved_for(unknown, difference, symbols - {unknown})):
        return solved
    base = {name: _coordinate(name, 9) for name in symbols}
    ratio = fingerprint(lambda at: _divide(evaluate_at(difference, at), evaluate_at(difference, _at(base))), symbols)
    return f"{ratio}=0"


def _solved_for(unknown: str, difference: Expression, others: frozenset[str]) -> str | None:
    def at_unknown(at: Mapping[str, Any], value: int) -> Any:
        return evaluate_at(difference, {**at, unknown: mp.mpf(value)})

    def bend(at: Mapping[str, Any]) -> Any:
        return at_unknown(at, 3) - 3 * at_unknown(at, 1) + 2 * at_unknown(at, 0)

    def bend_further(at: Mapping[str, Any]) -> Any:
        return at_unknown(at, 8) - 8 * at_unknown(at, 1) + 7 * at_unknown(at, 0)

    def solution(at: Mapping[str, Any]) -> Any:
        return _divide(at_unknown(at, 0), at_unknown(at, 0) - at_unknown(at, 1))

    try:
        if fingerprint(bend, others) == fingerprint(bend_further, others) == "0":
            return fingerprint(solution, others)
    except Unreadable:
        return None
    return None


def _at(point: Mapping[str, Fraction]) -> dict[str, Any]:
    return {name: mp.mpf(value.numerator) / value.denominator for name, value in point.items()}


def _coordinate(name: str, place: int) -> Fraction:
    """A fixed point of a variable, in ±(1/4, 1): positive at place 0, negative at 1, either way elsewhere."""
    digest = hashlib.sha256(f"{place}:{name}".encode()).digest()
    value = Fraction(1, 4) + Fraction(int.from_bytes(digest[:24], "big"), 2**192) * Fraction(3, 4)
    negative = place == 1 or (place > 1 and digest[31] % 2 == 1)
    return -value if negative else value


def _constant_key(evaluate: Evaluate, point: Mapping[str, Fraction]) -> str:
    return _settled(evaluate, point, _CONSTANT_DIGITS)


def _settled(evaluate: Evaluate, point: Mapping[str, Fraction], digits: tuple[tuple[int, int], tuple[int, int]]) -> str:
    """A value as text, the same for every way to compute it; real and imaginary parts apart."""
    (low_digits, kept), (high_digits, trusted) = digits
    low = _parts(evaluate, point, low_digits)
    high = _parts(evaluate, point, high_digits)
    with mp.workdps(high_digits + 20):
        real, imaginary = (
            _settled_part(a, b, kept, trusted, max(abs(high[0]), abs(high[1]))) for a, b in zip(low, high, strict=True)
        )
    return real if imaginary == "0" else f"({real})+({imaginary})i"


def _parts(evaluate: Evaluate, point: Mapping[str, Fraction], digits: int) -> tuple[Any, Any]:
    with mp.workdps(digits):
        try:
            value = mp.mpc(_number(evaluate(_at(point))))
        except (exact.TooBig, exact.Undefined, ZeroDivisionError, ValueError, OverflowError, mp.NoConvergence):
            raise Unreadable("too large or undefined") from None
        if not (mp.isfinite(value.real) and mp.isfinite(value.imag)):
            raise Unreadable("not finite")
        return value.real, value.imag


def _settled_part(low: Any, high: Any, kept: int, trusted: int, size: Any) -> str:
    # A part that shrinks with the precision is zero: √(3+2√2) - 1 - √2, or the imaginary part of e^{iπ}.
    scale = max(size, mp.mpf(1))
    shrinks = abs(high) < mp.mpf(10) ** -trusted * scale and abs(low) < mp.mpf(10) ** -kept * scale
    if not high or (shrinks and not _agree(low, high, kept)):
        return "0"
    if not _agree(low, high, kept):
        raise Unreadable("lost to cancellation")
    if (found := _as_rational(high, trusted)) is not None:
        return number_key(found)
    written = mp.nstr(high, kept - 10, strip_zeros=False, min_fixed=1, max_fixed=0)
    digest = hashlib.sha256(written.encode()).hexdigest()[:24]
    return f"{mp.nstr(high, 20)}#{digest}"


def _agree(low: Any, high: Any, kept: int) -> bool:
    return bool(abs(high - low) <= abs(high) * mp.mpf(10) ** -kept)


def _as_rational(value: Any, trusted: int) -> Fraction | None:
    sign, mantissa, exponent, _ = value._mpf_
    if abs(exponent) > 10_000:
        return None
    whole = Fraction(-int(mantissa) if sign else int(mantissa)) * Fraction(2) ** exponent
    near = whole.limit_denominator(_RATIONAL_LIMIT)
    if not near or abs(near.numerator) * near.denominator > _RATIONAL_LIMIT:
        return None
    return near if abs(near - whole) <= abs(whole) / 10**trusted else None


def evaluate_at(node: Expression, at: Mapping[str, Any]) -> Any:
    """The value at a point: a `Fraction` while it is exact and of modest size, else mpmath at its present precision.

    Raises what `exact.rational` raises, `ZeroDivisionError`, `ValueError` or `KeyError` for a variable not in `at`.
    """
    match node:
        case Number(value):
            return exact.checked(value, HELPER_BITS)
        case Symbol(name):
            return at[name]
        case Constant(name):
            return {"pi": +mp.pi, "e": +mp.e, "i": mp.mpc(0, 1)}[name]
        case Op(name, (argument,)) if name in _TRIGONOMETRIC:
            return _function(name, _number(_angle(argument, at)))
        case Op(name, args):
            values = tuple(evaluate_at(arg, at) for arg in args)
            if all(isinstance(value, Fraction) for value in values):
                try:
                    return exact.checked(exact.apply(name, values, bits=HELPER_BITS), HELPER_BITS)
                except exact.NotRational:
                    pass
            if name == "pow" and isinstance(values[1], Fraction) and values[1].denominator % 2:
                return _sized(_odd_root_power(_number(values[0]), values[1]))
            return _sized(_apply(name, tuple(map(_number, values))))


def _angle(node: Expression, at: Mapping[str, Any]) -> Any:
    """An angle in radians: degrees count only inside a trigonometric function."""
    match node:
        case Op("degree", (argument,)):
            return _number(evaluate_at(argument, at)) * mp.pi / 180
        case Op("add" | "sub" | "neg" | "mul" | "div" as name, args):
            return _apply(name, tuple(_number(_angle(arg, at)) for arg in args))
        case _:
            return evaluate_at(node, at)


def _number(value: Any) -> Any:
    return mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _sized(value: Any) -> Any:
    if value and mp.isfinite(value) and abs(mp.mag(value)) > _MAX_MAGNITUDE:
        raise exact.TooBig
    return value


def _divide(a: Any, b: Any) -> Any:
    if not b:
        raise exact.Undefined
    return _number(a) / _number(b)


def _apply(name: str, args: tuple[Any, ...]) -> Any:
    match name, args:
        case "add", (a, b):
            return a + b
        case "sub", (a, b):
            return a - b
        case "mul", (a, b):
            return a * b
        case "div", (a, b):
            return _divide(a, b)
        case "neg", (a,):
            return -a
        case "degree", (a,):
            return a
        case "pow", (a, b):
            return _power(a, b)
        case "root", (a, b):
            return _root(a, b)
        case "abs", (a,):
            return abs(a)
        case (("floor" | "ceil"), (a,)):
            return _whole(name, a)
        case "fact", (a,):
            return mp.factorial(_small(a))
        case "binom", (a, b):
            return mp.binomial(_small(a), _small(b))
        case "log", (a, b):
            return _divide(mp.log(_nonzero(a)), mp.log(_nonzero(b)))
        case _, (a,):
            return _function(name, a)
        case _:
            raise exact.Undefined


def _power(base: Any, exponent: Any) -> Any:
    if not base:
        if mp.re(exponent) <= 0:
            raise exact.Undefined
        return base
    if mp.mag(exponent) > 40 or abs(mp.log(base)) * abs(exponent) > _MAX_MAGNITUDE:
        raise exact.TooBig
    return mp.power(base, exponent)


def _odd_root_power(base: Any, exponent: Fraction) -> Any:
    """Real for a real base, as the root is: (-8)^{1/3} is -2 and x^{2/3} the cube root of x squared."""
    if exponent.denominator == 1 or mp.im(base) or mp.re(base) >= 0:
        return _power(base, _number(exponent))
    magnitude = _power(-mp.re(base), _number(exponent))
    return -magnitude if exponent.numerator % 2 else magnitude


def _root(value: Any, index: Any) -> Any:
    """The real root where there is one: the cube root of -8 is -2; of a negative number to an even index, complex."""
    if not index or mp.im(index):
        raise exact.Undefined
    if not mp.im(value) and mp.re(value) < 0 and mp.isint(index) and int(index) % 2:
        return -_power(-mp.re(value), 1 / index)
    return _power(value, 1 / index)


def _whole(name: str, value: Any) -> Any:
    """Rounded; where the value lies within 10^-20 of an integer it is taken to be that integer."""
    near = mp.nint(value)
    if abs(value - near) < mp.mpf(10) ** -20:
        return near
    return mp.floor(value) if name == "floor" else mp.ceil(value)


def _small(value: Any) -> Any:
    if abs(value) > 20_000:
        raise exact.TooBig
    return value


def _nonzero(value: Any) -> Any:
    if not value:
        raise exact.Undefined
    return value


def _function(name: str, value: Any) -> Any:
    if name == "exp":
        if mp.mag(value) > 19:
            raise exact.TooBig
        return mp.exp(value)
    if name == "ln":
        return mp.log(_nonzero(value))
    if mp.mag(value) > 19 and name in _TRIGONOMETRIC | {"sinh", "cosh"}:
        raise exact.TooBig
    names = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot", "arcsec": "asec", "arccsc": "acsc"}
    return getattr(mp, names.get(name, name))(value)
