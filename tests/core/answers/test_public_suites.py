"""Equality and extraction as public suites have them, with the rulings where they conflict."""

import pytest

from cope.core.answers import Keyed, Unkeyable, extract, quick_key
from cope.core.answers.symbolic import full_key
from cope.core.problem import Kind, Message, Problem
from tests.core.answers.public_suites import ADJUDICATED, PAIRS

ASKED = (Message("user", "?"),)
MATH = Problem(Kind.MATH, ASKED)
LETTERS = ("A", "B", "C", "D")
CITIES = ("Paris", "Rome", "Bern", "Oslo")

GOLDS = [
    r"\left( 3, \frac{\pi}{2} \right)", "p - q", r"\frac{14}{3}", "9", r"\text{Evelyn}", "42", "27", r"90^\circ",
    r"3\sqrt{13}", "4", "2220", r"\frac{3}{56}", "284", "5", r"\sqrt{51}", "6 - 5i", "-50", r"\pi", "28", "3",
    r"6+9i", "13535", r"x^3+3x-6", r"\frac{1}{3}", "1,-2", "144", "78", "-2 + 7i", r"225",
    r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
    r"(-\infty, 2) \cup (3, \infty)", "[-2,7]", "y = 2x + 3", r"11\sqrt2", "(6,31,-1)", r"\text{June 20}",
    r"2516_8", "58,500", r"10\%", r"1 \pm \sqrt{19}", r"3R^2", r"\tan x", r"\cot x", r"\sec x", "0.35625",
]  # fmt: skip
"""Answers of the kinds that MATH-500's golds have, all of them different."""


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.suite}: {pair.one[:30]} / {pair.other[:30]}")
def test_pairs_are_equal_exactly_where_the_suites_say_so(pair: tuple[str, str, str, bool]) -> None:
    suite, one, other, equal = pair
    assert _same(one, other) is equal, (suite, one, other)


def test_where_suites_conflict_each_ruling_is_kept_and_differs_from_the_suite_s() -> None:
    for ruling in ADJUDICATED:
        assert _same(ruling.one, ruling.other) is ruling.ours is not ruling.theirs, ruling
        assert ruling.why


def test_the_quick_path_never_contradicts_the_helper_on_any_of_them() -> None:
    for pair in (*PAIRS, *ADJUDICATED):
        for answer in (pair.one, pair.other):
            quick = quick_key(Kind.MATH, answer)
            if isinstance(quick, Keyed | Unkeyable):
                key = quick.key if isinstance(quick, Keyed) else None
                assert full_key(Kind.MATH, answer) == key, answer


def test_distinct_golds_never_share_a_key() -> None:
    keys = {gold: full_key(Kind.MATH, gold) for gold in GOLDS}
    assert None not in keys.values()
    assert len(set(keys.values())) == len(GOLDS)


def _same(one: str, other: str) -> bool:
    key = full_key(Kind.MATH, one)
    return key is not None and key == full_key(Kind.MATH, other)


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        (r"The integers are \boxed{-2} and \boxed{1}.", "-2, 1"),
        (r"\[ \boxed{-2} \quad \text{and} \quad \boxed{1}. \]", "-2, 1"),
        (r"$\boxed{1}\boxed{2}$", "1, 2"),
        (r"$x=\boxed{1}$ or $x=\boxed{2}$", "1, 2"),
        (r"\boxed{2}, \boxed{3}, and \boxed{5}", "2, 3, 5"),
        (r"\boxed{5}. So the answer is \boxed{6}.", "6"),
        ("\\boxed{5}\n\nTo sum up: \\boxed{5}", "5"),
        (r"First \boxed{4} gives \boxed{8}", "8"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed{3} and \boxed{", "3"),
        ("Final Answer: The largest $n$ is 34.", "The largest $n$ is 34"),
        ("The answer is $1/3.$", "$1/3.$"),
        ("We get 12 in all.\n#### 12", "12"),
    ],
)
def test_boxes_joined_by_words_state_one_answer_of_several_members(text: str, stated: str) -> None:
    assert extract(MATH, text) == stated


@pytest.mark.parametrize(
    ("choices", "text", "chosen"),
    [
        (LETTERS, "thinking about it, I think the correct answer is C", "C"),
        (LETTERS, "Step by step. It's not A because it makes no sense, therefore I think it's B", "B"),
        (LETTERS, "The answer is for sure D, it can't be A or B", "D"),
        (LETTERS, "The answer: D, it doesn't make sense for the answer to be A or B", "D"),
        (LETTERS, "D. it can't be A or B", "D"),
        (LETTERS, "réponse est C non A", "C"),
        (LETTERS, "I think a cat would choose C.", "C"),
        (LETTERS, "(d)", "D"),
        (LETTERS, r"\boxed{\text{(B)}}", "B"),
        (LETTERS, "The answer is A or B.", None),
        (LETTERS, "It is not C.", None),
        (LETTERS, "Neither A nor B.", None),
        (CITIES, "It's not A because it rains, therefore I think it's B", "Rome"),
        (CITIES, "The answer is for sure D, it can't be A or B", "Oslo"),
        (CITIES, "The answer is Rome, not Paris", "Rome"),
        (CITIES, "Paris is wrong. The answer is Bern.", "Bern"),
        (CITIES, "The correct option is C.", "Bern"),
        (CITIES, "Rather than Paris, Oslo", "Oslo"),
        (CITIES, "Not Paris, Rome or Bern; Oslo", "Oslo"),
        (CITIES, "The answer is Paris or Rome", None),
    ],
)
def test_a_choice_is_what_is_affirmed_not_what_is_denied(
    choices: tuple[str, ...], text: str, chosen: str | None
) -> None:
    assert extract(Problem(Kind.CHOICE, ASKED, choices=choices), text) == chosen


@pytest.mark.parametrize(
    "text",
    [
        "not A" + " " * 20_000,
        "not A, " * 3_000,
        "not " * 5_000,
        "not A" + ", A" * 6_000,
        "is (A" * 4_000,
        "\n" * 20_000,
    ],
)
def test_denials_without_end_are_read_in_bounded_time(text: str) -> None:
    assert extract(Problem(Kind.CHOICE, ASKED, choices=LETTERS), f"{text} or") in {None, "A"}
