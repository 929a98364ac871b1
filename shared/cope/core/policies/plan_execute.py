"""Who plans for whom: the study of the paper's section 3. One model plans, one executes, each one greedy sample."""

from typing import assert_never

from cope.core.history import History, step_named
from cope.core.plans import GoalPlan, GuidelinePlan
from cope.core.policies.common import goal_planner, greedy_executor, guideline_planner, no_sample, single
from cope.core.policies.decision import Decision
from cope.core.policies.options import PlanKind, Seat
from cope.core.stages import Call, Stage, Step, Tier
from cope.core.task import TaskSpec

PLAN, SOLVE = "plan", "solve"


def next_decision(task: TaskSpec, history: History) -> Decision:
    """The planner's plan (none with `plan: none`), then the executor's solution from it, which is the result."""
    options = task.policy.baseline
    planner, executor = options.planner, options.executor
    if executor is None:
        raise ValueError("policy plan-execute has no executor")  # `request_baselines` lets none through
    solved = step_named(history, SOLVE)
    if solved is not None:
        return single(solved, "the executor's answer")
    goal: GoalPlan | None = None
    guideline: GuidelinePlan | None = None
    if planner is not None and options.plan is not PlanKind.NONE:
        planned = step_named(history, PLAN)
        if planned is None:
            return _plan(task, planner, options.plan)
        if not planned.arrived or planned.arrived[0].plan is None:
            return no_sample(planned)
        text = planned.arrived[0].plan
        if options.plan is PlanKind.GOAL:
            goal = GoalPlan(text)
        else:
            guideline = GuidelinePlan(text)
    return Step(
        name=SOLVE,
        stage=_stage(executor),
        tier=executor.tier,
        model=executor.model,
        n=1,
        planner=None,
        executor=greedy_executor(task, task.policy.temperatures.executor3),
        goal=goal,
        guideline=guideline,
        prompt_set=task.policy.prompt_set,
        reason="the executor solves it" + ("" if goal is None and guideline is None else f" with the {options.plan}"),
    )


def _plan(task: TaskSpec, planner: Seat, kind: PlanKind) -> Step:
    return Step(
        name=PLAN,
        stage=_stage(planner),
        tier=planner.tier,
        model=planner.model,
        n=1,
        planner=_call(kind),
        executor=None,
        prompt_set=task.policy.prompt_set,
        reason=f"the planner writes a {kind}",
    )


def _call(kind: PlanKind) -> Call:
    # Greedy, unlike COPE's planners: the study compares plans, not draws of them.
    match kind:
        case PlanKind.GOAL:
            return goal_planner(0.0)
        case PlanKind.GUIDELINE:
            return guideline_planner(0.0)
        case PlanKind.NONE:
            raise ValueError("nothing is planned")
        case _:
            assert_never(kind)


def _stage(seat: Seat) -> Stage:
    return Stage.LARGE_EXECUTES if seat.tier is Tier.LARGE else Stage.SMALL_PLANS_AND_EXECUTES
