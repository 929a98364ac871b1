"""Kind `code`: a program passes or it does not, in place of a vote (paper, section 4; cascade, section 3).

One of n that passes every visible test is enough, and the answer is drawn among those that do. Each sample's place in
the draw is fixed by the task's seed before anything is sampled. So the draw can be settled before the last sample is
there: once a program passes whose place is better than all that are still to come.
"""

from collections.abc import Sequence
from dataclasses import replace

from cope.core.history import FinishedStep, Sample
from cope.core.plans import GoalPlan
from cope.core.policies.common import draw_priority, no_sample, vote_of
from cope.core.policies.decision import Accept, Stop
from cope.core.stages import StopRule
from cope.core.task import TaskSpec


def accept_passing(task: TaskSpec, step: FinishedStep) -> Accept | None:
    """A program drawn among those that pass every visible test; among those of the largest class where they are told
    apart by what they do (`cope.choose: behaviour`). None where no program passes."""
    vote = vote_of(step)
    if vote.winner is None:
        return None
    passing = sum(each.count for each in vote.classes)
    of_class = f", {vote.winner.count} of them behave alike" if len(vote.classes) > 1 else ""
    return Accept(
        step=step.name,
        sample_index=min(vote.winner.indices, key=lambda index: _place(task, index)),
        stage=step.stage,
        accepted=True,
        reason=f"{passing} of {step.n} programs pass every visible test{of_class}",
        confidence=vote.consensus_ratio,
        vote=vote,
    )


def first_passing(task: TaskSpec, steps: Sequence[FinishedStep]) -> Accept | None:
    """Of several steps' programs, prompt sets or models of a tier in their order: one drawn among those that pass in
    the first step that has any. So the steps after it need not be taken, and change nothing where they are."""
    return next((found for step in steps if (found := accept_passing(task, step)) is not None), None)


def best_program(task: TaskSpec, step: FinishedStep, *, accepted: bool) -> Accept | Stop:
    """Where there is no further stage: one that passes (`accepted` says what its acceptance counts for), else the one
    that passes most visible tests, never accepted."""
    passing = accept_passing(task, step)
    if passing is not None:
        return replace(passing, accepted=accepted)
    best = _most_passed(task, step.arrived)
    if best is None:
        return no_sample(step)
    return Accept(
        step=step.name,
        sample_index=best.index,
        stage=step.stage,
        accepted=False,
        reason=f"no program of {step.n} passes; this one passes {best.tests_passed or 0} of "
        f"{len(task.problem.tests)} visible tests",
        confidence=vote_of(step).consensus_ratio,
        vote=vote_of(step),
    )


def draw_partial_plan(task: TaskSpec, step: FinishedStep) -> tuple[GoalPlan | None, str]:
    """p1* where nobody passes: the plan of the program that passes most visible tests, ties by the seeded draw.

    The paper does not say; with no test passed at all it is a draw over all plans. No plan arrived: None.
    """
    best = _most_passed(task, tuple(sample for sample in step.samples if sample.plan))
    if best is None:
        return None, "no plan arrived"
    passed = best.tests_passed or 0
    return GoalPlan(best.plan or ""), (
        f"p1* is plan {best.index}, whose program passes {passed} of {len(task.problem.tests)} visible tests"
    )


def decided(task: TaskSpec, samples: tuple[Sample, ...], n: int, rule: StopRule) -> str | None:
    """Why the programs still to come may be aborted; None while they may not. `samples` are those that ended.

    Nothing short of a passing program ends a step early: any one still to come may pass. `lossless` keeps the very
    program that all n together would have given, unless classes of behaviour are counted, which needs all of them.
    """
    passing = [sample for sample in samples if sample.key is not None]
    if not passing or rule is StopRule.OFF:
        return None
    if rule is StopRule.FIRST_PASS:
        return f"a program passes after {len(samples)} of {n} samples"
    if task.problem.by_behaviour:
        return None
    ended = {sample.index for sample in samples}
    best = min(_place(task, sample.index) for sample in passing)
    if all(best < _place(task, index) for index in range(n) if index not in ended):
        return f"the draw was certain after {len(samples)} of {n} samples"
    return None


def _most_passed(task: TaskSpec, samples: tuple[Sample, ...]) -> Sample | None:
    return min(samples, key=lambda s: (-(s.tests_passed or 0), _place(task, s.index)), default=None)


def _place(task: TaskSpec, index: int) -> bytes:
    return draw_priority(task.seed, "pass", index)
