"""Keys that need real arithmetic. Imports mpmath, and for foreign LaTeX sympy: for the helper process only."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from mpmath import mp

from cope.core.answers import numeric
from cope.core.answers.exact import TooBig
from cope.core.answers.expression import Expression, Symbol
from cope.core.answers.keys import FOREIGN, canonical_key
from cope.core.answers.limits import HELPER_BITS
from cope.core.answers.model import AnswerKey, Unreadable
from cope.core.answers.structure import number_key
from cope.core.problem import Kind

_MAX_FOREIGN_CHARS = 300


class _FullLeaves:
    def value(self, node: Expression) -> str:
        return node.name if isinstance(node, Symbol) else numeric.value_key(node)

    def equation(self, difference: Expression) -> str:
        return numeric.equation_key(difference)

    def other(self, text: str) -> str | None:
        return _foreign_key(text) if FOREIGN.search(text) else None


def full_key(kind: Kind, answer: str) -> AnswerKey | None:
    """The key of any answer, equal to `quick_key`'s where that has one; None if the answer can't be read.

    Not bounded in time for every input: call it where it can be killed.
    """
    try:
        return canonical_key(kind, answer, _FullLeaves())
    except Unreadable:
        return None


def _foreign_key(text: str) -> str | None:
    """Sums, products, integrals, limits, determinants: read by latex2sympy2_extended, done by sympy."""
    if len(text) > _MAX_FOREIGN_CHARS:
        raise Unreadable("too long for a sum or an integral")
    import sympy
    from latex2sympy2_extended import latex2sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig

    try:
        parsed = latex2sympy(
            text.replace(r"\cr", r"\\"),
            normalization_config=None,
            conversion_config=ConversionConfig(lowercase_symbols=False),
        )
        done = sympy.nsimplify(parsed, rational=True).subs(sympy.Symbol("i"), sympy.I).doit()
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        return None
    if not isinstance(done, sympy.Expr) or done.has(sympy.oo, -sympy.oo, sympy.zoo, sympy.nan):
        return "oo" if done == sympy.oo else "-oo" if done == -sympy.oo else None
    if done.is_Rational:
        value = Fraction(int(done.p), int(done.q))
        if max(value.numerator.bit_length(), value.denominator.bit_length()) > HELPER_BITS:
            raise Unreadable("too large")
        return number_key(value)
    symbols = {symbol: _own_name(str(symbol)) for symbol in done.free_symbols}

    def evaluate(at: Mapping[str, Any]) -> Any:
        digits = int(mp.dps)
        values = {symbol: sympy.Float(at[name], digits) for symbol, name in symbols.items()}
        real, imaginary = done.evalf(digits, subs=values, maxn=4_000).as_real_imag()
        if not (real.is_Number and imaginary.is_Number):
            raise TooBig
        return mp.mpc(mp.mpf(sympy.Float(real, digits)._mpf_), mp.mpf(sympy.Float(imaginary, digits)._mpf_))

    return numeric.fingerprint(evaluate, frozenset(symbols.values()))


def _own_name(name: str) -> str:
    """latex2sympy drops the backslash of Greek letters; the reader of expressions keeps it."""
    return name if len(name.split("_", maxsplit=1)[0]) == 1 else f"\\{name}"
