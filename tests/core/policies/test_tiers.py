"""`abc` (Kolawole et al. 2024) and `frugalgpt` (Chen et al. 2023): tiers of models, by agreement and by score."""

import re
from dataclasses import replace
from fractions import Fraction

import pytest

from cope.core.policies.decision import Accept
from cope.core.policies.options import BaselineOptions, Seat
from cope.core.policies.spec import PolicyName
from cope.core.scorer import FEATURES, Scorer, TierScorer, decode_scorer, encode_scorer, features, score
from cope.core.stages import Stage, StopRule, Tier
from cope.core.task import TaskSpec
from tests.core.policies.place import names, play
from tests.support import make_policy, make_problem, make_spec, sample

A, B, C = Seat("a", Tier.SMALL), Seat("b", Tier.SMALL), Seat("c", Tier.SMALL)
MIDDLE, LAST = Seat("m", Tier.LARGE), Seat("l", Tier.LARGE)


def abc(*tiers: tuple[Seat, ...], samples: int = 1, agreement: str = "1", **change: object) -> TaskSpec:
    options = BaselineOptions(tiers=tiers, samples_per_model=samples, agreement=Fraction(agreement))
    return make_spec(policy=replace(make_policy(PolicyName.ABC), baseline=options, **change))  # type: ignore[arg-type]


def test_two_models_that_agree_are_the_answer():
    steps, ended = play(abc((A, B), (LAST,)), {"tier1": ["5"], "tier1-2": ["5"]})

    assert [(step.name, step.model, step.n) for step in steps] == [("tier1", "a", 1), ("tier1-2", "b", 1)]
    assert isinstance(ended, Accept)
    assert (ended.accepted, ended.stage, ended.confidence, ended.threshold) == (True, 1, Fraction(1), Fraction(1))


def test_two_models_that_differ_ask_the_next_tier_up_to_the_last_which_needs_no_agreement():
    task = abc((A, B), (MIDDLE, C), (LAST,))
    steps, ended = play(task, {"tier1": ["5"], "tier1-2": ["6"], "tier2": ["1"], "tier2-2": ["2"], "solve": [None]})

    assert [(step.model, step.tier, int(step.stage)) for step in steps] == [
        ("a", Tier.SMALL, 1),
        ("b", Tier.SMALL, 1),
        ("m", Tier.LARGE, 2),
        ("c", Tier.SMALL, 2),
        ("l", Tier.LARGE, 3),
    ]
    assert isinstance(ended, Accept)
    assert (ended.step, ended.accepted, ended.stage) == ("solve", True, Stage.LARGE_EXECUTES)


def test_a_models_samples_count_one_by_one():
    task = abc((A, B), (LAST,), samples=4, agreement="0.75")
    _, ended = play(task, {"tier1": ["5", "5", "5", "1"], "tier1-2": ["2", "5", "5", "5"]})

    assert isinstance(ended, Accept)
    assert (ended.confidence, ended.step) == (Fraction(3, 4), "tier1")


def test_a_model_whose_answer_cannot_restore_agreement_is_not_asked():
    answers = {"tier1": ["5"], "tier1-2": ["6"], "tier1-3": ["5"], "solve": ["7"]}

    assert names(play(abc((A, B, C), (LAST,)), answers)[0]) == ["tier1", "tier1-2", "solve"]
    whole = names(play(abc((A, B, C), (LAST,), stop=StopRule.OFF), answers)[0])
    assert whole == ["tier1", "tier1-2", "tier1-3", "solve"]


def test_only_a_tier_of_one_model_may_stop_within_its_step():
    (several, *_), _ = play(abc((A, B), (LAST,), samples=2), {"tier1": ["5", "5"], "tier1-2": ["5", "5"]})
    (alone,), _ = play(abc((A,), (LAST,), samples=4, agreement="0.75"), {"tier1": ["5"] * 4})

    assert (several.votes_needed, several.stop) == (None, StopRule.OFF)
    assert (alone.votes_needed, alone.stop) == (3, StopRule.LOSSLESS)


def test_a_pilot_of_abc_ends_with_the_first_tier():
    steps, ended = play(abc((A, B), (LAST,), max_stage=1), {"tier1": ["5"], "tier1-2": ["6"]})

    assert names(steps) == ["tier1", "tier1-2"]
    assert isinstance(ended, Accept)
    assert (ended.accepted, ended.step) == (False, "tier1")


# ---- frugalgpt ------------------------------------------------------------------------------------------------------

