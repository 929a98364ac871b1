"""COPE: small plans and executes; large plans, small executes; large executes (paper, section 4; A.1: `cope-s2`)."""

from dataclasses import replace

from cope.core.history import FinishedStep, History, step_named
from cope.core.perplexity import candidate, exact_perplexity
from cope.core.plans import GuidelinePlan
from cope.core.policies.common import (
    draw_p1_star,
    goal_planner,
    greedy_executor,
    guideline_planner,
    majority,
    needed,
    no_sample,
    of_perplexity,
    sampled_executor,
    single,
    vote_of,
)
from cope.core.policies.decision import Accept, Decision
from cope.core.policies.passing import accept_passing, best_program, draw_partial_plan
from cope.core.problem import Kind
from cope.core.stages import Call, Stage, Step, StragglerRule, Tier
from cope.core.task import OnBudget, TaskSpec
from cope.core.theta import theta_of

STAGE1, STAGE2_PLAN, STAGE2_EXECUTE, STAGE3 = "stage1", "stage2-plan", "stage2-execute", "stage3"


def next_decision(task: TaskSpec, history: History) -> Decision:
    """Stage 1 accepts at tau1, Stage 2 at tau2 over its own answers only, Stage 3's single answer is the result.

    With `max_stage` 2 (the truncated variant of A.1) Stage 2's majority is returned whatever its share; with 1 (a dry
    run's pilot) Stage 1's, so that nothing is ever paid for.
    """
    stage1 = step_named(history, STAGE1)
    if stage1 is None:
        return _stage1(task)
    accepted = _accept(task, stage1)
    if accepted is not None:
        return accepted
    if task.policy.max_stage == 1:
        return _best(task, stage1)
    plan = step_named(history, STAGE2_PLAN)
    if plan is None:
        return _stage2_plan(task, stage1)
    if not plan.arrived or plan.arrived[0].plan is None:
        return no_sample(plan)
    guideline = GuidelinePlan(plan.arrived[0].plan)
    stage2 = step_named(history, STAGE2_EXECUTE)
    if stage2 is None:
        return _stage2_execute(task, stage1, guideline)
    accepted = _accept(task, stage2)
    if accepted is not None:
        return accepted
    if task.policy.max_stage == 2:
        return _best(task, stage2)
    stage3 = step_named(history, STAGE3)
    if stage3 is None:
        return _stage3(task, stage2, guideline)
    return single(stage3, "the large model solved it itself")


def _best(task: TaskSpec, step: FinishedStep) -> Decision:
    if task.problem.kind is Kind.CODE:
        return best_program(task, step, accepted=False)
    return majority(step, accepted=False)


def _accept(task: TaskSpec, step: FinishedStep) -> Accept | None:
    if task.problem.kind is Kind.CODE:
        return accept_passing(task, step)
    if task.problem.kind is Kind.OPEN:
        return _accept_open(task, step)
    vote = vote_of(step)
    k = needed(task, step.stage)
    if vote.winner is None or vote.winner.count < k:
        return None
    tau = task.policy.tau1 if step.stage is Stage.SMALL_PLANS_AND_EXECUTES else task.policy.tau2
    return Accept(
        step=step.name,
        sample_index=vote.winner.indices[0],
        stage=step.stage,
        accepted=True,
        reason=f"{vote.winner.count} of {step.n} agree, {k} needed",
        confidence=vote.consensus_ratio,
        threshold=tau,
        vote=vote,
    )


def _accept_open(task: TaskSpec, step: FinishedStep) -> Accept | None:
    """The candidate of lowest perplexity where that is at most θ."""
    best, theta = candidate(step), theta_of(task.policy.theta, task.problem.category)
    if best is None or theta is None or exact_perplexity(best) > theta:
        return None
    reason = f"{_perplexity_of(step)}, at most {float(theta):.4g} accepts"
    return of_perplexity(step, best, accepted=True, reason=reason, theta=theta)


def _perplexity_of(step: FinishedStep) -> str:
    best = candidate(step)
    if best is None:
        return "no log-probabilities arrived"
    return f"the lowest perplexity is {float(exact_perplexity(best)):.4g} (sample {best.index})"


