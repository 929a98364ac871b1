"""Real answers, where the data files are present beside the checkout (they are not ours to ship)."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cope.core.answers import Keyed, Unkeyable, extract, quick_key
from cope.core.answers.symbolic import full_key
from cope.core.problem import Kind, Message, Problem

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
MATH = Problem(Kind.MATH, (Message("user", "?"),))


def _rows(name: str) -> list[dict[str, Any]]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not here")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _rewritings(gold: str) -> list[str]:
    """Other ways in which a model writes the same answer."""
    spaced = re.sub(r"([,=+()\[\]])", r" \1 ", gold) if r"\!" not in gold and "," not in gold else gold
    bracketed = re.sub(r"(?<![\\A-Za-z])([(\[])", r"\\left\1", gold)
    bracketed = re.sub(r"([)\]])", r"\\right\1", bracketed)
    forms = [
        gold.replace(r"\frac", r"\dfrac").replace(r"\dd", r"\d"),
        gold.replace(r"\dfrac", r"\frac").replace(r"\frac", r"\tfrac"),
        f"  {gold} ",
        f"{gold}.",
        f"${gold}$",
        f"\\({gold}\\)",
        f"$${gold}$$",
        rf"\boxed{{{gold}}}",
        rf"$\boxed{{{gold}}}$.",
        rf"\displaystyle {gold}",
        spaced,
        gold.replace(r"\left", "").replace(r"\right", ""),
        gold.replace("pmatrix", "bmatrix"),
        gold.replace(r"\text", r"\mbox"),
        gold.replace(r"\mbox", r"\text"),
        gold.replace(r"\text", r"\textbf"),
        gold.replace(r"^\circ", r"^{\circ}"),
        gold.replace(r"\$", ""),
    ]
    if r"\left" not in gold and not re.search(r"\\[{}]|[A-Za-z]\(", gold):
        forms.append(bracketed)
    if re.fullmatch(r"[-\d./\\{}frac sqti]+", gold):
        forms += [f"x={gold}", f"x = {gold}", rf"\text{{Total}} = {gold}", rf"{gold} \text{{ units}}"]
    if re.fullmatch(r"-?\d{4,}", gold):
        forms.append(f"{int(gold):,}")
    return forms


def test_every_gold_answer_of_math_500_equals_itself_in_its_usual_rewritings() -> None:
    for row in _rows("math500.jsonl"):
        gold = row["answer"]
        key = full_key(Kind.MATH, gold)
        assert key is not None, gold
        assert not key.startswith('"') or r"\text" in gold, (gold, key)  # read as mathematics, not kept as text
        for written in _rewritings(gold):
            assert full_key(Kind.MATH, written) == key, (gold, written)
            quick = quick_key(Kind.MATH, written)
            assert not isinstance(quick, Unkeyable), written
            assert not isinstance(quick, Keyed) or quick.key == key, written


def test_every_solution_of_math_500_states_its_gold_answer() -> None:
    for row in _rows("math500.jsonl"):
        stated = extract(MATH, row["solution"])
        assert stated is not None, row["id"]
        assert full_key(Kind.MATH, stated) == full_key(Kind.MATH, row["answer"]), (stated, row["answer"])


def test_gold_answers_of_math_500_share_a_key_only_where_they_are_equal_or_differ_in_unit_or_base() -> None:
    by_key: dict[str | None, set[str]] = {}
    for row in _rows("math500.jsonl"):
        by_key.setdefault(full_key(Kind.MATH, row["answer"]), set()).add(row["answer"].replace(" ", ""))
    merged = sorted(sorted(answers) for answers in by_key.values() if len(answers) > 1)
    assert merged == [
        ["-2,1", "1,-2"],
        ["10,\\!080", "10080"],
        ["120", "120^\\circ"],
        ["15", "15\\mbox{cm}^2"],
        ["204_5", "54"],
        ["30", "30^\\circ"],
        ["36", "36^\\circ", "40_9", "\\$36"],
        ["42", "52_8"],
        ["5", "x=5"],
        ["90", "90^\\circ"],
        ["\\frac14", "\\frac{1}{4}"],
    ]


def test_printed_aime_answers_equal_their_integers() -> None:
    for row in _rows("aime2024.jsonl"):
        assert quick_key(Kind.MATH, row["answer_text"]) == quick_key(Kind.MATH, str(row["answer"]))


def test_every_gsm8k_solution_states_its_answer() -> None:
    for row in _rows("gsm8k_test.jsonl"):
        stated = extract(MATH, row["solution"])
        assert stated is not None
        assert quick_key(Kind.MATH, stated) == quick_key(Kind.MATH, row["answer"]), (stated, row["answer"])


def test_recorded_chains_of_thought_are_read_as_they_were_marked() -> None:
    agreed = total = 0
    for row in _rows("recorded_gsm8k_200.jsonl"):
        for sample in row["samples"]:
            if not sample["prompt_style"].startswith("cot"):
                continue
            stated = extract(MATH, sample["text"])
            right = stated is not None and quick_key(Kind.MATH, stated) == quick_key(Kind.MATH, str(row["answer"]))
            agreed += right == sample["correct"]
            total += 1
    assert agreed >= 0.99 * total, (agreed, total)
