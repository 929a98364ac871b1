"""Yue et al. 2023, the variant that verifies: two few-shot prompts, and an answer only where their majorities agree
(the paper's baseline "cascade-verify"; cascade, section 4)."""

from cope.core.history import FinishedStep, History
from cope.core.policies.cascade_vote import after_the_small_model, small_pool, small_step
from cope.core.policies.common import vote_of
from cope.core.policies.decision import Decision
from cope.core.stages import Stage, StopRule
from cope.core.task import TaskSpec


def next_decision(task: TaskSpec, history: History) -> Decision:
    """The majority of each prompt set; the large model unless both have one and it is the same (none ≠ none).

    With `stop` lossless the second set is not sampled where the first has no majority to agree with.
    """
    pool = small_pool(task, history)
    first = vote_of(pool.steps[0]).winner if pool.steps else None
    hopeless = bool(pool.steps) and first is None and task.policy.stop is StopRule.LOSSLESS
    if not pool.complete and not hopeless:
        return small_step(task, len(pool.steps))
    second = vote_of(pool.steps[1]).winner if pool.complete else None
    if first is not None and second is not None and first.key == second.key:
        # It leads the pooled vote too: no class can have more votes in either part, and ties go to the first part.
        sets = " and ".join(task.policy.baseline.prompt_sets)
        return pool.accept(Stage.SMALL_PLANS_AND_EXECUTES, accepted=True, reason=f"{sets} have the same majority")
    return after_the_small_model(task, history, pool, _told(task, pool.steps))


def _told(task: TaskSpec, steps: tuple[FinishedStep, ...]) -> str:
    winners = [vote_of(step).winner for step in steps]
    names = task.policy.baseline.prompt_sets
    said = [f"{name}: {'none' if won is None else won.answer[:40]}" for name, won in zip(names, winners, strict=False)]
    return "the majorities differ, " + ", ".join(said)
