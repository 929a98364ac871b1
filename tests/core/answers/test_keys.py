"""Which answers are one vote class and which are not: every trap that we know of, as literal data."""

import pytest

from cope.core.answers import AnswerKey, Keyed, NeedsHelper, Unkeyable, quick_key
from cope.core.answers.symbolic import full_key
from cope.core.problem import Kind

SAME = {
    "a half": r"0.5|1/2|\frac12|\frac{1}{2}|50\%|.5|\dfrac{1}{2}|$\frac 12$|0.50|50 percent|2^{-1}|\boxed{\frac12}|½",
    "repeating decimals": r"1/3|0.\overline{3}|0.(3)|\frac{2}{6}|0.\bar{3}",
    "nine repeating": r"1|0.\overline{9}",
    "thousands": r"1{,}000|1,000|1\,000|1000|10^3|1,\!000|1000.|1000.0|1e3|1 thousand|1,000.00",
    "more thousands": r"11,\! 111,\! 111,\! 100|11111111100|11,111,111,100",
    "scales are not units": r"5000000|5 million|5\text{ million}|5 million dollars",
    "mixed fractions": r"9/5|1\frac{4}{5}|1 4/5|1.8|1\frac45|1 \dfrac{4}{5}",
    "negative mixed fractions": r"-3/2|-1\frac12|-1.5",
    "improper after a number is a product": r"4|3\frac{4}{3}",
    "a product, not a sum": r"6|2(3)|2\cdot3|(2)(3)|2\times 3|3!",
    "signs in fractions": r"-\frac{3}{8}|\frac{-3}{8}|\frac{3}{-8}|-0.375|-(3/8)|- 3/8|−3/8",
    "surds": r"3\sqrt{13}|\sqrt{117}|3\sqrt13|3*sqrt(13)|3√13|\sqrt{13}\cdot 3|\frac{39}{\sqrt{13}}",
    "nested surds": r"1+\sqrt2|\sqrt{3+2\sqrt2}|\frac{1}{\sqrt2-1}",
    "cancellation to a rational": r"0|\sqrt{3+2\sqrt2}-1-\sqrt2|\ln 1|\sin \pi",
    "one, in disguise": r"1|\sin^2 x+\cos^2 x|\tan 45^\circ|(1+\sqrt2)(\sqrt2-1)|-e^{i\pi}|\sin 90^{\circ}",
    "angles": r"\frac{\pi}{2}|\pi/2|0.5\pi|\frac12\pi|\frac{1}{2} \pi|π/2|\arcsin 1|2\arctan 1|\sin^{-1} 1",
    "logarithms": r"\ln 4|2\ln 2|\ln(4)|\ln{4}",
    "logarithm bases": r"3|\log_2 8|\log_{2}{8}|\log 1000",
    "large powers": r"2^{2023}|2\cdot 2^{2022}|4^{1011}\cdot2",
    "scientific": r"6.72 \times 10^{-5}|.0000672|6.72e-5",
    "complex": r"6-5i|-5i+6|6 - 5\cdot i|\frac{61}{6+5i}",
    "polynomials": "(a+5)(b+2)|ab+2a+5b+10|(b+2)(a+5)|10+5b+2a+ba",
    "identities": r"\cot x|\frac{\cos x}{\sin x}|\cot(x)|\frac{1}{\tan x}|1/\tan x",
    "idle symbols": r"x|2x/2|x+y-y|\frac{x^2}{x}|$x$",
    "subscripts": "x_1+x_2|x_{1}+x_{2}|x_2+x_1",
    "greek": r"\alpha+\beta|\beta+\alpha|β + α",
    "named unknown": r"5|x=5|x = 5|f(x)=5|\text{Area} = 5|AB=5|n=\frac{10}{2}|y=5|2+3=5",
    "chains": r"\frac{1}{2}|x = \frac{2}{4} = \frac12|P(A) = 0.5|\frac24=\frac12",
    "lines": "y=2x+3|2x+3|2x-y+3=0|y = 3+2x|4x-2y=-6|f(x)=2x+3",
    "planes": "5x-7y+11z+4=0|-5x+7y-11z-4=0|10x-14y+22z=-8",
    "circles": "x^2+y^2=4|2x^2+2y^2=8|4-x^2-y^2=0",
    "lists are sets": r"1,-2|-2,1|\{1,-2\}|-2 \text{ and } 1|x=1 or x=-2|x=1,-2|-2 or 1|x=1,x=-2|1, -2",
    "three of them": r"3, 5, 7|7,5,3|3, 5, and 7|\{5,3,7\}",
    "plus or minus": r"1\pm\sqrt{19}|1+\sqrt{19},1-\sqrt{19}|\{1-\sqrt{19}, 1+\sqrt{19}\}|x=1\pm\sqrt{19}",
    "a set of one": r"\{5\}|5",
    "membership": r"x \in [-2,7]|[-2,7]|-2\le x\le 7|7 \ge x \ge -2|\left[-2,7\right]|-2 \leq x \leqslant 7",
    "rays": r"(2,\infty)|x>2|2<x|(2, +\infty)|x \in (2,\infty)",
    "unions": r"(-\infty,2)\cup(3,\infty)|x<2 \text{ or } x>3|(3,\infty)\cup(-\infty,2)|x>3 or x<2",
    "all but one": r"x \ne 2|(-\infty,2)\cup(2,\infty)|x \neq 2",
    "the reals": r"\mathbb{R}|(-\infty,\infty)",
    "nothing": r"\emptyset|\{\}|\varnothing",
    "tuples": (
        r"(3,\frac{\pi}{2})|(3, \pi/2)|\left(3,\frac{\pi}{2}\right)|(r,\theta)=(3,\pi/2)|"
        r"\left( 3, \frac{\pi}{2} \right)"
    ),
    "tuples of thousands": "(1,234)|(1, 234)",
    "absolute values": r"3|\lvert -3 \rvert",
    "columns": r"\begin{pmatrix}-1/3\\2/3\end{pmatrix}|\begin{bmatrix} -\frac13 \\ \frac23 \\ \end{bmatrix}",
    "matrices": (
        r"\begin{pmatrix}1&2\\3&4\end{pmatrix}|\left[\begin{matrix}1&2\\3&4\end{matrix}\right]|"
        r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}"
    ),
    "words": r"\text{east}|east|East|\textbf{East}|\text{east.}|\mathrm{east}|\mbox{east}",
    "short words": r"\text{no}|no|No",
    "letters": r"\text{(C)}|(C)|C|\text{C}|C.|\textbf{(C)}|\mathrm{C}",
    "bases": r"52_8|52_{8}|(52)_8|52_{\text{eight}}|42|52_\text{eight}",
    "hexadecimal": "A5_{16}|165",
    "units": (
        r"5|5 cm|5\text{ cm}|5\mbox{ cm}^2|\$5|5 apples|5^\circ|5\text{ square units}|5 \text{ degrees}|5°|"
        r"5\,\text{cm}^{2}"
    ),
    "evaluated": (
        r"5|\frac{10}{2}|2+3|\binom{5}{1}|\sqrt{25}|\log_{2} 32|2(2.5)|\lfloor 5.9 \rfloor|\lceil 4.1 \rceil|"
        "5.0"
    ),
    "sums": r"55|\sum_{k=1}^{10} k|\frac{10\cdot 11}{2}",
    "words among numbers stay text": r"2 hours 30 minutes|2 \text{ hours } 30 \text{ minutes}",
    "determinants": r"-2|\begin{vmatrix}1&2\\3&4\end{vmatrix}|\sqrt[3]{-8}",
}  # fmt: skip

