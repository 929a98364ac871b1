"""Carries a policy's steps out on paper: what each is asked to do, with the answers a test gives it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cope.core.history import FinishedStep, History, Sample
from cope.core.policies.decision import Accept, Decision, Stop
from cope.core.policies.registry import next_decision
from cope.core.stages import Step
from cope.core.task import TaskSpec
from tests.support import finished_step, sample

Answers = Mapping[str, Sequence[str | None]]
"""By step name, what its samples answer; a plan's step has its plan's text as the only answer."""


def done(step: Step, answers: Sequence[str | None]) -> FinishedStep:
    """The step with these answers."""
    assert len(answers) == step.n, step.name
    samples = tuple(_sample(step, i, answer) for i, answer in enumerate(answers))
    finished = finished_step(step.name, *samples, stage=step.stage, tier=step.tier)
    return replace(finished, model=step.model)


def _sample(step: Step, index: int, answer: str | None) -> Sample:
    if step.executor is None:
        return replace(sample(index, None, plan=answer), solution=None)
    return sample(index, answer, plan=None)


def play(task: TaskSpec, answers: Answers) -> tuple[list[Step], Accept | Stop]:
    """The steps in the order in which the policy asked for them, and how it ended."""
    history: History = ()
    steps: list[Step] = []
    decision: Decision = next_decision(task, history)
    while isinstance(decision, Step):
        steps.append(decision)
        history = (*history, done(decision, answers[decision.name]))
        decision = next_decision(task, history)
    return steps, decision


def names(steps: Sequence[Step]) -> list[str]:
    """Of these steps."""
    return [step.name for step in steps]
