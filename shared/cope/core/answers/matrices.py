r"""Matrices as rows of LaTeX cells, and the small arithmetic in answers: `\frac16\begin{pmatrix}…`, A + B, A B.

A product or sum is carried out on expression trees, cell by cell, so that it meets the matrix it is worth.
"""

import re
from fractions import Fraction
from itertools import pairwise

from cope.core.answers import split
from cope.core.answers.expression import Expression, NotAnExpression, Number, Op, parse_expression
from cope.core.answers.limits import MAX_MEMBERS
from cope.core.answers.model import Unreadable

Cells = list[list[Expression]]

_MATRIX = re.compile(
    r"\\begin\{([pbB]?matrix|smallmatrix|array)\}(?:\s*\{[clr|\s]*\})?((?:(?!\\begin).)*?)\\end\{\1\}", re.DOTALL
)
_DOT = re.compile(r"\s*(?:\\cdot|\\times|\*)?\s*")
_MAX_PRODUCTS = 2_000


def rows_of(text: str) -> list[list[str]] | None:
    """The cells of a text that is one matrix, None if it is anything else. Raises `Unreadable` for uneven rows."""
    found = _MATRIX.fullmatch(text.strip())
    return None if found is None else _rows(found[2])


def computed(text: str) -> Cells | None:
    r"""The value of a sum of products of matrices, each with a factor before it; None where it is no such thing.

    Raises `Unreadable` where the shapes do not fit.
    """
    if _MATRIX.search(text) is None:
        return None
    terms, signs = split.outermost(text, frozenset({"+", "-"}))
    if not terms[0]:
        terms = terms[1:]
    else:
        signs = ["+", *signs]
    total: Cells | None = None
    for term, sign in zip(terms, signs, strict=True):
        try:
            value = _product(term)
        except NotAnExpression:
            return None
        if value is None:
            return None
        if sign == "-":
            value = [[Op("neg", (cell,)) for cell in row] for row in value]
        total = value if total is None else _sum(total, value)
    return total


def _rows(body: str) -> list[list[str]]:
    rows = [row for row in split.outermost(body.replace(r"\hline", " "), frozenset({r"\cr"}))[0] if row]
    cells = [split.outermost(row, frozenset({"&"}))[0] for row in rows]
    if not cells or sum(map(len, cells)) > MAX_MEMBERS or len({len(row) for row in cells}) > 1:
        raise Unreadable("a matrix of uneven rows")
    return cells


def _product(term: str) -> Cells | None:
    """A factor times one or more matrices. Raises `NotAnExpression` for cells of words."""
    found = list(_MATRIX.finditer(term))
    if not found or term[found[-1].end() :].strip():
        return None
    gaps = [term[one.end() : other.start()] for one, other in pairwise(found)]
    if not all(_DOT.fullmatch(gap) for gap in gaps):
        return None
    factor = re.sub(r"(?:\\cdot|\\times|\*)\s*$", "", term[: found[0].start()]).strip()
    value = _trees(found[0][2])
    for one in found[1:]:
        value = _times(value, _trees(one[2]))
    if not factor:
        return value
    scale = parse_expression(factor)
    return [[Op("mul", (scale, cell)) for cell in row] for row in value]


def _trees(body: str) -> Cells:
    return [[parse_expression(cell) for cell in row] for row in _rows(body)]


def _sum(one: Cells, other: Cells) -> Cells:
    if (len(one), len(one[0])) != (len(other), len(other[0])):
        raise Unreadable("a sum of matrices of different shapes")
    return [[Op("add", pair) for pair in zip(*rows, strict=True)] for rows in zip(one, other, strict=True)]


def _times(one: Cells, other: Cells) -> Cells:
    if len(one[0]) != len(other) or len(one) * len(other) * len(other[0]) > _MAX_PRODUCTS:
        raise Unreadable("a product of matrices that do not fit, or are too large")
    columns = list(zip(*other, strict=True))
    return [[_inner(row, list(column)) for column in columns] for row in one]


def _inner(row: list[Expression], column: list[Expression]) -> Expression:
    total: Expression = Number(Fraction(0))
    for pair in zip(row, column, strict=True):
        total = Op("add", (total, Op("mul", pair)))
    return total
