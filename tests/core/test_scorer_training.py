"""Training a scorer, without the library that fits the weights: rows, parts, refusals, versions."""

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from cope.core.problem import Message
from cope.core.scorer import Scorer, TierScorer
from cope.core.scorer_report import parse_budget
from cope.core.scorer_rows import BadRow, Row, conversation_of, labelled_row, result_row
from cope.core.scorer_thresholds import MILLION, CannotFit
from cope.core.scorer_training import Example, Part, Weights, split, train, versioned, with_thresholds
from tests.core.scorer_rows import labelled

QUARTER = Fraction(1, 4)
ROW = {"problem": "What is 2 + 3?", "model": "s", "text": "The answer is 5.", "correct": True, "cost_usd": "0.0004"}


def sure_of_equations(examples: Sequence[Example]) -> Weights:
    return -2.0, {"solution_equations": 4.0, "hedges": 0.0}


def rows(count: int = 120) -> list[Row]:
    found = [labelled_row(data) for data in labelled(count)]
    return [replace(row, correct=row.sample.answer == row.gold, gold=None) for row in found]


def trained(found: list[Row], models: Sequence[str] = ("s", "l"), fitter: Any = sure_of_equations) -> Any:
    return train(found, models, "sums", split((row.group for row in found), 7, QUARTER, QUARTER), fitter)


def test_no_problem_is_in_two_parts_and_equal_seeds_give_equal_parts_in_any_order():
    groups = [f"problem {i}" for i in range(100)]
    parts = split(groups, 3, QUARTER, QUARTER)

    assert [list(parts.values()).count(part) for part in (Part.TRAIN, Part.FIT, Part.TEST)] == [50, 25, 25]
    assert split(reversed(groups * 2), 3, QUARTER, QUARTER) == parts
    assert split(groups, 4, QUARTER, QUARTER) != parts


@pytest.mark.parametrize(("fit", "test"), [("0", "1/4"), ("1/4", "0"), ("1/2", "1/2")])
def test_shares_that_leave_a_part_empty_are_refused(fit: str, test: str):
    with pytest.raises(CannotFit, match="shares"):
        split(["a"], 0, Fraction(fit), Fraction(test))


def test_a_scorer_is_trained_on_its_part_alone_and_judged_on_the_others():
    seen: list[Example] = []

    def remember(examples: Sequence[Example]) -> Weights:
        seen.extend(examples)
        return sure_of_equations(examples)

    made = trained(rows(), fitter=remember)
    parts = split((row.group for row in rows()), 7, QUARTER, QUARTER)

    assert {parts[example.group] for example in seen} == {Part.TRAIN}
    assert (len(seen), len(made.fit), len(made.test), made.rows) == (60, 30, 30, {"s": 60})
    assert made.scorer.tiers == (TierScorer("s", -2.0, (("solution_equations", 4.0),), Fraction(0)),)
    assert {case.costs for case in made.fit} == {(0, 1000)}


def test_a_problem_that_one_model_has_not_answered_chooses_no_thresholds():
    found = rows()
    lone = [row for row in found if row.group != "What is 15 plus 6?" or row.model == "s"]
    parts = split((row.group for row in found), 7, QUARTER, QUARTER)

    assert trained(lone).incomplete == (parts["What is 15 plus 6?"] is not Part.TRAIN)


@pytest.mark.parametrize(
    ("found", "models", "said"),
    [
        (rows(30), ("s", "l"), "16 readable rows of model 's'"),
        (rows(60), ("s", "l"), "15 problems to fit thresholds on"),
        ([r for r in rows() if r.correct], ("s", "l"), "rows of model 's' are right"),
        ([replace(r, correct=False) for r in rows()], ("s", "l"), "rows of model 's' are wrong"),
        (rows(), ("s", "m"), "No row is of model 'm'. Models in the rows: l, s."),
        (rows(), ("s",), "two different models"),
        (rows(), ("s", "s"), "two different models"),
    ],
)
def test_rows_that_can_teach_nothing_are_refused_by_name(found: list[Row], models: tuple[str, ...], said: str):
    with pytest.raises(CannotFit, match=re.escape(said)):
        trained(found, models)


def test_an_answer_that_cannot_be_read_teaches_nothing_and_has_no_score():
    blank = [replace(row, sample=replace(row.sample, answer=None)) if row.model == "s" else row for row in rows()]

    with pytest.raises(CannotFit, match="0 readable rows"):
        trained(blank)


