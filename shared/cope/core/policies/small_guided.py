"""A control that the paper lacks: the large model's guideline for every problem, and no vote that could spare it.

What COPE's Stage 2 would be without Stage 1 before it and Stage 3 after it: one guideline, n small samples, their
majority whatever its share.
"""

from cope.core.history import History, step_named
from cope.core.plans import GuidelinePlan
from cope.core.policies.common import guideline_planner, majority, no_sample, sampled_executor
from cope.core.policies.decision import Decision
from cope.core.policies.passing import best_program
from cope.core.problem import Kind
from cope.core.stages import Stage, Step, StragglerRule, Tier
from cope.core.task import TaskSpec

PLAN, EXECUTE = "plan", "execute"


def next_decision(task: TaskSpec, history: History) -> Decision:
    """The large model's guideline, then the small model's majority with it."""
    policy = task.policy
    executed = step_named(history, EXECUTE)
    programs = task.problem.kind is Kind.CODE
    if executed is not None:
        return best_program(task, executed, accepted=True) if programs else majority(executed, accepted=True)
    planned = step_named(history, PLAN)
    if planned is None:
        return Step(
            name=PLAN,
            stage=Stage.LARGE_PLANS_SMALL_EXECUTES,
            tier=Tier.LARGE,
            model=policy.large,
            n=1,
            planner=guideline_planner(policy.temperatures.planner2),
            executor=None,
            prompt_set=policy.prompt_set,
            reason="the large model plans for every problem",
        )
    if not planned.arrived or planned.arrived[0].plan is None:
        return no_sample(planned)
    return Step(
        name=EXECUTE,
        stage=Stage.LARGE_PLANS_SMALL_EXECUTES,
        tier=Tier.SMALL,
        model=policy.small,
        n=policy.n,
        planner=None,
        executor=sampled_executor(task, policy.temperatures.executor2),
        guideline=GuidelinePlan(planned.arrived[0].plan),
        # As in `small-majority`: only a winner that can't change any more may end the vote early.
        votes_needed=1 if programs else policy.n // 2 + 1,
        stop=policy.stop,
        stragglers=StragglerRule.FULL,
        prompt_set=policy.prompt_set,
        reason="the small model solves it with the guideline",
    )
