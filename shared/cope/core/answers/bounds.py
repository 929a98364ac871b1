r"""Inequalities that are a ray once solved: `-2x < 6`, `2x + 1 \le 5`; two rays of one variable met."""

import re
from fractions import Fraction

from cope.core.answers import exact
from cope.core.answers.expression import Expression, NotAnExpression, Number, Op, Symbol, free_symbols, parse_expression
from cope.core.answers.limits import QUICK_BITS

_LOW = re.compile(r"([\[(])(.+); oo\)")
_HIGH = re.compile(r"\(-oo; (.+)([\])])")
_PLACES = tuple(Fraction(*place) for place in ((2, 1), (-1, 1), (5, 1), (11, 3), (-17, 7)))


def linear_bound(left: str, right: str) -> tuple[Fraction, bool] | None:
    """Where `left - right` is zero, and whether it falls there, if it is linear in its one variable with rational
    coefficients; None otherwise. A curve that is a line at seven points would pass for one: it is then no short one."""
    try:
        difference = Op("sub", (parse_expression(left), parse_expression(right)))
        symbols = free_symbols(difference)
        if len(symbols) != 1:
            return None
        (name,) = symbols
        at_zero, at_one = (_at(difference, name, Fraction(place)) for place in (0, 1))
        slope = at_one - at_zero
        straight = all(_at(difference, name, place) == at_zero + slope * place for place in _PLACES)
    except (NotAnExpression, exact.NotRational, exact.TooBig, exact.Undefined):
        return None
    return (-at_zero / slope, slope < 0) if straight and slope else None


def variables(text: str) -> frozenset[str]:
    """The names in one side of a relation; none where it is no expression."""
    try:
        return free_symbols(parse_expression(text))
    except NotAnExpression:
        return frozenset()


def meet(one: str, other: str) -> str | None:
    """The key of an interval from those of a ray up and a ray down, in either order; None for anything else."""
    for up, down in ((one, other), (other, one)):
        low, high = _LOW.fullmatch(up), _HIGH.fullmatch(down)
        if low and high and low[2] != "-oo" and high[1] != "oo" and not {";", "|"} & {*low[2], *high[1]}:
            return f"{low[1]}{low[2]}; {high[1]}{high[2]}"
    return None


def _at(node: Expression, name: str, value: Fraction) -> Fraction:
    return exact.rational(_put(node, name, value), bits=QUICK_BITS)


def _put(node: Expression, name: str, value: Fraction) -> Expression:
    match node:
        case Symbol(found) if found == name:
            return Number(value)
        case Op(operation, args):
            return Op(operation, tuple(_put(arg, name, value) for arg in args))
        case _:
            return node
