"""Thresholds chosen from traffic: literal rows, and the promise of each rule."""

import random
from fractions import Fraction

import pytest

from cope.core.calibration import (
    CannotCalibrate,
    Case,
    binomial_tail,
    by_budget,
    by_error,
    by_share,
    upper_bound,
)
from cope.core.calibration_rows import Unusable, policy_block, read_rows, theta_text
from cope.core.money import NanoUSD
from cope.core.problem import Kind


def case(surety: str | None, *, cost: int = 0, correct: bool | None = None) -> Case:
    return Case(None if surety is None else Fraction(surety), NanoUSD(cost), escalated=cost > 0, correct=correct)


ROWS = [case(s) for s in ("1", "7/8", "7/8", "3/4", "5/8", "1/2", "1/2", "3/8", "1/4", None)]


@pytest.mark.parametrize(
    ("share", "threshold", "accepted"), [("0.4", "1/2", 7), ("0.5", "5/8", 5), ("0.9", "1", 1), ("0.1", "1/4", 9)]
)
def test_a_share_of_large_calls_gives_the_strictest_threshold_that_keeps_it(
    share: str, threshold: str, accepted: int
) -> None:
    chosen = by_share(ROWS, Fraction(share))
    assert (chosen.threshold, chosen.accepted) == (Fraction(threshold), accepted)
    assert chosen.large_share <= Fraction(share)


def test_a_share_below_that_of_unreadable_rows_is_refused_with_the_lowest_there_is() -> None:
    with pytest.raises(CannotCalibrate, match=r"1 of 10 rows .* 0\.100"):
        by_share(ROWS, Fraction(1, 20))


def test_a_budget_takes_rows_that_did_not_escalate_at_the_usual_cost_of_those_that_did() -> None:
    rows = [case("1"), case("3/4"), case("1/2", cost=300), case("1/4", cost=500)]
    assert by_budget(rows, NanoUSD(199)).threshold == Fraction(1, 2)  # 500 / 4 = 125; at 3/4 it is 800 / 4
    chosen = by_budget(rows, NanoUSD(300))
    assert (chosen.threshold, chosen.mean_cost) == (Fraction(1), 300)
    with pytest.raises(CannotCalibrate, match="No row"):
        by_budget([case("1")], NanoUSD(1))


def test_a_budget_too_small_for_any_threshold_names_the_least() -> None:
    with pytest.raises(CannotCalibrate, match="250 nano-dollars"):
        by_budget([case(None, cost=500), case("1")], NanoUSD(100))


def test_an_error_bound_accepts_as_much_as_the_labels_prove_and_no_more() -> None:
    rows = [case("1", correct=True)] * 200 + [case("1/2", correct=False)] * 50
    chosen = by_error(rows, Fraction(1, 20), Fraction(19, 20))
    assert (chosen.threshold, chosen.accepted, chosen.errors) == (1, 200, 0)
    assert chosen.error_bound is not None
    assert chosen.error_bound < 0.05


def test_rows_without_a_label_end_the_search_and_too_few_are_refused() -> None:
    rows = [case("1", correct=True)] * 200 + [case("1/2")] + [case("1/4", correct=True)] * 200
    assert by_error(rows, Fraction(1, 20), Fraction(19, 20)).accepted == 200
    with pytest.raises(CannotCalibrate, match="labelled"):
        by_error([case("1", correct=True)] * 20, Fraction(1, 20), Fraction(19, 20))


def test_the_bound_holds_as_often_as_promised_on_rows_of_a_known_error() -> None:
    chance, broken = random.Random(7), 0
    for _ in range(200):
        rows = []
        for _ in range(300):
            surety = Fraction(chance.randrange(1, 9), 8)
            rows.append(Case(surety, NanoUSD(0), escalated=False, correct=chance.random() < 0.7 + 0.29 * float(surety)))
        try:
            threshold = by_error(rows, Fraction(1, 10), Fraction(9, 10)).threshold
        except CannotCalibrate:
            continue
        levels = [k / 8 for k in range(1, 9) if Fraction(k, 8) >= threshold]
        broken += sum(0.3 - 0.29 * level for level in levels) / len(levels) > 0.1
    assert broken <= 20


def test_binomial_tails_and_bounds_have_their_known_values() -> None:
    assert binomial_tail(0, 10, 0.5) == pytest.approx(1 / 1024)
    assert binomial_tail(10, 10, 0.3) == pytest.approx(1.0)
    assert upper_bound(0, 59, 0.05) == pytest.approx(0.0495, abs=1e-4)
    assert upper_bound(3, 3, 0.05) == 1.0


def line(custom_id: str, confidence: float | None, *, kind: str = "math", n: int = 8, cost: int = 0, **cope: object):
    first = {"name": "stage1", "stage": 1, "model": "s", "n": n, "cost_nanousd": 0}
    if confidence is not None:
        first["confidence"] = confidence
    later = {"name": "stage2-plan", "stage": 2, "model": "l", "n": 1, "cost_nanousd": cost}
    block = {"policy": "cope", "kind": kind, "steps": [first] + ([later] if cost else []), **cope}
    return {"custom_id": custom_id, "response": {"status_code": 200, "body": {"cope": block}}}


def test_result_lines_become_cases_and_a_policy_block() -> None:
    lines = [line("a", 0.875), line("b", 0.5, cost=40), line("c", 0.0, cost=60), {"custom_id": "d", "response": None}]
    rows = read_rows(lines, {"a": True, "b": False})
    assert [(c.surety, c.cost, c.correct) for c in rows.all] == [
        (Fraction(7, 8), 0, True),
        (Fraction(1, 2), 40, None),
        (None, 60, None),
    ]
    assert rows.skipped == {"have no answer": 1}
    block = policy_block(rows, {"default": by_share(rows.all, Fraction(2, 3))})
    assert block == {"policy": "cope", "kind": "math", "n": 8, "small": "s", "tau1": "7/8"}


def test_open_lines_are_sorted_by_category_and_each_turn_is_a_case() -> None:
    lines = [line(f"w{i}", 2 + i / 10, kind="open", category="writing") for i in range(20)]
    lines += [line("m", 1.5, kind="open", category="maths")]
    turned = line("t", 3.0, kind="open")
    body = turned["response"]["body"]["cope"]
    body["steps"].append({**body["steps"][0], "name": "turn2/stage1", "confidence": 4.0})
    rows = read_rows([*lines, turned], {})
    assert rows.kind is Kind.OPEN
    assert rows.calibrated == ("writing",)
    assert [c.surety for c in rows.cases[""]] == [-3, -4]
    choices = {
        "default": by_share(rows.all, Fraction(1, 2)),
        "writing": by_share(rows.cases["writing"], Fraction(1, 2)),
    }
    assert policy_block(rows, choices)["theta"] == {"default": "3", "writing": "2.9"}


def test_a_theta_is_rounded_up_so_that_its_own_row_is_accepted() -> None:
    assert theta_text(Fraction(-2.123456789)) == "2.123457"
    assert theta_text(Fraction(-3)) == "3"


def test_mixed_files_and_files_without_a_cascade_are_refused() -> None:
    with pytest.raises(Unusable, match="kinds"):
        read_rows([line("a", 0.5), line("b", 2.0, kind="open")], {})
    with pytest.raises(Unusable, match="n = 8 and n = 4"):
        read_rows([line("a", 0.5), line("b", 0.5, n=4)], {})
    with pytest.raises(Unusable, match="1 are of a policy"):
        read_rows([line("a", 0.5, policy="small-majority")], {})
    with pytest.raises(Unusable, match="empty"):
        read_rows([], {})
