"""`cascade-vote` and `cascade-verify` (Yue et al. 2023), as section 4 of the cascade's description has them."""

from dataclasses import replace
from fractions import Fraction

from cope.core.policies.decision import Accept
from cope.core.policies.options import BaselineOptions
from cope.core.policies.spec import PolicyName
from cope.core.stages import Stage, StopRule, Tier
from cope.core.task import TaskSpec
from tests.core.policies.place import Answers, names, play
from tests.support import make_policy, make_spec


def task(name: PolicyName, *, n: int = 8, stop: StopRule = StopRule.LOSSLESS, max_stage: int = 3) -> TaskSpec:
    policy = make_policy(name, n=n)
    sets = BaselineOptions(prompt_sets=("cot1", "pot1"))
    return make_spec(policy=replace(policy, baseline=sets, stop=stop, max_stage=max_stage))


VOTE, VERIFY = task(PolicyName.CASCADE_VOTE), task(PolicyName.CASCADE_VERIFY)


def test_each_prompt_set_has_half_of_the_samples_on_the_small_model():
    steps, _ = play(VOTE, {"set1": ["5"] * 4, "set2": ["5"] * 4})

    assert [(step.name, step.n, step.model, step.prompt_set, step.tier) for step in steps] == [
        ("set1", 4, "small", "cot1", Tier.SMALL),
        ("set2", 4, "small", "pot1", Tier.SMALL),
    ]


def test_six_of_eight_pooled_votes_accept_at_three_quarters():
    _, ended = play(VOTE, {"set1": ["5", "5", "5", "1"], "set2": ["5", "5", "5", "2"]})

    assert isinstance(ended, Accept)
    assert (ended.accepted, ended.stage, ended.step, ended.sample_index) == (True, 1, "set1", 0)
    assert (ended.confidence, ended.threshold) == (Fraction(3, 4), Fraction(3, 4))


def test_five_of_eight_ask_the_large_model_with_the_first_sets_examples():
    answers: Answers = {"set1": ["5", "5", "5", "1"], "set2": ["5", "5", "3", "2"], "solve": ["9"]}
    steps, ended = play(VOTE, answers)

    assert names(steps) == ["set1", "set2", "solve"]
    assert (steps[2].model, steps[2].prompt_set, steps[2].n) == ("large", "cot1", 1)
    assert steps[2].executor is not None
    assert steps[2].executor.temperature == 0.0
    assert isinstance(ended, Accept)
    assert (ended.step, ended.stage) == ("solve", Stage.LARGE_EXECUTES)


def test_the_text_returned_is_the_first_sample_of_the_class_whichever_set_it_stands_in():
    _, ended = play(VOTE, {"set1": [None, "4", "5", "5"], "set2": ["5", "5", "5", "5"]})

    assert isinstance(ended, Accept)
    assert (ended.step, ended.sample_index) == ("set1", 2)


def test_a_second_set_that_cannot_change_the_decision_is_not_sampled():
    answers: Answers = {"set1": ["1", "2", "3", None], "set2": ["1", "1", "1", "1"], "solve": ["9"]}

    assert names(play(VOTE, answers)[0]) == ["set1", "solve"]  # 1 + 4 is below 6
    assert names(play(task(PolicyName.CASCADE_VOTE, stop=StopRule.OFF), answers)[0]) == ["set1", "set2", "solve"]


def test_majorities_that_agree_accept_however_small_they_are():
    _, ended = play(VERIFY, {"set1": ["5", "1", "5", "2"], "set2": ["3", "5", "5", "4"]})

    assert isinstance(ended, Accept)
    assert (ended.accepted, ended.stage, ended.confidence, ended.threshold) == (True, 1, Fraction(1, 2), None)


def test_majorities_that_differ_ask_the_large_model():
    steps, ended = play(VERIFY, {"set1": ["5"] * 4, "set2": ["6"] * 4, "solve": ["5"]})

    assert names(steps) == ["set1", "set2", "solve"]
    assert steps[2].reason == ("the small model's answers lack agreement: the majorities differ, cot1: 5, pot1: 6")
    assert isinstance(ended, Accept)
    assert ended.step == "solve"


def test_two_sets_without_an_answer_do_not_agree():
    nothing: Answers = {"set1": [None] * 4, "set2": [None] * 4, "solve": ["5"]}

    assert names(play(VERIFY, nothing)[0]) == ["set1", "solve"]
    assert names(play(task(PolicyName.CASCADE_VERIFY, stop=StopRule.OFF), nothing)[0]) == ["set1", "set2", "solve"]


def test_a_majority_that_ties_in_both_sets_leads_the_pooled_vote_too():
    _, ended = play(VERIFY, {"set1": ["5", "6", "5", "6"], "set2": ["5", "6", "5", "6"]})

    assert isinstance(ended, Accept)
    assert ended.vote is not None
    assert ended.vote.winner is not None
    assert ended.vote.winner.key == "5"


def test_a_pilot_ends_with_the_small_models_majority_and_never_asks_the_large_model():
    for name in (PolicyName.CASCADE_VOTE, PolicyName.CASCADE_VERIFY):
        steps, ended = play(task(name, max_stage=1), {"set1": ["1", "2", "3", "1"], "set2": ["4", "5", "6", "7"]})

        assert all(step.tier is Tier.SMALL for step in steps)
        assert isinstance(ended, Accept)
        assert (ended.accepted, ended.stage, ended.step, ended.sample_index) == (False, 1, "set1", 0)
