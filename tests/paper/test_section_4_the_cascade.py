"""The claims of *Efficient LLM Collaboration via Planning*, section 4: each as a test of the pure decisions.

Histories are played by `play`: a function gives the samples of each step, the policy decides what follows.
"""

from collections.abc import Callable
from fractions import Fraction

import pytest

from cope.core.history import FinishedStep, History, Sample
from cope.core.policies.common import draw_p1_star
from cope.core.policies.decision import Accept, Stop
from cope.core.policies.registry import next_decision
from cope.core.policies.spec import PolicyName, PolicySpec
from cope.core.problem import Kind
from cope.core.prompts import INSTRUCT, REFERENCE, Role, render_executor, render_goal_planner, render_guideline_planner
from cope.core.stages import Stage, Step, Tier
from cope.core.task import TaskSpec
from tests.support import finished_step, make_problem, make_spec, sample

Answers = dict[str, tuple[str | None, ...]]


def spec_of(name: PolicyName = PolicyName.COPE, **changes: object) -> TaskSpec:
    return make_spec(policy=PolicySpec(name=name, small="small", large="large", **changes))  # type: ignore[arg-type]


def finish(step: Step, answers: tuple[str | None, ...]) -> FinishedStep:
    if step.executor is None:
        drawn: tuple[Sample, ...] = (sample(0, None, plan="Work back."),)
    else:
        drawn = tuple(sample(i, answer, plan=f"plan {i}" if step.planner else None) for i, answer in enumerate(answers))
    return finished_step(step.name, *drawn, stage=step.stage, tier=step.tier, n=step.n)


def play(spec: TaskSpec, answers: Answers) -> tuple[list[Step], Accept | Stop]:
    history: History = ()
    steps: list[Step] = []
    while True:
        decision = next_decision(spec, history)
        if not isinstance(decision, Step):
            return steps, decision
        steps.append(decision)
        history = (*history, finish(decision, answers.get(decision.name, ())))


AGREE_6 = ("5",) * 6 + ("1", "2")
AGREE_5 = ("5",) * 5 + ("1", "2", "3")
AGREE_4 = ("5",) * 4 + ("1", "2", "3", "4")
AGREE_3 = ("5",) * 3 + ("1", "2", "3", "4", None)


def test_every_task_starts_with_the_small_model_planning_goals_and_executing_each_with_its_own_plan():
    step = next_decision(spec_of(), ())

    assert isinstance(step, Step)
    assert (step.stage, step.tier, step.n) == (Stage.SMALL_PLANS_AND_EXECUTES, Tier.SMALL, 8)
    assert step.planner is not None
    assert step.executor is not None
    assert step.planner.role is Role.GOAL_PLANNER
    assert (step.goal, step.guideline) == (None, None)


def test_stage_1_accepts_when_the_consensus_ratio_reaches_tau1_and_costs_no_large_call():
    steps, end = play(spec_of(), {"stage1": AGREE_6})

    assert [step.tier for step in steps] == [Tier.SMALL]
    assert isinstance(end, Accept)
    assert (end.stage, end.confidence, end.threshold) == (1, Fraction(6, 8), Fraction(3, 4))


def test_without_consensus_the_large_model_writes_exactly_one_guideline_and_the_small_model_retries_n_times():
    steps, end = play(spec_of(), {"stage1": AGREE_5, "stage2-execute": AGREE_4})

    assert [(step.name, step.tier, step.n) for step in steps] == [
        ("stage1", Tier.SMALL, 8),
        ("stage2-plan", Tier.LARGE, 1),
        ("stage2-execute", Tier.SMALL, 8),
    ]
    assert steps[1].planner is not None
    assert steps[1].planner.role is Role.GUIDELINE_PLANNER
    assert steps[1].executor is None
    assert isinstance(end, Accept)
    assert end.stage == 2


def test_the_stage_2_executor_is_given_p1_star_and_the_guideline_together():
    steps, _ = play(spec_of(), {"stage1": AGREE_5, "stage2-execute": AGREE_4})

    assert steps[2].goal is not None
    assert steps[2].guideline is not None
    assert steps[2].goal.text in {f"plan {i}" for i in range(5)}
    assert steps[2].guideline.text == "Work back."
    assert steps[2].planner is None


def test_stage_2_votes_over_its_own_answers_only():
    """Three votes for 5 in Stage 1 and three in Stage 2 are not six."""
    _, end = play(spec_of(), {"stage1": AGREE_3, "stage2-execute": AGREE_3, "stage3": ("9",)})

    assert isinstance(end, Accept)
    assert end.stage == 3


def test_stage_3_is_one_greedy_large_solution_with_the_guideline_and_no_new_plan():
    steps, end = play(spec_of(), {"stage1": AGREE_3, "stage2-execute": AGREE_3, "stage3": ("9",)})

    last = steps[-1]
    assert (last.tier, last.n, last.planner, last.goal) == (Tier.LARGE, 1, None, None)
    assert last.guideline is not None
    assert last.executor is not None
    assert last.executor.temperature == 0
    assert isinstance(end, Accept)
    assert (end.stage, end.confidence) == (3, None)
    assert sum(step.tier is Tier.LARGE for step in steps) == 2


def test_an_unreadable_stage_3_answer_is_still_the_result():
    _, end = play(spec_of(), {"stage1": AGREE_3, "stage2-execute": AGREE_3, "stage3": (None,)})

    assert isinstance(end, Accept)


def test_temperatures_are_those_of_the_papers_appendix():
    steps, _ = play(spec_of(), {"stage1": AGREE_3, "stage2-execute": AGREE_3, "stage3": ("9",)})
    drawn = [
        (step.planner.temperature if step.planner else None, step.executor.temperature if step.executor else None)
        for step in steps
    ]

    assert drawn == [(0.8, 0.4), (0.8, None), (None, 0.8), (None, 0.0)]


