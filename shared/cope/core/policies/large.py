"""The large model alone: one greedy call without a plan (`large`), or a named model as it is (`passthrough`)."""

from cope.core.history import History, step_named
from cope.core.policies.common import greedy_executor, single
from cope.core.policies.decision import Decision
from cope.core.stages import Stage, Step, Tier
from cope.core.task import TaskSpec

SOLVE = "solve"


def next_decision(task: TaskSpec, history: History) -> Decision:
    """One greedy call of the large model; its answer is the result."""
    solved = step_named(history, SOLVE)
    if solved is not None:
        return single(solved, "the large model solved it itself")
    return Step(
        name=SOLVE,
        stage=Stage.LARGE_EXECUTES,
        tier=Tier.LARGE,
        model=task.policy.large,
        n=1,
        planner=None,
        executor=greedy_executor(task, task.policy.temperatures.executor3),
        prompt_set=task.policy.prompt_set,
        reason="the large model solves it without a plan",
    )
