"""Answers made to hurt: refused by cheap guards, or left to the helper, never computed in the caller's process."""

import tracemalloc

import pytest

from cope.core.answers import NeedsHelper, Unkeyable, extract, quick_key
from cope.core.answers.symbolic import full_key
from cope.core.problem import Kind, Message, Problem

TOO_LARGE = [
    "10^6!",
    "(10^6)!",
    r"\binom{10^9}{5\cdot10^8}",
    "9^{9^{9^9}}",
    "2^{2^{2^{2^{2^{2}}}}}",
    r"e^{e^{e^{e^{9}}}}",
    "10^{-10^{9}}",
    r"\sqrt{2}^{10^{12}}",
    r"\sin(10^{10^{7}})",
    r"(3!)!!!!!",
    r"\tan 90^\circ",
    "1" * 1990 + "!",
]
TOO_DEEP = [
    "(" * 900 + "1" + ")" * 900,
    "{" * 60 + "1" + "}" * 60,
    "2^" * 900 + "2",
    "1+" * 900 + "1",
    "5" + "!" * 1000,
    r"\sqrt" * 300 + "2",
    r"\frac{" * 300,
    r"\ln" * 400 + "2",
    "|" * 1999,
    "1," * 900 + "1",
    "((((((((" * 100,
    "x" * 1_000_000,
    r"\boxed{" * 100 + "}" * 100,
]


@pytest.mark.parametrize("answer", TOO_LARGE, ids=lambda answer: answer[:20])
def test_values_too_large_or_undefined_have_no_key_and_are_never_computed(answer: str) -> None:
    tracemalloc.start()
    assert isinstance(quick_key(Kind.MATH, answer), NeedsHelper | Unkeyable)
    assert full_key(Kind.MATH, answer) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 2**20


@pytest.mark.parametrize("answer", TOO_DEEP, ids=lambda answer: answer[:20])
def test_answers_too_long_or_too_deep_have_no_key(answer: str) -> None:
    assert isinstance(quick_key(Kind.MATH, answer), Unkeyable)
    assert full_key(Kind.MATH, answer) is None


@pytest.mark.parametrize("kind", [Kind.MATH, Kind.CHOICE, Kind.EXACT])
@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 100_000,
        "Answer: " * 100_000,
        "the answer is " * 100_000,
        "\n" * 1_000_000,
        " " * 1_000_000,
        "[" * 1_000_000,
        '{"a":"' * 100_000,
        "```\n" * 100_000,
        "a or b " * 100_000,
        "1,234," * 100_000,
        ". " * 500_000,
        "\x00\ud800" * 1000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_extraction_from_megabytes_of_hostile_text_ends(kind: Kind, text: str) -> None:
    choices = ("a", "b") if kind is Kind.CHOICE else ()
    pointer = "/a" if kind is Kind.EXACT else None
    extract(Problem(kind, (Message("user", "?"),), choices=choices, answer_pointer=pointer), text)
