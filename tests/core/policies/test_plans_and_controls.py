"""`plan-execute` (the paper's section 3) and the controls `large-plan` and `small-guided`."""

from dataclasses import replace

from cope.core.plans import GoalPlan, GuidelinePlan
from cope.core.policies.decision import Accept, Stop
from cope.core.policies.options import BaselineOptions, PlanKind, Seat
from cope.core.policies.registry import next_decision
from cope.core.policies.spec import PolicyName
from cope.core.prompts.model import Role
from cope.core.stages import Stage, Step, Tier
from cope.core.task import TaskSpec
from tests.core.policies.place import done, names, play
from tests.support import make_policy, make_spec

SMALL, LARGE = Seat("small", Tier.SMALL), Seat("large", Tier.LARGE)


def plan_execute(kind: PlanKind, planner: Seat | None, executor: Seat) -> TaskSpec:
    options = BaselineOptions(planner=planner, executor=executor, plan=kind)
    return make_spec(policy=replace(make_policy(PolicyName.PLAN_EXECUTE), baseline=options))


def test_a_large_models_goal_is_followed_by_the_small_model_and_all_is_greedy():
    steps, ended = play(plan_execute(PlanKind.GOAL, LARGE, SMALL), {"plan": ["Find x."], "solve": ["5"]})

    plan, solve = steps
    assert (plan.model, plan.tier, plan.n, plan.executor) == ("large", Tier.LARGE, 1, None)
    assert plan.planner is not None
    assert (plan.planner.role, plan.planner.temperature) == (Role.GOAL_PLANNER, 0.0)
    assert (solve.model, solve.goal, solve.guideline) == ("small", GoalPlan("Find x."), None)
    assert solve.executor is not None
    assert solve.executor.temperature == 0.0
    assert isinstance(ended, Accept)
    assert (ended.step, ended.stage) == ("solve", Stage.SMALL_PLANS_AND_EXECUTES)


def test_a_small_model_may_plan_for_the_large_one_with_a_guideline():
    steps, _ = play(plan_execute(PlanKind.GUIDELINE, SMALL, LARGE), {"plan": ["Work back."], "solve": ["5"]})

    assert [(step.model, int(step.stage)) for step in steps] == [("small", 1), ("large", 3)]
    assert (steps[1].goal, steps[1].guideline) == (None, GuidelinePlan("Work back."))


def test_without_a_plan_the_executor_is_asked_at_once():
    steps, _ = play(plan_execute(PlanKind.NONE, None, SMALL), {"solve": ["5"]})

    assert names(steps) == ["solve"]
    assert (steps[0].goal, steps[0].guideline) == (None, None)


def test_a_plan_that_never_came_ends_the_task():
    task = plan_execute(PlanKind.GOAL, LARGE, SMALL)
    step = next_decision(task, ())
    assert isinstance(step, Step)
    planned = done(step, ["x"])
    lost = replace(planned, samples=(replace(planned.samples[0], plan=None),))

    assert isinstance(next_decision(task, (lost,)), Stop)


def test_the_large_model_solves_with_its_own_guideline():
    task = make_spec(policy=make_policy(PolicyName.LARGE_PLAN))
    steps, ended = play(task, {"plan": ["Work back."], "solve": ["5"]})

    assert [(step.model, step.tier) for step in steps] == [("large", Tier.LARGE)] * 2
    assert steps[0].planner is not None
    assert steps[0].planner.role is Role.GUIDELINE_PLANNER
    assert steps[1].guideline == GuidelinePlan("Work back.")
    assert isinstance(ended, Accept)
    assert ended.stage is Stage.LARGE_EXECUTES


def test_the_guided_small_model_answers_with_its_majority_however_small():
    task = make_spec(policy=make_policy(PolicyName.SMALL_GUIDED, n=4))
    steps, ended = play(task, {"plan": ["Work back."], "execute": ["1", "2", "3", "2"]})

    assert [(step.model, step.n) for step in steps] == [("large", 1), ("small", 4)]
    assert (steps[1].guideline, steps[1].goal, steps[1].votes_needed) == (GuidelinePlan("Work back."), None, 3)
    assert isinstance(ended, Accept)
    assert (ended.accepted, ended.sample_index, ended.stage) == (True, 1, Stage.LARGE_PLANS_SMALL_EXECUTES)
