r"""A small reader of LaTeX expressions: a precedence climb from text to a tree, with no evaluation at all.

Why not `latex2sympy2_extended` for this: it reads `2(3)` as 5, `3 4` as 7, `52_8` as 52, `10\,000` as 0, `cos 30°` in
radians and `i` as a variable, and takes 10-150 ms. It is the fallback for sums, integrals and limits (`symbolic`).

Conventions: juxtaposition multiplies (`2(3)` is 6), `a/bc` is `(a/b)c`, `-2^2` is -4, `10^6!` is (10^6)!, `\log` is
decimal, `e` and `i` are constants, `1\frac{4}{5}` (a proper fraction of digits) is a mixed number, `52_8` a base-8
numeral (its value, 42), `x_1` one symbol. Two numbers side by side are not an expression.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from cope.core.answers.limits import MAX_DEPTH, MAX_TREE_DEPTH
from cope.core.answers.model import Unreadable


@dataclass(frozen=True, slots=True)
class Number:
    """An exact rational."""

    value: Fraction


@dataclass(frozen=True, slots=True)
class Symbol:
    """A variable, with its subscript if it has one."""

    name: str


@dataclass(frozen=True, slots=True)
class Constant:
    """`pi`, `e` or `i`."""

    name: str


@dataclass(frozen=True, slots=True)
class Op:
    """`add sub mul div neg pow root fact binom abs floor ceil degree log` or a function of one argument."""

    name: str
    args: tuple["Expression", ...]


Expression = Number | Symbol | Constant | Op


class NotAnExpression(Exception):
    """The text is not an expression of this grammar (it may still be a word, a list, …)."""


FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh ln log lg exp".split()  # noqa: SIM905
)
_INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot", "sec": "arcsec", "csc": "arccsc"}
_GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "  # noqa: SIM905
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell".split()
)
_TIMES = frozenset({"*", r"\cdot", r"\times", r"\ast"})
_OVER = frozenset({"/", r"\div"})
_CLOSER = {"(": ")", "[": "]", "{": "}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil"}
_BASE_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<repeating>(?P<whole>\d*)\.(?P<once>\d*)(?:\\(?:overline|bar|dot)\s*\{(?P<cycle>\d+)\}|\((?P<cycle2>\d+)\)))
    | (?P<based>(?:\((?P<digits>[0-9A-Z]+)\)|(?P<digits2>[0-9][0-9A-Z]*|[A-F]+[0-9][0-9A-F]*))
        \s*_\s*(?:\{\s*(?P<base>\d{1,2})\s*\}|(?P<base2>\d{1,2})))
    | (?P<number>\d+\.\d+|\d+|\.\d+)
    | (?P<command>\\[A-Za-z]+)
    | (?P<letter>[A-Za-z])
    | (?P<sign>[-+*/^_()\[\]{}|!%])
    )""",
    re.VERBOSE,
)
_SCIENTIFIC = re.compile(r"(?<![A-Za-z\\\d.])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,5})(?![A-Za-z\d.])")
_PLAIN_MIXED = re.compile(r"(?<![\d.^_/])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])")
_PLAIN_FUNCTION = re.compile(
    r"(?<![A-Za-z\\])(arc(?:sin|cos|tan|cot)|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp|sqrt|pi)(?![A-Za-z])"
)


def parse_expression(text: str) -> Expression:
    """The tree of `text`, which must be cleaned (`latex.clean`). Linear in its length.

    Raises `NotAnExpression`, or `Unreadable` for a tree that is too deep.
    """
    text = _SCIENTIFIC.sub(r"(\1*10^{\2})", text)
    text = _PLAIN_MIXED.sub(_mixed_to_frac, text)
    text = _PLAIN_FUNCTION.sub(r"\\\1 ", text)
    parser = _Parser(_tokens(text))
    node = parser.sum()
    parser.end()
    _check_depth(node)
    return node


def _check_depth(root: Expression) -> None:
    """Long sums make deep trees too (they lean left), and everything after this recurses over the tree."""
    level, depth = [root], 0
    while level:
        depth += 1
        if depth > MAX_TREE_DEPTH:
            raise Unreadable("nested too deeply")
        level = [arg for node in level if isinstance(node, Op) for arg in node.args]


def free_symbols(node: Expression) -> frozenset[str]:
    """Names of the variables in a tree."""
    match node:
        case Symbol(name):
            return frozenset({name})
        case Op(_, args):
            return frozenset[str]().union(*(free_symbols(arg) for arg in args))
        case _:
            return frozenset()


