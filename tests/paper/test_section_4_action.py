"""Section 4, agents: one request is one decision, and plans are for one step. Claims as tests of the pure decisions."""

from dataclasses import replace
from fractions import Fraction

import pytest

from cope.core.answers import extract, quick_key
from cope.core.answers.model import Keyed
from cope.core.history import Sample
from cope.core.policies.common import draw_p1_star
from cope.core.policies.decision import Accept
from cope.core.policies.registry import next_decision
from cope.core.policies.spec import PolicyName
from cope.core.problem import Kind, Message, Problem
from cope.core.prompts import INSTRUCT, render_guideline_planner
from cope.core.result import completion_body
from cope.core.stages import Step, Tier
from tests.support import NOON, finished_step, make_policy, make_spec, sample

PROBLEM = Problem(
    Kind.ACTION,
    (
        Message("user", "Your task is to: put a clean mug on desk 1.\nYou are in the kitchen."),
        Message("assistant", "Action: go to sinkbasin 1"),
        Message("user", "On the sinkbasin 1, you see a mug 1."),
    ),
    actions=("Take mug 1 from sinkbasin 1", "go to desk 1", "look"),
)
SPEC = make_spec(PROBLEM, policy=make_policy(n=8))


def judged(index: int, solution: str) -> Sample:
    """What a worker makes of a solution, by the same two functions."""
    answer = extract(PROBLEM, solution)
    key = None if answer is None else quick_key(PROBLEM.kind, answer)
    drawn = sample(index, answer, plan=f"plan {index}")
    return replace(drawn, solution=solution, key=key.key if isinstance(key, Keyed) else None)


def stage(name: str, *solutions: str):
    return finished_step(name, *(judged(i, text) for i, text in enumerate(solutions)), n=len(solutions))


TAKE = ("Action: take mug 1 from sinkbasin 1", "take mug 1 from sinkbasin 1.", '"Take mug 1 from sinkbasin 1"')


def test_differently_spelt_votes_for_one_action_are_one_class_and_the_answer_is_the_callers_spelling() -> None:
    step = stage("stage1", *TAKE, *TAKE, "Action: look", "Action: go to desk 1")
    end = next_decision(SPEC, (step,))

    assert isinstance(end, Accept)
    assert (end.stage, end.confidence) == (1, Fraction(6, 8))
    body = completion_body(SPEC, (step,), end, created_at=NOON)
    assert body["cope"]["answer"] == "Take mug 1 from sinkbasin 1"
    assert body["cope"]["kind"] == "action"
    assert body["choices"][0]["message"]["content"] == TAKE[0]  # the solution, as with every kind that votes


def test_an_inadmissible_action_is_an_invalid_vote_that_counts_below_the_line() -> None:
    flown = ("Action: fly to desk 1",) * 3
    step = stage("stage1", *TAKE, *TAKE[:2], *flown)
    decision = next_decision(SPEC, (step,))

    assert isinstance(decision, Step)  # 5 of 8: three flights are no answer, and the ratio is not 5 of 5
    assert (decision.name, decision.tier) == ("stage2-plan", Tier.LARGE)
    assert draw_p1_star(SPEC, step)[0] is not None


def test_inadmissible_actions_alone_never_win() -> None:
    spec = make_spec(PROBLEM, policy=make_policy(PolicyName.SMALL_MAJORITY, n=8))
    end = next_decision(spec, (stage("stage1", *("Action: fly",) * 8),))
    step = next_decision(spec, ())

    assert isinstance(step, Step)
    end = next_decision(spec, (stage(step.name, *("Action: fly",) * 8),))
    assert isinstance(end, Accept)
    assert not end.accepted
    assert end.vote is not None
    assert end.vote.winner is None


def test_the_guideline_is_for_the_next_step_and_sees_history_observation_and_actions() -> None:
    sent = render_guideline_planner(INSTRUCT, PROBLEM)

    assert [message.content for message in sent[1:3]] == [message.content for message in PROBLEM.conversation[:2]]
    assert sent[-1].content.startswith("On the sinkbasin 1, you see a mug 1.")
    assert "- go to desk 1\n- look\n" in sent[-1].content
    assert "for the next step alone" in sent[-1].content


@pytest.mark.parametrize("name", [PolicyName.COPE, PolicyName.COPE_S2])
def test_stage_2_gives_the_goal_of_the_step_and_its_guideline_together(name: PolicyName) -> None:
    spec = make_spec(PROBLEM, policy=make_policy(name, n=8))
    first = stage("stage1", *TAKE, *("Action: look",) * 3, "Action: go to desk 1", "Action: fly")
    plan = finished_step("stage2-plan", sample(0, None, plan="Take what is needed first."), tier=Tier.LARGE, n=1)
    step = next_decision(spec, (first, plan))

    assert isinstance(step, Step)
    assert (step.name, step.n) == ("stage2-execute", 8)
    assert step.goal is not None
    assert step.goal.text.startswith("plan ")
    assert step.guideline is not None
