"""What a finished task keeps of its history (`StoreLevel`): decided from the policy's own decisions.

A task that ends without its policy's answer (failed, cancelled, degraded) also keeps what a retry would go on from.
"""

from cope.core.codec import prune_step
from cope.core.history import FinishedStep, History
from cope.core.policies.common import draw_p1_star, majority, vote_of
from cope.core.policies.decision import Accept
from cope.core.policies.registry import answered_turns, next_decision
from cope.core.stages import Step, Tier
from cope.core.task import StoreLevel, TaskSpec


def prune_history(task: TaskSpec, history: History) -> History:
    """The history with the texts that the task's store level does not keep dropped."""
    if task.store is StoreLevel.FULL:
        return history
    kept = kept_samples(task, history) if task.store is StoreLevel.ANSWERS else {}
    return tuple(prune_step(step, task.store, kept.get(step.name, frozenset())) for step in history)


def kept_samples(task: TaskSpec, history: History) -> dict[str, frozenset[int]]:
    """By step, the samples whose texts mattered: a plan that a later step was given, the solution that was accepted,
    and the only sample of a step that drew one. Without an accepted answer also the samples that a retry needs: the
    plan that would be drawn as p1*, and the one whose solution the small model's vote would return."""
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
    for turn in answered_turns(task, history):
        kept[turn.step] |= {turn.sample_index}
    if not isinstance(next_decision(task, history), Accept):
        for step in history:
            kept[step.name] |= _to_go_on(task, step)
    return kept


def _to_go_on(task: TaskSpec, step: FinishedStep) -> frozenset[int]:
    if step.tier is not Tier.SMALL or not step.arrived:
        return frozenset()
    best = majority(step, accepted=False)
    goal, _ = draw_p1_star(task, step)
    winner = vote_of(step).winner
    drawn = (
        s.index
        for s in step.samples
        if goal is not None and s.plan == goal.text and (winner is None or s.index in winner.indices)
    )
    indices = {next(drawn, None), best.sample_index if isinstance(best, Accept) else None}
    return frozenset(index for index in indices if index is not None)


def _only(step: FinishedStep) -> frozenset[int]:
    return frozenset({step.samples[0].index}) if len(step.samples) == 1 else frozenset()