def _mixed_to_frac(found: re.Match[str]) -> str:
    whole, top, bottom = found.groups()
    if int(top) >= int(bottom):
        return found.group()
    return rf"{whole}\frac{{{top}}}{{{bottom}}}"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number (with its value), letter, command or sign
    text: str
    value: Fraction | None = None


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None:
            raise NotAnExpression(f"unexpected {text[at : at + 12]!r}")
        at = found.end()
        if found["repeating"]:
            whole, once = found["whole"] or "0", found["once"]
            cycle = found["cycle"] or found["cycle2"]
            value = Fraction(int(whole + once)) / 10 ** len(once)
            value += Fraction(int(cycle), (10 ** len(cycle) - 1) * 10 ** len(once))
            tokens.append(_Token("decimal", found["repeating"], value))
        elif found["based"]:
            tokens.append(_Token("decimal", found["based"], _based(found)))
        elif found["number"]:
            written = found["number"]
            kind = "integer" if written.isdigit() else "decimal"
            tokens.append(_Token(kind, written, Fraction(written)))
        else:
            kind = found.lastgroup or ""
            tokens.append(_Token(kind, found[kind]))
    return tokens


def _based(found: re.Match[str]) -> Fraction:
    digits, base = found["digits"] or found["digits2"], int(found["base"] or found["base2"])
    if not 2 <= base <= 36 or any(_BASE_DIGITS.index(digit) >= base for digit in digits):
        raise NotAnExpression(f"{digits} is no numeral of base {base}")
    return Fraction(int(digits, base))


