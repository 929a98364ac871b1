"""Votes, policies and intervals of the evaluation."""

import random
from fractions import Fraction

import pytest
from simulate import (
    NOTHING,
    Drawn,
    Spent,
    cope,
    large_only,
    p1_star,
    planless_cascade,
    read_answer,
    small_majority,
    vote,
    wilson,
)

T75, T50 = Fraction(3, 4), Fraction(1, 2)
GUIDELINE, STAGE3, LARGE = Spent(80, 20), Spent(110, 90), Spent(75, 95)


def drawn(stage1: list[int | None], stage2: list[int | None], stage3: int | None = 7) -> Drawn:
    return Drawn(7, tuple(stage1), tuple(stage1), tuple(stage2), stage3, 7, GUIDELINE, STAGE3, LARGE)


def test_the_last_box_is_the_answer() -> None:
    assert read_answer(r"1 + 2 = 3. \boxed{3} no, \boxed{4}") == 4
    assert read_answer("nothing boxed") is None


def test_an_unreadable_answer_counts_below_the_line_and_never_wins() -> None:
    assert vote([None, None, 5, None]) == (5, Fraction(1, 4))
    assert vote([None, None]) == (None, Fraction(0))


def test_a_tie_goes_to_the_answer_drawn_first() -> None:
    assert vote([3, 9, 9, 3]) == (3, Fraction(1, 2))


def test_the_plan_handed_on_joined_the_majority() -> None:
    assert {p1_star([1, 2, 2, None], random.Random(i)) for i in range(50)} == {1, 2}
    assert {p1_star([None, None], random.Random(i)) for i in range(50)} == {0, 1}


def test_six_of_eight_end_in_stage_1_at_no_cost() -> None:
    outcome = cope(drawn([7] * 6 + [1, 2], [1] * 8), T75, T50)
    assert (outcome.right, outcome.stage, outcome.cost) == (True, 1, NOTHING)


def test_four_of_eight_end_in_stage_2_at_0_5_and_go_on_at_0_75() -> None:
    unsure = drawn([7] * 5 + [1] * 3, [2] * 4 + [7] * 3 + [None])
    assert cope(unsure, T75, T50).stage == 2
    assert cope(unsure, T75, T50).cost == GUIDELINE
    assert not cope(unsure, T75, T50).right
    further = cope(unsure, T75, T75)
    assert (further.right, further.stage, further.cost) == (True, 3, Spent(190, 110))


def test_the_cascade_without_plans_pays_the_large_model_only_where_the_vote_is_split() -> None:
    assert planless_cascade(drawn([7] * 8, []), T75).cost == NOTHING
    assert planless_cascade(drawn([1] * 4 + [7] * 4, []), T75) == large_only(drawn([1] * 4 + [7] * 4, []))
    assert small_majority(drawn([1] * 4 + [7] * 4, [])).right is False


@pytest.mark.parametrize(
    ("right", "total", "low", "high"), [(0, 0, 0.0, 1.0), (0, 10, 0.0, 0.2775), (50, 100, 0.4038, 0.5962)]
)
def test_wilsons_interval_at_known_points(right: int, total: int, low: float, high: float) -> None:
    assert wilson(right, total) == pytest.approx((low, high), abs=1e-4)
