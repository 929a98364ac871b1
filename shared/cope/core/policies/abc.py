"""Kolawole et al. 2024, "Agreement-Based Cascading": tiers of one or more models that must agree among themselves.

A tier's models answer, each `samples_per_model` times; if the largest class has at least `agreement` of their votes it
is the answer, else the next tier is asked. Of programs one that passes the visible tests is enough. The last tier is
one model, whose greedy answer ends it. (Cascade, section 4.)
"""

from cope.core.confidence import votes_needed
from cope.core.history import History, step_named
from cope.core.policies.common import greedy_executor, sampled_executor, single
from cope.core.policies.decision import Decision
from cope.core.policies.passing import first_passing
from cope.core.policies.pooled import Pool, leading, pool_of
from cope.core.policies.tiers import SOLVE, stage_of, tier_step
from cope.core.problem import Kind
from cope.core.stages import Step, StopRule, StragglerRule
from cope.core.task import TaskSpec


def next_decision(task: TaskSpec, history: History) -> Decision:
    """Tier by tier, model by model. With `stop` lossless a tier ends once its models can't agree any more. With
    `max_stage` 1 (a dry run's pilot) the first tier's majority is the end."""
    tiers = task.policy.baseline.tiers
    why = "every task starts on the first tier"
    for place, models in enumerate(tiers[:-1]):
        size = task.policy.baseline.samples_per_model
        pool = pool_of([step_named(history, tier_step(place, i)) for i in range(len(models))], size)
        needed = _needed(task, pool)
        if task.problem.kind is Kind.CODE:
            passing = first_passing(task, pool.steps)
            if passing is not None and (pool.complete or task.policy.stop is not StopRule.OFF):
                return passing
        hopeless = task.policy.stop is StopRule.LOSSLESS and pool.hopeless(needed)
        if not pool.complete and not hopeless:
            return _step(task, place, len(pool.steps), needed, why)
        count = leading(pool.vote)
        why = f"tier {place + 1}: {count} of {pool.n} agree, {needed} needed"
        stage = stage_of(place, len(tiers))
        if count >= needed:
            return pool.accept(stage, accepted=True, reason=why, threshold=task.policy.baseline.agreement)
        if task.policy.max_stage == 1:
            return pool.accept(stage, accepted=False, reason=why)
    solved = step_named(history, SOLVE)
    if solved is not None:
        return single(solved, "the last tier's model solved it itself")
    return _step(task, len(tiers) - 1, 0, None, why)


def _needed(task: TaskSpec, pool: Pool) -> int:
    if task.problem.kind is Kind.CODE:
        return 1
    return votes_needed(task.policy.baseline.agreement, pool.n, task.policy.threshold_rule)


def _step(task: TaskSpec, place: int, seat: int, needed: int | None, why: str) -> Step:
    policy = task.policy
    tiers = policy.baseline.tiers
    model, last = tiers[place][seat], place == len(tiers) - 1
    # Programs are no vote: each model's own are run, and one that passes ends its step.
    alone = needed is not None and (len(tiers[place]) == 1 or task.problem.kind is Kind.CODE)
    return Step(
        name=SOLVE if last else tier_step(place, seat),
        stage=stage_of(place, len(tiers)),
        tier=model.tier,
        model=model.model,
        n=1 if last else policy.baseline.samples_per_model,
        planner=None,
        executor=greedy_executor(task, policy.temperatures.executor3)
        if last
        else sampled_executor(task, policy.temperatures.executor1),
        # Within a step only where its samples are the whole vote; over several models the tier is cut short above.
        votes_needed=needed if alone else None,
        stop=policy.stop if alone else StopRule.OFF,
        stragglers=StragglerRule.ARRIVED if policy.max_stage != 1 else StragglerRule.FULL,
        prompt_set=policy.prompt_set,
        reason=why,
    )
