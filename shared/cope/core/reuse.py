"""What a retried line need not do again: the finished steps that its policy would carry out just the same."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from cope.core.history import FinishedStep, History
from cope.core.ids import TaskId
from cope.core.money import ZERO, TokenUsage
from cope.core.policies.decision import Decision, Stop
from cope.core.policies.registry import next_decision
from cope.core.stages import Step
from cope.core.task import StoreLevel, TaskSpec

PromptVersion = Callable[[Step], str | None]
"""The version of the prompts that a step would be sent with today; None where its model is gone."""


def reusable(
    task: TaskSpec, stored: Iterable[FinishedStep], *, version: PromptVersion, whole: bool
) -> tuple[History, Decision]:
    """The stored steps that `task`, the new one, may take over, in order, and what comes after them.

    A step is taken over where the task's policy asks for the same step of the same model, with prompts of the same
    version. `whole` says that nothing was pruned from them. Where texts were, a free step that lacks what later steps
    draw on is done again, with all after it, unless one of those was paid for: a paid step is never paid twice. Steps
    that lead to the same failure again are left out.
    """
    by_name = {step.name: step for step in reversed(list(stored))}
    kept: History = ()
    decisions = [next_decision(task, kept)]  # the n-th is what comes after n steps
    asked: list[Step] = []
    while isinstance(step := decisions[-1], Step):
        found = by_name.get(step.name)
        if found is None or not _same(step, found) or found.prompt_version != version(step):
            break
        asked.append(step)
        kept = (*kept, found)
        decisions.append(next_decision(task, kept))
    count = len(kept)
    if not whole and task.store is not StoreLevel.FULL:
        count = _with_texts(asked, kept)
    while count and isinstance(decisions[count], Stop):
        count -= 1
    return kept[:count], decisions[count]


def taken_over(step: FinishedStep, task_id: TaskId) -> FinishedStep:
    """A step as it stands in a retry's history: it cost nothing again. `task_id` is the task whose history it was in;
    a step that was taken over before keeps the name of the one that carried it out."""
    return replace(step, cost=ZERO, usage=TokenUsage(), reused_from=step.reused_from or task_id)


def _same(step: Step, found: FinishedStep) -> bool:
    return (step.model, step.n, step.tier, step.stage) == (found.model, found.n, found.tier, found.stage)


def _with_texts(asked: list[Step], history: History) -> int:
    """How many steps from the first have what those after them need."""
    paid = max((place for place, step in enumerate(history) if step.price_version is not None), default=-1)
    for place, (step, found) in enumerate(zip(asked, history, strict=True)):
        if place > paid and not _has_texts(step, found):
            return place
    return len(history)


def _has_texts(step: Step, found: FinishedStep) -> bool:
    """What is kept of an ended task is the plan that was, or would be, drawn, and the solution its vote would return
    (`cope.core.retention`): where there is one such sample, the next decision is the one that all of them give."""
    return not found.arrived or any(
        (step.planner is None or sample.plan is not None) and (step.executor is None or sample.solution is not None)
        for sample in found.arrived
    )
