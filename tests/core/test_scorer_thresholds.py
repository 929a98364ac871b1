"""FrugalGPT's thresholds: the search against trying everything, the budget, the ties."""

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cope.core.money import NanoUSD
from cope.core.scorer_thresholds import MILLION, CannotFit, Case, fit_thresholds, outcome

Rows = list[Case]


def case(score: str | None, small: bool, large: bool, *, small_cost: int = 0, large_cost: int = 1000) -> Case:
    found = None if score is None else Fraction(score)
    return Case((found,), (small, large), (NanoUSD(small_cost), NanoUSD(large_cost)))


FOUR = [
    case("0.9", True, True),
    case("0.7", True, False),
    case("0.4", False, True),
    case(None, False, True),
]


def per_task(nano: int) -> int:
    return nano * MILLION


@st.composite
def rows(draw: st.DrawFn, models: int) -> Rows:
    score = st.one_of(st.none(), st.sampled_from([Fraction(k, 4) for k in range(5)]))
    one = st.builds(
        Case,
        st.tuples(*[score] * (models - 1)),
        st.tuples(*[st.booleans()] * models),
        st.tuples(*[st.integers(0, 9).map(NanoUSD)] * models),
    )
    return draw(st.lists(one, min_size=1, max_size=7))


def best_by_trying(cases: Rows, budget: int) -> tuple[int, int] | None:
    limits = [Fraction(k, 8) for k in range(9)]  # every score, and between every two
    found = [outcome(cases, thresholds) for thresholds in product(limits, repeat=len(cases[0].scores))]
    kept = [(one.right, -one.spent) for one in found if one.within(budget)]
    return max(kept, default=None)


@given(st.integers(2, 3).flatmap(rows), st.integers(0, 30))
def test_the_search_finds_what_trying_every_threshold_finds(cases: Rows, nano: int):
    wanted = best_by_trying(cases, per_task(nano))
    if wanted is None:
        with pytest.raises(CannotFit):
            fit_thresholds(cases, per_task(nano))
        return
    fit = fit_thresholds(cases, per_task(nano))

    assert (fit.outcome.right, -fit.outcome.spent) == wanted
    assert fit.exhaustive
    assert fit.outcome == outcome(cases, fit.thresholds)


def test_the_thresholds_are_those_with_the_most_right_answers_within_the_budget():
    fit = fit_thresholds(FOUR, per_task(500))

    assert fit.thresholds == (Fraction(45, 100),)  # half way between the scores 0.7 and 0.4
    assert (fit.outcome.right, fit.outcome.mean_cost, fit.outcome.answered) == (4, 500, (2, 2))


def test_a_smaller_budget_buys_fewer_right_answers():
    fit = fit_thresholds(FOUR, per_task(250))

    assert (fit.outcome.right, fit.outcome.spent, fit.outcome.answered) == (3, 1000, (3, 1))


def test_a_budget_is_kept_to_the_nano_dollar():
    assert fit_thresholds(FOUR, per_task(500)).outcome.right == 4
    assert fit_thresholds(FOUR, per_task(500) - 1).outcome.right == 3


def test_of_equally_right_thresholds_the_cheapest_is_taken():
    alike = [case("0.9", True, True), case("0.2", True, True)]

    assert fit_thresholds(alike, per_task(10**6)).outcome.spent == 0


def test_where_the_cheapest_is_too_dear_the_least_cost_is_told():
    with pytest.raises(CannotFit, match=r"250 nano-dollars per task is the least"):
        fit_thresholds(FOUR, per_task(249))


def test_a_score_is_judged_as_the_policy_judges_it_at_the_limit_it_does_not_accept():
    at_the_limit = [case("1/2", True, False)]

    assert outcome(at_the_limit, [Fraction(1, 2)]).answered == (0, 1)
    assert outcome(at_the_limit, [Fraction(51, 100)]).answered == (1, 0)


def test_too_many_thresholds_to_try_are_thinned_and_the_result_says_so():
    many = [
        Case((Fraction(i, 40), Fraction(40 - i, 41)), (i > 20, i > 10, True), (NanoUSD(1), NanoUSD(10), NanoUSD(100)))
        for i in range(40)
    ]
    whole, thinned = fit_thresholds(many, per_task(60)), fit_thresholds(many, per_task(60), most_steps=200)

    assert whole.exhaustive
    assert not thinned.exhaustive
    assert thinned.outcome.within(per_task(60))
    assert thinned.outcome.right <= whole.outcome.right


def test_without_rows_nothing_is_fitted():
    with pytest.raises(CannotFit, match="no rows"):
        fit_thresholds([], per_task(1))