def _executor(task: TaskSpec, temperature: float) -> Call:
    call = sampled_executor(task, temperature)
    return replace(call, logprobs=True) if task.problem.kind is Kind.OPEN else call


def _votes(task: TaskSpec, stage: Stage) -> int | None:
    return None if task.problem.kind is Kind.OPEN else needed(task, stage)


def _shortfall(task: TaskSpec, step: FinishedStep) -> str:
    if task.problem.kind is Kind.OPEN:
        theta = theta_of(task.policy.theta, task.problem.category)
        return f"{_perplexity_of(step)}, at most {'?' if theta is None else format(float(theta), '.4g')} accepts"
    winner = vote_of(step).winner
    if task.problem.kind is Kind.CODE:
        return f"none of {step.n} programs passes every visible test"
    return f"{winner.count if winner else 0} of {step.n} agree, {needed(task, step.stage)} needed"


def _stage1(task: TaskSpec) -> Step:
    policy = task.policy
    return Step(
        name=STAGE1,
        stage=Stage.SMALL_PLANS_AND_EXECUTES,
        tier=Tier.SMALL,
        model=policy.small,
        n=policy.n,
        planner=goal_planner(policy.temperatures.planner1),
        executor=_executor(task, policy.temperatures.executor1),
        votes_needed=_votes(task, Stage.SMALL_PLANS_AND_EXECUTES),
        stop=policy.stop,
        stragglers=policy.p1_star,
        waves=policy.waves,
        prompt_set=policy.prompt_set,
        reason="every task starts on the small model",
    )


def _stage2_plan(task: TaskSpec, stage1: FinishedStep) -> Step:
    return Step(
        name=STAGE2_PLAN,
        stage=Stage.LARGE_PLANS_SMALL_EXECUTES,
        tier=Tier.LARGE,
        model=task.policy.large,
        n=1,
        planner=guideline_planner(task.policy.temperatures.planner2),
        executor=None,
        prompt_set=task.policy.prompt_set,
        reason=f"Stage 1 lacks confidence: {_shortfall(task, stage1)}",
    )


def _stage2_execute(task: TaskSpec, stage1: FinishedStep, guideline: GuidelinePlan) -> Step:
    policy = task.policy
    draw = draw_partial_plan if task.problem.kind is Kind.CODE else draw_p1_star
    goal, drawn = draw(task, stage1)
    return Step(
        name=STAGE2_EXECUTE,
        stage=Stage.LARGE_PLANS_SMALL_EXECUTES,
        tier=Tier.SMALL,
        model=policy.small,
        n=policy.n,
        planner=None,
        executor=_executor(task, policy.temperatures.executor2),
        goal=goal,
        guideline=guideline,
        votes_needed=_votes(task, Stage.LARGE_PLANS_SMALL_EXECUTES),
        stop=policy.stop,
        stragglers=_stage2_stragglers(task),
        waves=policy.waves,
        prompt_set=policy.prompt_set,
        reason=f"the small model retries with the guideline; {drawn}",
    )


def _stage2_stragglers(task: TaskSpec) -> StragglerRule:
    """Nothing is drawn among Stage 2's samples later, so escalating before the stragglers arrive loses nothing, unless
    its majority may itself be the result: with `max_stage` 2, and where a cap may end the task with the best vote."""
    may_end_here = task.on_budget is OnBudget.BEST_VOTE or task.max_cost is not None
    return StragglerRule.FULL if task.policy.max_stage == 2 or may_end_here else StragglerRule.ARRIVED


def _stage3(task: TaskSpec, stage2: FinishedStep, guideline: GuidelinePlan) -> Step:
    return Step(
        name=STAGE3,
        stage=Stage.LARGE_EXECUTES,
        tier=Tier.LARGE,
        model=task.policy.large,
        n=1,
        planner=None,
        executor=greedy_executor(task, task.policy.temperatures.executor3),
        guideline=guideline,
        prompt_set=task.policy.prompt_set,
        reason=f"Stage 2 lacks confidence: {_shortfall(task, stage2)}",
    )
