"""Programs under the other policies: any that passes is enough, in a prompt set, a tier, or with a guideline."""

from dataclasses import replace
from fractions import Fraction

from cope.core.answers.model import AnswerKey
from cope.core.history import FinishedStep, History, Sample, SampleStatus
from cope.core.policies.decision import Accept
from cope.core.policies.options import BaselineOptions, Seat
from cope.core.policies.registry import next_decision
from cope.core.policies.spec import PolicyName, PolicySpec
from cope.core.problem import Kind, Message, Problem
from cope.core.scorer import Scorer, TierScorer
from cope.core.stages import Step, StopRule, Tier
from cope.core.task import TaskSpec
from tests.support import finished_step, make_policy, make_spec

TESTS = ("assert f(1) == 1", "assert f(2) == 4")
SQUARE = Problem(Kind.CODE, (Message("user", "Square a number."),), tests=TESTS, entry_point="f")
SMALL, SECOND, LARGE = Seat("small", Tier.SMALL), Seat("second", Tier.SMALL), Seat("large", Tier.LARGE)


def ran(step: Step, *passed: int | None) -> FinishedStep:
    """A step whose sample i passes so many tests; None where nothing was run."""
    samples = [
        Sample(
            index,
            SampleStatus.FINISHED,
            plan="a plan" if step.executor is None else None,
            solution=f"solution {index}",
            answer=f"program {index}",
            key=AnswerKey("pass") if count == len(TESTS) else None,
            tests_passed=count,
        )
        for index, count in enumerate(passed)
    ]
    return finished_step(step.name, *samples, stage=step.stage, tier=step.tier, n=step.n)


def play(policy: PolicySpec, *steps: tuple[int | None, ...]) -> tuple[list[Step], object]:
    spec: TaskSpec = make_spec(SQUARE, policy=policy)
    history: History = ()
    taken: list[Step] = []
    for passed in steps:
        decision = next_decision(spec, history)
        assert isinstance(decision, Step)
        taken.append(decision)
        history = (*history, ran(decision, *passed))
    return taken, next_decision(spec, history)


def with_sets() -> PolicySpec:
    return replace(make_policy(PolicyName.CASCADE_VOTE), baseline=BaselineOptions(prompt_sets=("cot1", "cot2")))


def with_tiers(*first: Seat) -> PolicySpec:
    tiers = BaselineOptions(tiers=(first, (LARGE,)), samples_per_model=2, agreement=Fraction(1))
    return replace(make_policy(PolicyName.ABC), baseline=tiers)


def test_a_cascade_takes_a_program_that_passes_and_asks_no_further_prompt_set() -> None:
    (first,), end = play(with_sets(), (0, 2))

    assert (first.votes_needed, first.n, first.prompt_set) == (1, 2, "cot1")
    assert isinstance(end, Accept)
    assert (end.step, end.sample_index, end.accepted) == ("set1", 1, True)
    assert end.reason == "1 of 2 programs pass every visible test"


def test_a_cascade_that_never_stops_early_gives_the_same_program() -> None:
    policy = replace(with_sets(), stop=StopRule.OFF)

    taken, end = play(policy, (0, 2), (2, 2))

    assert [step.name for step in taken] == ["set1", "set2"]
    assert isinstance(end, Accept)
    assert (end.step, end.sample_index) == ("set1", 1)


def test_a_cascade_without_a_passing_program_asks_the_large_model_with_the_first_set() -> None:
    _, second = play(with_sets(), (0, 1))
    assert isinstance(second, Step)
    assert second.name == "set2"

    _, third = play(with_sets(), (0, 1), (0, None))
    assert isinstance(third, Step)
    assert (third.name, third.model, third.prompt_set, third.votes_needed) == ("solve", "large", "cot1", None)


def test_a_tier_of_one_model_takes_any_program_that_passes_whatever_the_agreement() -> None:
    (first,), end = play(with_tiers(SMALL), (1, 2))

    assert (first.votes_needed, first.n) == (1, 2)
    assert isinstance(end, Accept)
    assert (end.step, end.sample_index, end.stage) == ("tier1", 1, 1)


def test_a_tier_of_several_models_ends_with_the_first_that_writes_a_passing_program() -> None:
    taken, end = play(with_tiers(SMALL, SECOND), (0, 0), (2, 0))

    assert [(step.model, step.votes_needed) for step in taken] == [("small", 1), ("second", 1)]
    assert isinstance(end, Accept)
    assert (end.step, end.sample_index) == ("tier1-2", 0)

    _, early = play(with_tiers(SMALL, SECOND), (2, 2))
    assert isinstance(early, Accept)
    _, large = play(with_tiers(SMALL, SECOND), (0, 0), (1, 1))
    assert isinstance(large, Step)
    assert large.model == "large"


def test_a_guideline_for_every_problem_ends_with_a_passing_program_or_the_best_there_is() -> None:
    policy = make_policy(PolicyName.SMALL_GUIDED, n=3)

    taken, end = play(policy, (None,), (1, 2, 0))
    assert taken[1].votes_needed == 1
    assert isinstance(end, Accept)
    assert (end.sample_index, end.accepted) == (1, True)

    _, partial = play(policy, (None,), (0, 1, 0))
    assert isinstance(partial, Accept)
    assert (partial.sample_index, partial.accepted) == (1, False)


def test_frugalgpt_scores_a_program_that_nobody_ran() -> None:
    scorer = Scorer("sure", "1", (TierScorer("small", 3.0, (), Fraction(1, 2)),), "large")
    options = BaselineOptions(tiers=((SMALL,), (LARGE,)), scorer=scorer)

    (first,), end = play(replace(make_policy(PolicyName.FRUGALGPT), baseline=options), (None,))

    assert first.votes_needed is None
    assert isinstance(end, Accept)
    assert (end.step, end.accepted) == ("tier1", True)
