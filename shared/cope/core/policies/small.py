"""The small model alone: one sample (`small`), or n samples and their majority without plans (`small-majority`).

Of programs, `small-majority` (the paper's Multi, so also called `small-multi`) takes any that passes the visible tests.
"""

from cope.core.history import History, step_named
from cope.core.policies.common import majority, sampled_executor, single
from cope.core.policies.decision import Decision
from cope.core.policies.passing import best_program
from cope.core.policies.spec import PolicyName
from cope.core.problem import Kind
from cope.core.stages import Stage, Step, StopRule, StragglerRule, Tier
from cope.core.task import TaskSpec

SOLVE = "solve"


def next_decision(task: TaskSpec, history: History) -> Decision:
    """One step of plan-less samples; its single answer or its majority is the result, whatever its share.

    Any share accepts, so its vote stops as soon as one answer has won: a lead that the rest can't overturn.
    """
    voting = task.policy.name in {PolicyName.SMALL_MAJORITY, PolicyName.SMALL_MULTI}
    programs = task.problem.kind is Kind.CODE
    solved = step_named(history, SOLVE)
    if solved is None:
        n = task.policy.n if voting else 1
        return Step(
            name=SOLVE,
            stage=Stage.SMALL_PLANS_AND_EXECUTES,
            tier=Tier.SMALL,
            model=task.policy.small,
            n=n,
            planner=None,
            executor=sampled_executor(task, task.policy.temperatures.executor1),
            votes_needed=1 if voting else None,
            stop=task.policy.stop if voting else StopRule.OFF,
            stragglers=StragglerRule.FULL,
            waves=task.policy.waves if voting else (),
            prompt_set=task.policy.prompt_set,
            reason="the small model solves it without a plan",
        )
    if voting and programs:
        return best_program(task, solved, accepted=True)
    if voting:
        return majority(solved, accepted=True)
    return single(solved, "the small model's single sample")
