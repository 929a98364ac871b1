"""A control that the paper lacks: the large model plans for itself, then solves with its own guideline.

Beside `large` it says what a guideline is worth to the model that wrote it, and so how much of COPE's Stage 3 is due to
the guideline it inherits.
"""

from cope.core.history import History, step_named
from cope.core.plans import GuidelinePlan
from cope.core.policies.common import greedy_executor, guideline_planner, no_sample, single
from cope.core.policies.decision import Decision
from cope.core.stages import Stage, Step, Tier
from cope.core.task import TaskSpec

PLAN, SOLVE = "plan", "solve"


def next_decision(task: TaskSpec, history: History) -> Decision:
    """One guideline, sampled as Stage 2 samples it, then one greedy solution from it."""
    policy = task.policy
    solved = step_named(history, SOLVE)
    if solved is not None:
        return single(solved, "the large model solved it with its own guideline")
    planned = step_named(history, PLAN)
    if planned is None:
        return Step(
            name=PLAN,
            stage=Stage.LARGE_EXECUTES,
            tier=Tier.LARGE,
            model=policy.large,
            n=1,
            planner=guideline_planner(policy.temperatures.planner2),
            executor=None,
            prompt_set=policy.prompt_set,
            reason="the large model plans first",
        )
    if not planned.arrived or planned.arrived[0].plan is None:
        return no_sample(planned)
    return Step(
        name=SOLVE,
        stage=Stage.LARGE_EXECUTES,
        tier=Tier.LARGE,
        model=policy.large,
        n=1,
        planner=None,
        executor=greedy_executor(task, policy.temperatures.executor3),
        guideline=GuidelinePlan(planned.arrived[0].plan),
        prompt_set=policy.prompt_set,
        reason="the large model solves it with its own guideline",
    )