def test_p1_star_is_drawn_among_the_plans_whose_answers_joined_the_majority():
    step = finished_step("stage1", *(sample(i, a, plan=f"plan {i}") for i, a in enumerate("55512")))
    drawn = {draw_p1_star(make_spec(seed=seed), step)[0] for seed in range(200)}

    assert {plan.text for plan in drawn if plan} == {"plan 0", "plan 1", "plan 2"}


def test_p1_star_is_drawn_uniformly():
    step = finished_step("stage1", *(sample(i, "5", plan=f"plan {i}") for i in range(4)))
    counts: dict[str, int] = {}
    for seed in range(4000):
        plan, _ = draw_p1_star(make_spec(seed=seed), step)
        assert plan is not None
        counts[plan.text] = counts.get(plan.text, 0) + 1

    # Four cells of 1,000 expected: chi-square with 3 degrees of freedom stays below 16.3 in 999 of 1,000 draws.
    assert sum((c - 1000) ** 2 / 1000 for c in counts.values()) < 16.3


def test_p1_star_is_the_same_for_the_same_seed_whatever_arrived_in_which_order():
    drawn = tuple(sample(i, "5", plan=f"plan {i}") for i in range(8))
    spec = make_spec(seed=99)

    assert draw_p1_star(spec, finished_step("stage1", *drawn)) == draw_p1_star(
        spec, finished_step("stage1", *reversed(drawn))
    )


def test_p1_star_is_drawn_among_all_plans_when_no_answer_is_parsable_and_says_so():
    step = finished_step("stage1", *(sample(i, None, plan=f"plan {i}") for i in range(3)))
    plan, how = draw_p1_star(make_spec(seed=3), step)

    assert plan is not None
    assert "no answer was parsable" in how


@pytest.mark.parametrize("n", [4, 8, 32])
def test_n_is_a_parameter_of_both_voting_stages(n: int):
    steps, _ = play(spec_of(n=n), {"stage1": (None,) * n, "stage2-execute": (None,) * n, "stage3": ("1",)})

    assert [step.n for step in steps] == [n, 1, n, 1]


def test_section_a1_the_two_stage_variant_returns_stage_2s_majority_without_a_third_stage():
    steps, end = play(spec_of(PolicyName.COPE_S2, max_stage=2), {"stage1": AGREE_3, "stage2-execute": AGREE_3})

    assert len(steps) == 3
    assert isinstance(end, Accept)
    assert (end.stage, end.accepted, end.confidence) == (2, False, Fraction(3, 8))


def test_small_is_one_sample_without_a_plan():
    steps, end = play(spec_of(PolicyName.SMALL), {"solve": ("4",)})

    assert [(s.tier, s.n, s.planner) for s in steps] == [(Tier.SMALL, 1, None)]
    assert isinstance(end, Accept)


def test_small_majority_is_n_plan_less_samples_and_their_majority_whatever_its_share():
    steps, end = play(spec_of(PolicyName.SMALL_MAJORITY), {"solve": AGREE_3})

    assert [(s.tier, s.n, s.planner) for s in steps] == [(Tier.SMALL, 8, None)]
    assert isinstance(end, Accept)
    assert end.sample_index == 0


def test_large_is_one_greedy_call_without_a_plan():
    steps, end = play(spec_of(PolicyName.LARGE), {"solve": ("4",)})

    assert [(s.tier, s.n, s.planner, s.guideline) for s in steps] == [(Tier.LARGE, 1, None, None)]
    assert steps[0].executor is not None
    assert steps[0].executor.temperature == 0
    assert isinstance(end, Accept)


@pytest.mark.parametrize("prompts", [INSTRUCT, REFERENCE], ids=["instruct", "reference"])
@pytest.mark.parametrize("render", [render_goal_planner, render_guideline_planner, render_executor])
def test_every_role_shares_the_whole_problem_as_its_prompt_prefix(prompts: object, render: Callable[..., object]):
    """The paper's prompts are not public; ours keep the problem first so that it is prefilled once."""
    problem = make_problem("A long problem. " * 20)
    (*before, last) = render(prompts, problem)  # type: ignore[misc]

    assert last.content.startswith(problem.conversation[0].content)
    assert all(message.role == "system" for message in before)


def test_a_task_whose_chains_all_failed_on_the_small_model_escalates_without_a_plan_of_its_own():
    from cope.core.history import SampleStatus

    spec = spec_of(n=2)
    failed = finished_step(
        "stage1", *(Sample(i, SampleStatus.FAILED, error="context_length_exceeded: too long") for i in range(2))
    )
    decision = next_decision(spec, (failed,))

    assert isinstance(decision, Step)
    assert decision.name == "stage2-plan"


def test_a_task_that_no_model_can_hold_ends_with_that_models_error():
    from cope.core.history import SampleStatus

    failed = finished_step("solve", Sample(0, SampleStatus.FAILED, error="context_length_exceeded: too long"))
    decision = next_decision(spec_of(PolicyName.LARGE), (failed,))

    assert isinstance(decision, Stop)
    assert (decision.error.code, decision.error.message) == ("context_length_exceeded", "too long")


def test_choices_are_listed_in_the_executors_instruction():
    from cope.core.problem import Message, Problem

    problem = Problem(Kind.CHOICE, (Message("user", "Which {choices}?"),), choices=("red", "blue"))
    text = render_executor(INSTRUCT, problem)[-1].content

    assert "- red\n- blue" in text
    assert text.startswith("Which {choices}?")