DIFFERENT = [
    "52_8", "52", r"50\%", "50", "1/3", "0.33", "0.333", "(1,2)", "(2,1)", "[1,2]", "[1,2)", r"\{1,2\}",
    r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}", r"\frac{1}{2^{99}}",
    r"\frac{1}{2^{98}}", "x^2", "x", "y", "X", r"\sqrt{x^2}", "-x", r"\text{east}", r"\text{west}", r"\sqrt{2}",
    "1.41421356", r"\pi", "3.14", r"\frac{22}{7}", "1,234,5", "12345", "x^2=4", r"\pm 4", r"\infty", r"-\infty",
    "2^{2023}", "2^{2022}", "i", "-i", "e", r"2\frac{1}{2}", "2", "10", "x<2", r"x \le 2", "x>2", r"x \ne 2",
    "x=1,y=2", "x=2,y=1", r"\sqrt{10^{100}+1}", "10^{50}", r"\sqrt{10^{100}+2}", "3:4", r"\frac{3}{4}", "4:3",
    r"\sin x", r"\sin^{-1}x", "ab", r"\text{ab}", "a+b", "5!", "5", r"\log 5", r"\ln 5", r"\sqrt[3]{5}",
    "5 million", "2,2", "10^{500}", "10^{501}", "58_8", "1.5", "15", "f(2)", r"\frac{1}{x}", "0", "-0.5",
    r"\frac{\pi}{2}", r"90^\circ", "A", "B", "abc", r"\triangle ABC", r"\angle ABC", "no solution",
    "2 hours 30 minutes", "2 hours 40 minutes",
]  # fmt: skip


