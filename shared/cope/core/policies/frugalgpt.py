"""Chen et al. 2023, "FrugalGPT": model after model, until a learned scorer thinks the answer is right.

Each tier is one model with one greedy answer, accepted if its score exceeds 1 − threshold (cascade, section 4). The
scorer is part of the policy, so a batch keeps the one it was submitted with. The last model's answer needs no score.
"""

from fractions import Fraction

from cope.core.history import FinishedStep, History, Sample, step_named
from cope.core.policies.common import greedy_executor, single
from cope.core.policies.decision import Accept, Decision
from cope.core.policies.tiers import SOLVE, stage_of, tier_step
from cope.core.problem import Kind
from cope.core.scorer import TierScorer, score
from cope.core.stages import Step
from cope.core.task import TaskSpec


def next_decision(task: TaskSpec, history: History) -> Decision:
    """Model by model. An answer that can't be read is never accepted by its score. With `max_stage` 1 (a dry run's
    pilot) the first model's answer is the end."""
    tiers, scorer = task.policy.baseline.tiers, task.policy.baseline.scorer
    if scorer is None:
        raise ValueError("policy frugalgpt has no scorer")  # `request_baselines` lets none through
    why = f"every task starts on the first model; scorer {scorer.name} {scorer.version}"
    for place, judged_by in enumerate(scorer.tiers):
        step = step_named(history, tier_step(place))
        if step is None:
            return _step(task, place, why)
        found, why = _judged(task, step, judged_by)
        if found is not None or (task.policy.max_stage == 1 and step.arrived):
            return Accept(
                step=step.name,
                sample_index=step.arrived[0].index,
                stage=stage_of(place, len(tiers)),
                accepted=found is not None,
                reason=why,
                confidence=found,
                threshold=1 - judged_by.threshold,
            )
        if task.policy.max_stage == 1:
            return single(step, why)
    solved = step_named(history, SOLVE)
    if solved is not None:
        return single(solved, "the last model solved it itself")
    return _step(task, len(tiers) - 1, why)


def _judged(task: TaskSpec, step: FinishedStep, judged_by: TierScorer) -> tuple[Fraction | None, str]:
    """The score that accepts, or None, and how it came about."""
    sample: Sample | None = step.arrived[0] if step.arrived else None
    if sample is None or not _readable(task, sample):
        return None, f"{step.model}'s answer could not be read"
    found, limit = score(judged_by, task.problem, sample), 1 - judged_by.threshold
    told = f"{step.model}'s answer scores {float(found):.3f}, over {float(limit):.3f} needed"
    return (found if found > limit else None), told


def _readable(task: TaskSpec, sample: Sample) -> bool:
    """Nothing is run or voted on here: a program or an open-ended text has no key, and is scored as it is written."""
    match task.problem.kind:
        case Kind.CODE:
            return sample.answer is not None
        case Kind.OPEN:
            return bool(sample.solution)
        case _:
            return sample.key is not None


def _step(task: TaskSpec, place: int, why: str) -> Step:
    policy = task.policy
    tiers = policy.baseline.tiers
    (model,) = tiers[place]
    return Step(
        name=SOLVE if place == len(tiers) - 1 else tier_step(place),
        stage=stage_of(place, len(tiers)),
        tier=model.tier,
        model=model.model,
        n=1,
        planner=None,
        executor=greedy_executor(task, policy.temperatures.executor3),
        prompt_set=policy.prompt_set,
        reason=why,
    )