SURE_OF_NUMBERS = TierScorer("a", -2.0, (("answer_is_number", 4.0),), Fraction(1, 4))
SCORER = Scorer("numbers", "3", (SURE_OF_NUMBERS,), "l")


def frugal(scorer: Scorer = SCORER, *tiers: tuple[Seat, ...], max_stage: int = 3) -> TaskSpec:
    options = BaselineOptions(tiers=tiers or ((A,), (LAST,)), scorer=scorer)
    return make_spec(policy=replace(make_policy(PolicyName.FRUGALGPT), baseline=options, max_stage=max_stage))


def test_an_answer_is_accepted_if_its_score_exceeds_one_minus_the_threshold():
    steps, ended = play(frugal(), {"tier1": ["5"]})

    assert [(step.name, step.model, step.n) for step in steps] == [("tier1", "a", 1)]
    assert "scorer numbers 3" in steps[0].reason
    assert isinstance(ended, Accept)
    assert (ended.confidence, ended.threshold) == (Fraction(880797, 1_000_000), Fraction(3, 4))  # 1 / (1 + e^-2)


def test_an_answer_with_a_lower_score_asks_the_next_model():
    steps, ended = play(frugal(), {"tier1": ["five"], "solve": ["5"]})

    assert names(steps) == ["tier1", "solve"]
    assert steps[1].reason == "a's answer scores 0.119, over 0.750 needed"
    assert isinstance(ended, Accept)
    assert (ended.step, ended.stage) == ("solve", 3)


def test_a_score_at_the_limit_does_not_accept():
    even = Scorer("even", "1", (TierScorer("a", 0.0, (), Fraction(1, 2)),), "l")

    assert names(play(frugal(even), {"tier1": ["5"], "solve": ["5"]})[0]) == ["tier1", "solve"]


def test_an_unreadable_answer_is_never_accepted_whatever_its_score():
    always = Scorer("always", "1", (TierScorer("a", 50.0, (), Fraction(1)),), "l")

    assert names(play(frugal(always), {"tier1": [None], "solve": ["5"]})[0]) == ["tier1", "solve"]


def test_each_tier_has_its_own_scorer_and_a_pilot_ends_with_the_first():
    never = TierScorer("m", -50.0, (), Fraction(1, 4))
    three = Scorer("three", "1", (SURE_OF_NUMBERS, never), "l")
    answers = {"tier1": ["five"], "tier2": ["5"], "solve": ["6"]}

    assert names(play(frugal(three, (A,), (MIDDLE,), (LAST,)), answers)[0]) == ["tier1", "tier2", "solve"]
    steps, ended = play(frugal(max_stage=1), {"tier1": ["five"]})
    assert names(steps) == ["tier1"]
    assert isinstance(ended, Accept)
    assert ended.accepted is False


def test_every_feature_is_a_moderate_number_even_of_nothing_and_of_very_long_texts():
    for answer, solution in ((None, ""), ("7" * 5000, "3 = 4 " * 100_000)):
        found = features(make_problem("What is 2 + 3?"), sample(0, answer, solution=solution))

        assert set(found) == set(FEATURES)
        assert all(0 <= value < 12 for value in found.values())


def test_features_say_what_they_are_called():
    found = features(make_problem("Add 2 and 31."), sample(0, "33", solution="Perhaps 2 + 31 = 33.\nSo 33."))

    assert (found["answer_is_number"], found["answer_in_question"], found["truncated"]) == (1.0, 0.0, 0.0)
    assert found["numbers_used"] == 1.0
    assert found["hedges"] == pytest.approx(0.6931, abs=1e-4)


def test_an_artifact_is_read_as_it_was_written_and_scores_alike():
    again = decode_scorer({**encode_scorer(SCORER), "trained": {"rows": 500}})

    assert again == SCORER
    assert score(again.tiers[0], make_problem(), sample(0)) == score(SURE_OF_NUMBERS, make_problem(), sample(0))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "pickle"}, "format"),
        ({"code": "import os"}, "code"),
        ({"tiers": []}, "tiers"),
        ({"tiers": [{"model": "a", "bias": 0, "weights": {"mood": 1}, "threshold": "0.5"}]}, "mood"),
        ({"tiers": [{"model": "a", "bias": float("nan"), "weights": {}, "threshold": "0.5"}]}, "tiers[0].bias"),
        ({"tiers": [{"model": "a", "bias": 0, "weights": {}, "threshold": "2"}]}, "not between 0 and 1"),
        ({"name": ""}, "name"),
    ],
)
def test_an_artifact_that_cannot_be_used_is_refused_with_its_place(change: dict[str, object], said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        decode_scorer({**encode_scorer(SCORER), **change})