def test_a_version_is_its_content():
    scorer = Scorer("sums", "anything", (TierScorer("s", -2.0, (("hedges", 1.0),), QUARTER),), "l")

    assert versioned(scorer) == versioned(replace(scorer, version="else"))
    assert re.fullmatch("[0-9a-f]{16}", versioned(scorer).version)
    assert with_thresholds(scorer, [Fraction(1, 2)]).version != with_thresholds(scorer, [QUARTER]).version


def test_a_labelled_row_is_read_as_the_policy_would_see_it():
    row = labelled_row(ROW)

    assert (row.model, row.sample.answer, row.cost, row.correct, row.readable) == ("s", "5", 400_000, True, True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": None}, "`model`"),
        ({"problem": ""}, "`problem`"),
        ({"messages": [{"role": "user", "content": "?"}]}, "not both"),
        ({"gold": "5"}, "one of `correct`"),
        ({"correct": None}, "one of `correct`"),
        ({"correct": "yes"}, "true or false"),
        ({"cost_nanousd": 1}, "one of `cost_nanousd`"),
        ({"cost_usd": 0.0004}, "no digit is lost"),
        ({"cost_usd": "cheap"}, "cost_usd"),
        ({"cost_usd": None}, "0 is free"),
        ({"cost_usd": None, "cost_nanousd": -1}, "from 0"),
        ({"kind": "poem"}, "`kind`"),
        ({"kind": "open"}, "'open'"),
        ({"kind": "choice"}, "`choices`"),
        ({"finish_reason": 3}, "finish_reason"),
    ],
)
def test_a_labelled_row_that_says_too_little_or_too_much_is_refused(change: dict[str, object], said: str):
    with pytest.raises(BadRow, match=re.escape(said)):
        labelled_row({key: value for key, value in {**ROW, **change}.items() if value is not None})


ASKED = (Message("user", "What is 2 + 3?"),)


def line(**change: object) -> dict[str, Any]:
    step = {"name": "solve", "stage": 3, "role": "executor", "model": "l", "n": 1, "cost_nanousd": 7}
    first = {"name": "stage1", "stage": 1, "role": "planner+executor", "model": "s", "n": 8, "cost_nanousd": 16}
    cope = {"kind": "math", "stage": 3, "answer": "5", "steps": [first, step]} | change
    choice = {"message": {"content": "It is 5."}, "finish_reason": "stop"}
    return {"custom_id": "a", "response": {"body": {"choices": [choice], "cope": cope}}}


def test_a_line_of_results_is_the_answer_of_the_step_that_it_was_taken_from():
    last, first = result_row(line(), ASKED, "5"), result_row(line(stage=1), ASKED, "5")

    assert isinstance(last, Row)
    assert isinstance(first, Row)
    assert (last.model, last.cost, last.sample.solution, last.sample.answer) == ("l", 7, "It is 5.", "5")
    assert (first.model, first.cost) == ("s", 2)


@pytest.mark.parametrize(
    ("change", "why"),
    [({"steps": []}, "no answer"), ({"cached": True}, "stored result"), ({"kind": "open"}, "'open'")],
)
def test_a_line_of_results_that_teaches_nothing_says_why(change: dict[str, object], why: str):
    found = result_row(line(**change), ASKED, "5")

    assert isinstance(found, str)
    assert why in found


def test_the_problem_is_found_in_the_body_of_a_chat_completion_and_of_a_response():
    parts = [{"type": "input_text", "text": "What is 2 + 3?"}]

    assert conversation_of({"messages": [{"role": "user", "content": "What is 2 + 3?"}]}) == ASKED
    assert conversation_of({"input": "What is 2 + 3?"}) == ASKED
    assert conversation_of({"input": [{"role": "user", "content": parts}]}) == ASKED


def test_a_budget_is_exact_in_both_spellings():
    assert parse_budget("0.0004", 1).per_million == parse_budget("400", MILLION).per_million == 400 * 10**9
    assert parse_budget("0.0000000001", 1).per_million == 100_000
    for wrong in ("-1", "nan", "much", "1e99", "0.0000000000000001"):
        with pytest.raises(ValueError, match="amount"):
            parse_budget(wrong, 1)