def _key(answer: str) -> AnswerKey | None:
    """The full key, after checking that the quick path agrees wherever it has one."""
    full = full_key(Kind.MATH, answer)
    quick = quick_key(Kind.MATH, answer)
    match quick:
        case Keyed(key):
            assert key == full, answer
        case Unkeyable():
            assert full is None, answer
        case NeedsHelper():
            pass
    return full


@pytest.mark.parametrize("writings", SAME.values(), ids=SAME.keys())
def test_equal_values_share_a_key_whatever_their_form(writings: str) -> None:
    keys = {answer: _key(answer) for answer in writings.split("|") if answer}
    assert None not in keys.values(), keys
    assert len(set(keys.values())) == 1, keys


def test_different_values_never_share_a_key() -> None:
    seen: dict[AnswerKey | None, str] = {}
    for answer in DIFFERENT:
        key = _key(answer)
        assert key is not None, answer
        assert key not in seen, (answer, seen.get(key))
        seen[key] = answer


@pytest.mark.parametrize(
    "answer",
    ["", " ", "$$", r"\boxed{}", "{", "}", "((1,2)", r"\{2,3", "1,,2", "x=", r"\frac{1}{0}", "0^0", "(-3)!"],
)
def test_what_can_not_be_read_has_no_key(answer: str) -> None:
    assert isinstance(quick_key(Kind.MATH, answer), Unkeyable)
    assert full_key(Kind.MATH, answer) is None


def test_the_caller_s_process_reads_common_forms_by_itself() -> None:
    common = ["5", "-3.5", r"\frac{3}{4}", "1,000", r"50\%", r"1\frac12", r"\text{east}", "(1,2)", r"\sqrt{16}", "52_8"]
    assert all(isinstance(quick_key(Kind.MATH, answer), Keyed) for answer in common)
    assert all(isinstance(quick_key(Kind.MATH, answer), NeedsHelper) for answer in [r"\sqrt2", "x+1", r"\pi", "i"])


def test_long_keys_are_shortened_and_stay_apart() -> None:
    one, other = (full_key(Kind.MATH, "9" * 900 + last) for last in "12")
    assert one is not None
    assert other is not None
    assert one != other
    assert len(one) < 200


def test_a_choice_is_compared_without_case_or_spacing() -> None:
    assert quick_key(Kind.CHOICE, " New  York ") == quick_key(Kind.CHOICE, "new york")
    assert quick_key(Kind.CHOICE, "York") != quick_key(Kind.CHOICE, "new york")


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("a  b\n", "a b", True),
        ("a", "A", False),
        ("007", "7", False),
        ('{"b": 1, "a": [1.0, 1e2]}', '{"a":[1,100],"b":1}', True),
        ('{"a": 1.10}', '{"a": 1.1}', True),
        ('{"a": 1.5}', '{"a": {"number": "1.5"}}', False),
        ('{"a": "1"}', '{"a": 1}', False),
        ('{"a": 1e999999999}', '{"a": 1e999999998}', False),
        ('{"a": 0.1234567890123456789012345678901}', '{"a": 0.1234567890123456789012345678902}', False),
        ('"cat"', "cat", True),
        ("e\u0301", "\u00e9", True),
        ("[1, 2", "[1,2", False),
        ("true", "True", False),
    ],
)
def test_exact_answers_are_normalised_text_or_canonical_json(one: str, other: str, equal: bool) -> None:
    assert (quick_key(Kind.EXACT, one) == quick_key(Kind.EXACT, other)) is equal


def test_exact_answers_that_are_empty_or_endless_have_no_key() -> None:
    assert isinstance(quick_key(Kind.EXACT, " \n "), Unkeyable)
    assert isinstance(quick_key(Kind.EXACT, "x" * 100_001), Unkeyable)
    assert isinstance(quick_key(Kind.EXACT, "[" * 50_000 + "]" * 50_000), Keyed)  # not JSON for us: text


def test_kinds_without_a_vote_by_key_are_refused() -> None:
    with pytest.raises(ValueError, match="code"):
        quick_key(Kind.CODE, "print(1)")
