"""The baseline FrugalGPT (section 5; Chen et al. 2023): a learned scorer, thresholds bought with a budget.

What the training counts on rows must be what the policy does with a task, or the thresholds would be fitted to
something else.
"""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest

from cope.core.money import NanoUSD
from cope.core.policies.decision import Accept
from cope.core.policies.options import BaselineOptions, Seat
from cope.core.policies.spec import PolicyName
from cope.core.scorer import Scorer, TierScorer, score
from cope.core.scorer_thresholds import MILLION, Case, fit_thresholds, outcome
from cope.core.scorer_training import with_thresholds
from cope.core.stages import Tier
from tests.core.policies.place import play
from tests.support import make_policy, make_problem, make_spec, sample

BY_NUMBERS = TierScorer("a", -2.0, (("answer_is_number", 4.0),), Fraction(0))
BY_LENGTH = TierScorer("b", -1.0, (("answer_chars", 1.0),), Fraction(0))
UNTUNED = Scorer("two", "0", (BY_NUMBERS, BY_LENGTH), "c")
SEATS = ((Seat("a", Tier.SMALL),), (Seat("b", Tier.SMALL),), (Seat("c", Tier.LARGE),))
ANSWERS: list[tuple[str | None, str | None, str]] = [
    ("5", "6", "7"),
    ("five", "fifty-five", "5"),
    (None, "5", "6"),
    ("five", None, "5"),
    (None, None, "5"),
    ("12", "a very long answer", "12"),
]
COSTS = (NanoUSD(1), NanoUSD(10), NanoUSD(100))


def case(answers: Sequence[str | None], right: str) -> Case:
    scores = tuple(
        None if answer is None else score(tier, make_problem(), sample(0, answer))
        for tier, answer in zip(UNTUNED.tiers, answers, strict=False)
    )
    return Case(scores, tuple(answer == right for answer in answers), COSTS)


def answered_by(scorer: Scorer, answers: Sequence[str | None]) -> int:
    """Which model's answer the policy returns, from 0."""
    options = BaselineOptions(tiers=SEATS, scorer=scorer)
    task = make_spec(policy=replace(make_policy(PolicyName.FRUGALGPT), baseline=options))
    _, ended = play(task, dict(zip(("tier1", "tier2", "solve"), ([answer] for answer in answers), strict=True)))
    assert isinstance(ended, Accept)
    return ("tier1", "tier2", "solve").index(ended.step)


@pytest.mark.parametrize("first", ["0", "1/8", "1/2", "1"])
@pytest.mark.parametrize("second", ["0", "1/2", "3/4", "1"])
def test_a_task_ends_with_the_first_model_whose_score_exceeds_one_minus_its_threshold(first: str, second: str):
    thresholds = (Fraction(first), Fraction(second))
    scorer = with_thresholds(UNTUNED, thresholds)

    for answers in ANSWERS:
        counted = outcome([case(answers, "5")], thresholds).answered
        assert counted.index(1) == answered_by(scorer, answers)


def test_a_larger_budget_never_buys_fewer_right_answers_and_the_largest_asks_whom_it_likes():
    cases = [case(answers, right) for answers, right in zip(ANSWERS, ("5", "5", "6", "5", "5", "12"), strict=True)]
    bought = [fit_thresholds(cases, nano * MILLION).outcome.right for nano in (75, 80, 90, 111)]

    assert bought == sorted(bought)
    assert bought[-1] == 6


def test_every_answer_is_paid_for_the_accepted_one_and_those_before_it():
    never = (Fraction(0), Fraction(0))

    assert outcome([case(("5", "6", "7"), "7")], never).spent == 1 + 10 + 100
    assert outcome([case(("5", "6", "7"), "7")], (Fraction(1), Fraction(0))).spent == 1