class _Parser:
    """Reads a token list once, left to right."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._bars = 0

    def end(self) -> None:
        if self._at < len(self._tokens):
            raise NotAnExpression(f"unexpected {self._tokens[self._at].text!r}")

    def sum(self) -> Expression:
        node = self._product()
        while self._peek() in {"+", "-"}:
            name = "add" if self._take().text == "+" else "sub"
            node = Op(name, (node, self._product()))
        return node

    def _product(self) -> Expression:
        node = self._signed()
        while True:
            ahead = self._peek()
            if ahead in _TIMES:
                self._take()
                node = Op("mul", (node, self._signed()))
            elif ahead in _OVER:
                self._take()
                node = Op("div", (node, self._signed()))
            elif self._starts_factor():
                if self._is_number(self._at) and self._is_number(self._at - 1):
                    raise NotAnExpression("two numbers side by side")
                node = Op("mul", (node, self._power()))
            else:
                return node

    def _signed(self) -> Expression:
        negative = False
        while self._peek() in {"+", "-"}:
            negative ^= self._take().text == "-"
        node = self._power()
        return Op("neg", (node,)) if negative else node

    def _power(self) -> Expression:
        node = self._postfix(self._primary())
        while self._peek() == "^":
            self._take()
            node = self._postfix(Op("pow", (node, self._exponent())))
        return node

    def _exponent(self) -> Expression:
        signs = 0
        while self._peek() in {"+", "-"}:
            signs += self._take().text == "-"
        node = self._primary()
        if self._peek() == "^":
            self._take()
            self._descend()
            node = Op("pow", (node, self._exponent()))
            self._depth -= 1
        return Op("neg", (node,)) if signs % 2 else node

    def _postfix(self, node: Expression) -> Expression:
        while (ahead := self._peek()) in {"!", "%", r"\degree"}:
            self._take()
            if ahead == "!":
                node = Op("fact", (node,))
            elif ahead == "%":
                node = Op("div", (node, Number(Fraction(100))))
            else:
                node = Op("degree", (node,))
        return node

    def _primary(self) -> Expression:
        self._descend()
        node = self._unnested_primary()
        self._depth -= 1
        return node

    def _descend(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")

    def _unnested_primary(self) -> Expression:
        token = self._take()
        if token.value is not None:
            return self._mixed(token)
        if token.kind == "letter":
            if token.text in {"f", "g", "h"} and self._peek() == "(":
                raise NotAnExpression("a call of an unknown function")
            return self._symbol(token.text)
        if token.text in _CLOSER:
            return self._group(token.text)
        if token.text == "|":
            self._bars += 1
            node = self.sum()
            self._expect("|")
            self._bars -= 1
            return Op("abs", (node,))
        if token.kind == "command":
            return self._command(token.text[1:])
        raise NotAnExpression(f"unexpected {token.text!r}")

    def _mixed(self, whole: _Token) -> Expression:
        r"""`1\frac{4}{5}` is 9/5; `3\frac{4}{3}` and `2\frac{x}{5}` are products."""
        assert whole.value is not None
        ahead = [token.text for token in self._tokens[self._at : self._at + 7]]
        if whole.kind == "integer" and ahead[:1] == [r"\frac"]:
            digits = "".join(ahead[1:3])
            if len(ahead) == 7 and ahead[1::3] == ["{", "{"] and ahead[3::3] == ["}", "}"]:
                top, bottom, used = ahead[2], ahead[5], 7
            elif digits.isdigit() and len(digits) == 2:
                top, bottom, used = digits[0], digits[1], 2 if len(ahead[1]) == 2 else 3
            else:
                return Number(whole.value)
            if top.isdigit() and bottom.isdigit() and int(top) < int(bottom):
                self._at += used
                return Number(whole.value + Fraction(int(top), int(bottom)))
        return Number(whole.value)

    def _symbol(self, name: str) -> Expression:
        if self._peek() == "_":
            self._take()
            token = self._take()
            if token.text != "{":
                return Symbol(f"{name}_{token.text}")
            inner: list[str] = []
            while (token := self._take()).text != "}":
                inner.append(token.text)
            return Symbol(f"{name}_{''.join(inner)}")
        return Constant(name) if name in {"e", "i"} else Symbol(name)

    def _command(self, name: str) -> Expression:
        if name == "pi":
            return Constant("pi")
        if name in _GREEK:
            return self._symbol(f"\\{name}")
        if name in {"frac", "binom"}:
            top = self._argument()
            return Op("div" if name == "frac" else "binom", (top, self._argument()))
        if name == "sqrt":
            index: Expression = Number(Fraction(2))
            if self._peek() == "[":
                self._take()
                index = self._group("[")
            return Op("root", (self._primary(), index))
        if name in FUNCTIONS:
            return self._function(name)
        raise NotAnExpression(f"unknown command \\{name}")

    def _function(self, name: str) -> Expression:
        base: Expression = Number(Fraction(10))
        power: Expression | None = None
        while (ahead := self._peek()) in {"^", "_"}:
            self._take()
            if ahead == "^":
                power = self._exponent()
            elif name == "log":
                base = self._argument()
            else:
                raise NotAnExpression(f"\\{name} takes no subscript")
        if name in _INVERSE and power == Op("neg", (Number(Fraction(1)),)):
            name, power = _INVERSE[name], None
        argument = self._function_argument()
        node = Op("log", (argument, base)) if name in {"log", "lg"} else Op(name, (argument,))
        return node if power is None else Op("pow", (node, power))

    def _function_argument(self) -> Expression:
        """A bracketed group, or the product that follows: sin 2x, cos π/6 is (cos π)/6, sin x cos x a product."""
        if self._peek() in {"(", "[", "{"}:
            node = self._primary()
        else:
            node = self._signed()
            while self._starts_factor() and self._peek() not in {"(", "["} and not self._at_function():
                node = Op("mul", (node, self._power()))
        return node

    def _argument(self) -> Expression:
        r"""One TeX argument: a group or a single token, so `\frac43` is 4/3 and `\frac270` is (2/7)·0."""
        if self._at < len(self._tokens) and self._tokens[self._at].kind == "integer":
            written = self._tokens[self._at].text
            if len(written) > 1:
                self._tokens[self._at] = _Token("integer", written[1:], Fraction(written[1:]))
            else:
                self._at += 1
            return Number(Fraction(written[0]))
        return self._primary()

    def _group(self, opener: str) -> Expression:
        bars, self._bars = self._bars, 0
        node = self.sum()
        self._expect(_CLOSER[opener])
        self._bars = bars
        names = {r"\lfloor": "floor", r"\lceil": "ceil"}
        return Op(names[opener], (node,)) if opener in names else node

    def _starts_factor(self) -> bool:
        if self._at >= len(self._tokens):
            return False
        token = self._tokens[self._at]
        if token.text == "|":
            return self._bars == 0
        if token.kind == "command":
            return token.text not in _TIMES | _OVER | {r"\rfloor", r"\rceil", r"\degree"}
        return token.kind in {"integer", "decimal", "letter"} or token.text in _CLOSER

    def _at_function(self) -> bool:
        text = self._peek() or ""
        return text.startswith("\\") and text[1:] in FUNCTIONS

    def _is_number(self, at: int) -> bool:
        return 0 <= at < len(self._tokens) and self._tokens[at].value is not None

    def _peek(self) -> str | None:
        return self._tokens[self._at].text if self._at < len(self._tokens) else None

    def _take(self) -> _Token:
        if self._at >= len(self._tokens):
            raise NotAnExpression("it ends too early")
        self._at += 1
        return self._tokens[self._at - 1]

    def _expect(self, text: str) -> None:
        if self._take().text != text:
            raise NotAnExpression(f"{text!r} is missing")
