"""What public suites say of pairs of answers, as facts in an arrangement of our own: (suite, one, other, equal?).

Suites: `math-verify` and `lighteval` (Hugging Face), `hendrycks` (the MATH benchmark's own checker), `qwen` (the Qwen
evaluation's cases). `house` are pairs of ours of the same kinds. Where a suite conflicts with another, or with the
rules of a key (a pure function of one answer: transitive, and an approximation is its own class), the pair stands in
`ADJUDICATED`, with the suite's verdict, ours and the reason.
"""

from typing import NamedTuple


class Pair(NamedTuple):
    """Two answers and whether the suite takes one for the other."""

    suite: str
    one: str
    other: str
    equal: bool


class Ruling(NamedTuple):
    """A suite's verdict that we do not follow."""

    suite: str
    one: str
    other: str
    theirs: bool
    ours: bool
    why: str


def _pairs(suite: str, equal: bool, *rows: tuple[str, str]) -> tuple[Pair, ...]:
    return tuple(Pair(suite, one, other, equal) for one, other in rows)


PAIRS: tuple[Pair, ...] = (
    *_pairs(
        "math-verify", True,
        ("7425000", "7,425,000"), ("1000", "1 000"), ("1000", "1000.0"), ("1000.0", "1,000.0"), ("0.4", ".4"),
        ("1000.99", "1,000.99"), ("1000.99", "$1,000.99"), ("1000.99", "1,000.99$"), ("1000.99", "1,000.99€"),
        ("10/9", r"\frac{10}{9}"), ("-10/9", r"-\frac{10}{9}"), ("[0,1)", "$[0,1)$"), ("10", r"\( (9+1) \)"),
        ("1/3", r"\frac13 "), ("1", r"\frac3{3}"), (r"\sqrt{3}", r"\sqrt3 "), ("1/3", r"\cfrac{1}{3}"),
        ("1/3", r"\left( \frac{1}{3} \right)"), ("1/3", r"\frac{1}{3} \text{meters}"),
        ("1/3", r"\frac{1}{3} \textbf{meters}"), ("1/3", r"k = \frac{1}{3}"), (r"28\%", "28 percent"),
        (r"28\%", "28 pct"), (r"28\%", "28 %"), (r"28\%", "28 percentage"), (r"28\%", "28pct"),
        ("14916", "14 {, }916"), (r"12\text{ and }13", "12 $ and $13 "), ("16386.20", r"\$16,\!386.20"),
        (r"(3, \frac{\pi}{2})", r"\left( 3, \frac{\pi}{2} \right)"), (r"15\mbox{ cm}^2", "15"),
        (r"90^\circ", r"90^{\circ}"), (r"\{1\pm\sqrt{5},-2\}", r"\{-2, 1+\sqrt5, 1-\sqrt5\}"),
        ("f(2) < f(1) < f(4)", "f(2)<f(1)<f(4)"), (r"2 \sin b \cos a", r"2\cos a\sin b"),
        (r"\frac{\pi r}{h+r}", r"\frac{r\pi}{r+h}"), (r"125\textnormal{ miles}", "125 miles"),
        (r"[-1, -\frac{1}{2}) \cup (-\frac{1}{2}, 0) \cup (0, 1) \cup (1, \infty)",
         r"[-1, -\tfrac12) \cup (-\tfrac12, 0) \cup (0, 1) \cup (1, \infty)"),
        (r"\sqrt{2}+\sqrt{5}", r"\sqrt 2+\sqrt 5"), (r"\frac{9}{4}\pi", r"\frac94\pi"),
        (r"x \in \{-1\} \cup [0,7)", r"\{-1\} \cup [0,7)"), ("x >= 5", r"x \geq 5"), ("x < 3", r"x \lt 3"),
        (r"x \leq 2", "x <= 2"), ("x > 5", r"x \gt 5"), ("x != 3", r"x \neq 3"), (r"x \leq 5", r"5 \geq x"),
        (r"x \geq 5", r"5 \leq x"), ("x = 11", "x = 5+5+1 = 7 =11"), ("x = 1/3", r"x = 5+5+1 = 1/3 \approx 11"),
        ("11", "x=11"), ("11", r"x\approx11"), ("1/3", r"x=1/3\approx1.3"), ("x < 1", "-x > -1"),
        ("x <= 1", "-x >= -1"), ("1", "k=1"), ("z = 1 + 1 = 2", "z = 3+3 = 2"),
        ("2x+4y-3=0", r"y=-\frac{1}{2}x+\frac{3}{4}"), ("x^2/4 + y^2/3 = 1", "x^2/16 + y^2/12 = 1/4"),
        (r"\begin{bmatrix}0 & 0 \\0 & 0\end{bmatrix}", r"\begin{pmatrix}0 & 0 \\0 & 0\end{pmatrix}"),
        (r"\begin{pmatrix}1 & 2 \\3 & 4\end{pmatrix}", r"\left[\begin{array}{cc}1 & 2 \\3 & 4\end{array}\right]"),
        (r"\begin{pmatrix}6 & 8 \\ 10 & 12\end{pmatrix}",
         r"\begin{pmatrix}1 & 2 \\ 3 & 4\end{pmatrix} + \begin{pmatrix}5 & 6 \\ 7 & 8\end{pmatrix}"),
        (r"\begin{pmatrix}1 & 0 \\ 0 & 1\end{pmatrix}",
         r"\begin{pmatrix}1 & 0 \\ 0 & 1\end{pmatrix} \begin{pmatrix}1 & 0 \\ 0 & 1\end{pmatrix}"),
        ("(1/5, 1/6)", r"\left( \frac{1}{5}, \frac{1}{6} \right)"), (r"x \in [-2,7]", "[-2, 7]"),
        (r"x \in [-2,7]", r"-2 \le x \le 7"), ("11111111100", r"11,\! 111,\! 111,\! 100"), ("32349", r"32,\! 349"),
        ("(2, 12) \\cup (12, 102)", r"x \in (2,12) \cup (12,102)"), (r"\text{C}", r"\text{(C)}"),
        (r"\text{E}", "E"), ("x-2y+z-1=0", "-x+2y-z+1=0"), ("n=1, 2, 3", "n=1,2,3"), ("D = (0, 1)", "(0, 1)"),
        ("19, 46, and 82", r"19, 46, \text{ and } 82"), (r"1 - \frac{1}{\mathrm{e}}", r"1-\frac1e"),
        (r"\pm 2021", "{-2021, 2021}"), ("12:00", r"12\!:\!00"), ("40/9", "4 4/9"), ("-40/9", "-4 4/9"),
        ("71/6", "11 5/6"), ("71/6", "+11 5/6"), ("4/9", "0 4/9"), ("4", "4 0/9"), ("9004/9", "1 000 4/9"),
        ("40/900", "4 4/9%"), ("40/900", "4 4/9 percent"), ("40/9", "4 + 4/9"), (r"\frac{1}{3}", r"$\frac{1}{3}.$"),
        (r"\frac{1}{3}", r"$\frac{1}{3},$"), (r"\frac{1}{3}", r"\[\frac{1}{3}.\]"), ("(1,2)", "$(1,2).$"),
        ("5", r"5 \text{ cm}."), (r"\text{Evelyn}", "Evelyn"),
        (r"F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}", r"F_n = \sum_{k=0}^{n-1} F_{n-k-1} F_k"),
    ),
    *_pairs(
        "math-verify", False,
        ("[0,9)", "[0,1)"), ("(0,9)", "[0,9)"), ("1", "-[0,1)"), ("0.28", "28"), ("28/100", "28"),
        (r"28*\frac{1}{100}", "28"), ("x > 5", "x < 5"), (r"x \geq 5", r"x \leq 5"), ("7 = 11a+c", "11a+c"),
        ("x < 1", "x > -1"), ("a +3z = 0", "0"), ("2x + z = 1", "1"), ("a^2 + b = 0", "0"),
        (r"\begin{pmatrix}1 & 2 \\ 3 & 4\end{pmatrix}", r"\begin{pmatrix}1 & 2 \\ 3 & 5\end{pmatrix}"),
        ("[0,1)", "(0, 1)"), ("[-3,2]", r"(-\infty, -3] \cup [2, \infty)"), ("(27/8, 15/8)", "(0, 0)"),
        ("1112112_3", "1112122_3"), ("32349", "32, 349"), ("(3,1)", "1,3"), (r"\frac{1}{2004!}", r"\frac{1}{2006!}"),
        (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"), ("n=2, 3, 4", "n=1, 2, 3"), ("D = (0, 1)", "D = (0, 1.5)"),
        (r"F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}", r"F_n = \sum_{k=0}^{n-2} F_k F_{n-k-2}"),
        ("19, 46, and 82", "21, 36, and 82"), (r"1 - \frac{1}{\mathrm{e}}", r"1 + \frac{1}{\mathrm{e}}"),
        (r"\pm 2021", "2021"), ("12:00", "1:00"), ("4", "4 4/9"), ("11", "11 6/6"), ("12", "11 6/6"),
        ("73/6", "11 7/6"), ("139/90", "11/10 4/9"), ("103/9", "11.0 4/9"), ("103/9", "(11) 4/9"),
        ("11 + 4/9", "11 - 4/9"), ("4", r"4\sqrt{2}"), ("2", "2^{10}."), ("1", "1/3."), ("1, 2, 3", "1, 2, 3, ..."),
        ("2", "AZYUK2A"), ("40/9", "4 4/9%"),
    ),
    *_pairs(
        "qwen", True,
        (r"(1,\frac{9}{2})", "(1,4.5)"), (r"\frac{x+2}{7}", r"\frac{x}{7}+\frac{2}{7}"),
        (r"\tan^2(y)+1", r"\sec^2(y)"), ("34x+45y-20z+100=0", "-34x-45y+20z-100=0"),
        (r"\begin{pmatrix}-\frac{7}{4}&-2\\4&\frac{1}{4}\\\end{pmatrix}",
         r"\begin{pmatrix}-\frac{7}{4}&-2\\4&\frac{1}{4}\end{pmatrix}"),
        (r"\begin{pmatrix}\frac{1}{3\sqrt[3]{x}^2}&0&0\\0&1&0\\-\sin(x)&0&0\\\end{pmatrix}",
         r"\begin{pmatrix}\frac{1}{3x^{2/3}}&0&0\\0&1&0\\-\sin(x)&0&0\end{pmatrix}"),
        (r"\frac{\sqrt{\sqrt{11}+\sqrt{194}}}{15+2\sqrt{33}}", r"\frac{\sqrt{\sqrt{11}+\sqrt{194}}}{2\sqrt{33}+15}"),
        (r"(\begin{pmatrix}\frac{1}{3}\\ \frac{1}{5} \end{pmatrix})", r"\begin{pmatrix}1/3\\0.2 \end{pmatrix}"),
    ),
    *_pairs(
        "qwen", False,
        ("(a+5)(b+2)", "(+5)(b+2)"), ("2", r"\frac{1+\sqrt{5}}{2}"), ("4", r"\frac{34}{16}+\frac{\sqrt{1358}}{16}"),
        (r"1\sqrt{19}", "1"), ("x+2n+1", "x+1"), ("1", "1.1"), ("log=2", "2"), ("x=5", "6"),
    ),
    *_pairs(
        "hendrycks", True,
        (r"\tfrac{1}{2} +\! \frac1{72}", r"\\dfrac{1}{2} +\frac{1}{72}"), (r"10\text{ units}", "10 "),
        ("10", r"\$10"), (r"\left(x-2\right)\left(x+2\right)", "(x-2)(x+2)"), ("0.1", ".1"),
        (r"10\sqrt{3} + \sqrt4", r"10\sqrt3 + \sqrt{4}"), (r"\frac34i", r"\frac{3}{4}i"), (r"\tfrac83", r"\frac{8}{3}"),
        ("1/2", r"\frac{1}{2}"),
    ),
    *_pairs(
        "hendrycks", False,
        (r"\tfrac{1}{2} + \frac1{72}", r"\\frac{1}{2} + 2/3"), ("10, 4, 2", "4, 12, 2"), (r"10\text{ units}", "100 "),
        ("5x - 7y + 11z + 4 = 0", "x + y - z + 2 = 0"),
    ),
    *_pairs(
        "lighteval", True,
        ("8/46", r"\frac{4}{23}"), (r"\frac{9.5}{3.14159}", r"\frac{9.5}{3.14159} \approx 3.01"),
        ("105", "35 + 70 = 105"),
    ),
    *_pairs(
        "house", True,
        (r"5\,\mathrm{m}/\mathrm{s}", r"5\text{ m/s}"), ("5 km/h", "5"), (r"10\text{ cm}^3", "10"),
        ("12 square feet", r"12\text{ ft}^2"), ("12 sq. ft", "12"), (r"\text{June 20}", "June 20"),
        (r"6\!:\!00 \text{ p.m.}", "6:00 PM"), (r"\text{all real numbers}", r"\mathbb{R}"),
        ("-2x < 6", "x > -3"), (r"2x+1 \le 5", r"(-\infty, 2]"), (r"x > 2 \text{ and } x < 5", "(2,5)"),
        (r"\frac{1}{6}\begin{pmatrix}3\\2\end{pmatrix}", r"\begin{pmatrix}\frac12\\\frac13\end{pmatrix}"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}\begin{pmatrix}5\\6\end{pmatrix}",
         r"\begin{pmatrix}17\\39\end{pmatrix}"),
        (r"\begin{pmatrix}1\\[4pt]2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"\left(\begin{smallmatrix}1\\2\end{smallmatrix}\right)", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"\begin{cases} x=1 \\ y=2 \end{cases}", "x=1, y=2"), (r"5^{\text{th}}", "5"), (r"21^\text{st}", "21"),
        (r"\Rightarrow x=5", "5"), (r"\boldsymbol{\frac{1}{2}}", "1/2"), (r"\textcolor{red}{5}", "5"),
        (r"\underline{5}", "5"), ("5 = x", "5"), (r"\sqrt{2} \approx 1.414", r"\sqrt 2"), ("(-8)^{1/3}", "-2"),
        (r"\mathrm{i}\sqrt3", r"\sqrt{3}i"), ("2,3 or 5", "5, 2, 3"), (r"\{(1,2),(3,4)\}", "(3,4), (1,2)"),
        (r"(1,\ 2)", "(1,2)"), (r"\langle 1, 2\rangle", "(1,2)"), (r"1\tfrac{1}{2}\text{ cups}", "1.5"),
        ("Yes.", r"\text{yes}"), (r"\text{True}", "true"), ("1 000 000", "10^6"), (r"2\times 10^3", "2000"),
        ("y = 3", "3"), (r"\left\{ 1, 2 \right\}", "2,1"), ("{1, 2}", r"\{2, 1\}"),
    ),
    *_pairs(
        "house", False,
        ("x > 2 or x < 5", "x > 2 and x < 5"), ("x^3 < 8", "x < 2"), (r"\text{yes}", r"\text{no}"), ("1 000", "1, 000"),
        (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"), ("June 20", "June 2"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"2\begin{pmatrix}1\\2\end{pmatrix}"), ("6:00 PM", "6:00 AM"),
        ("(1,2),(3,4)", "(1,3),(2,4)"), (r"x \ge 2", "x > 2"), ("-x < 6", "x < 6"), (r"\{(1,2)\}", r"\{1,2\}"),
    ),
)  # fmt: skip

_APPROXIMATE = "an approximation is its own class: a tolerance is not transitive"
_PERCENT = "a percent is a hundredth: 5, 5% and 0.05 can't all be one class, so 5% is 0.05"
_PAIR = "a pair is ordered and a bare list is not; both can't be the same as the third"
_LIST = "a bare list states its members, in any order"

ADJUDICATED: tuple[Ruling, ...] = (
    Ruling("math-verify", "1000.99", "1000,99", True, False, "a comma separates members; decimals have a point"),
    Ruling("math-verify", "1,22", "1.22", True, False, "a comma separates members; decimals have a point"),
    Ruling("math-verify", "1000.99", "1,000.99m²", True, False, "a bare letter is a variable, not a unit"),
    Ruling("math-verify", r"28\%", "28", True, False, _PERCENT),
    Ruling("hendrycks", r"10\%", "10", True, False, _PERCENT),
    Ruling("math-verify", "(1,3)", "{1,3}", True, False, _PAIR),
    Ruling("math-verify", r"\text{13}", "13", False, True, "hendrycks drops the wrapper, as models add it freely"),
    Ruling("hendrycks", "10, 4, -2", "4, 10, -2", False, True, _LIST),
    Ruling("hendrycks", "0.1, 4, 2", "4, .1, 2", False, True, _LIST),
    Ruling("math-verify", r"\frac{1}{3}", "0.3333", True, False, _APPROXIMATE),
    Ruling("math-verify", "4.123105625617661", r"\sqrt{17}", True, False, _APPROXIMATE),
    Ruling("qwen", r"\frac{1}{12}", "0.0833333333333333", True, False, _APPROXIMATE),
    Ruling("qwen", r"(\frac{3}{5},\frac{8}{3}]", "(0.6,2.6667]", True, False, _APPROXIMATE),
    Ruling("qwen", r"\begin{pmatrix}\frac{1}{3}\\ \frac{1}{5} \end{pmatrix}", r"\begin{pmatrix}0.33\\0.2 \end{pmatrix}",
           True, False, _APPROXIMATE),
    Ruling("qwen", "1", "1.0001", True, False, _APPROXIMATE),
    Ruling("math-verify", r"x \in [-2,7]", r"-2 \le x \le 7", False, True, "refused there in one order only"),
)  # fmt: skip
