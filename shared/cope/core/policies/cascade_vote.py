"""Yue et al. 2023, "Large Language Model Cascades with Mixture of Thoughts Representations": pooled votes of several
few-shot prompts. The paper's baseline of that name (section 5); cascade, section 4.

The n samples are shared in equal parts by the prompt sets. The pooled vote accepts at count ≥ τ1·n; else the large
model answers with the first set's prompt, whose examples are billed.
"""

from cope.core.confidence import votes_needed
from cope.core.history import History, step_named
from cope.core.policies.common import greedy_executor, sampled_executor, single
from cope.core.policies.decision import Decision
from cope.core.policies.passing import first_passing
from cope.core.policies.pooled import Pool, leading, pool_of
from cope.core.problem import Kind
from cope.core.stages import Stage, Step, StopRule, Tier
from cope.core.task import TaskSpec

SOLVE = "solve"


def set_step(place: int) -> str:
    """The name of the step that samples with prompt set number `place`, from 0."""
    return f"set{place + 1}"


def next_decision(task: TaskSpec, history: History) -> Decision:
    """Each prompt set's samples in turn, then the pooled vote, then the large model.

    With `stop` lossless the sets that are left are not sampled once the vote can't accept any more. With `max_stage` 1
    (a dry run's pilot) the small model's majority is the end. Of programs one that passes is enough, and the sets
    after its own are not sampled either.
    """
    pool, needed = small_pool(task, history), _needed(task)
    if task.problem.kind is Kind.CODE:
        passing = first_passing(task, pool.steps)
        if passing is not None and (pool.complete or task.policy.stop is not StopRule.OFF):
            return passing
    hopeless = task.policy.stop is StopRule.LOSSLESS and pool.hopeless(needed)
    if not pool.complete and not hopeless:
        return small_step(task, len(pool.steps))
    count = leading(pool.vote)
    told = f"{count} of {pool.n} agree, {needed} needed"
    if count >= needed:
        return pool.accept(Stage.SMALL_PLANS_AND_EXECUTES, accepted=True, reason=told, threshold=task.policy.tau1)
    return after_the_small_model(task, history, pool, told)


def small_pool(task: TaskSpec, history: History) -> Pool:
    """What the small model has answered, with one part for each prompt set."""
    sets = task.policy.baseline.prompt_sets
    return pool_of([step_named(history, set_step(i)) for i in range(len(sets))], task.policy.n // len(sets))


def small_step(task: TaskSpec, place: int) -> Step:
    """The small model's samples with prompt set number `place`."""
    policy, programs = task.policy, task.problem.kind is Kind.CODE
    sets = policy.baseline.prompt_sets
    return Step(
        name=set_step(place),
        stage=Stage.SMALL_PLANS_AND_EXECUTES,
        tier=Tier.SMALL,
        model=policy.small,
        n=policy.n // len(sets),
        planner=None,
        executor=sampled_executor(task, policy.temperatures.executor1),
        votes_needed=1 if programs else None,
        stop=policy.stop if programs else StopRule.OFF,
        prompt_set=sets[place],
        reason=f"the small model answers with the examples of {sets[place]}",
    )


def after_the_small_model(task: TaskSpec, history: History, pool: Pool, why: str) -> Decision:
    """The large model with the first set's prompt; with `max_stage` 1 the small model's majority, unaccepted."""
    if task.policy.max_stage == 1:
        return pool.accept(Stage.SMALL_PLANS_AND_EXECUTES, accepted=False, reason=why)
    solved = step_named(history, SOLVE)
    if solved is not None:
        return single(solved, "the large model solved it itself")
    policy = task.policy
    return Step(
        name=SOLVE,
        stage=Stage.LARGE_EXECUTES,
        tier=Tier.LARGE,
        model=policy.large,
        n=1,
        planner=None,
        executor=greedy_executor(task, policy.temperatures.executor3),
        # "with the same few-shot prompt (billed)"; of several the first that is named.
        prompt_set=policy.baseline.prompt_sets[0],
        reason=f"the small model's answers lack agreement: {why}",
    )


def _needed(task: TaskSpec) -> int:
    if task.problem.kind is Kind.CODE:
        return 1
    return votes_needed(task.policy.tau1, task.policy.n, task.policy.threshold_rule)
