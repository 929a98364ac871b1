"""What a finished task keeps of its history (`StoreLevel`): decided from the policy's own decisions."""

from cope.core.codec import prune_step
from cope.core.history import FinishedStep, History
from cope.core.policies.decision import Accept
from cope.core.policies.registry import next_decision
from cope.core.stages import Step
from cope.core.task import StoreLevel, TaskSpec


def prune_history(task: TaskSpec, history: History) -> History:
    """The history with the texts that the task's store level does not keep dropped."""
    if task.store is StoreLevel.FULL:
        return history
    kept = kept_samples(task, history) if task.store is StoreLevel.ANSWERS else {}
    return tuple(prune_step(step, task.store, kept.get(step.name, frozenset())) for step in history)


def kept_samples(task: TaskSpec, history: History) -> dict[str, frozenset[int]]:
    """By step, the samples whose texts mattered: a plan that a later step was given, the solution that was accepted,
    and the only sample of a step that drew one."""
    kept = {step.name: _only(step) for step in history}
    for done in range(len(history) + 1):
        decision = next_decision(task, history[:done])
        match decision:
            case Accept():
                if decision.step in kept:
                    kept[decision.step] |= {decision.sample_index}
            case Step(goal=goal) if goal is not None and done < len(history):
                for step in history[:done]:
                    planner = next((s.index for s in step.samples if s.plan == goal.text), None)
                    kept[step.name] |= frozenset() if planner is None else {planner}
            case _:
                pass
    return kept


def _only(step: FinishedStep) -> frozenset[int]:
    return frozenset({step.samples[0].index}) if len(step.samples) == 1 else frozenset()
