"""What several policies share: drawing p1*, taking a majority, and calls built from a task's options."""

import hashlib
from fractions import Fraction

from cope.core.confidence import votes_needed
from cope.core.errors import ErrorInfo
from cope.core.history import FinishedStep, Sample, SampleStatus
from cope.core.perplexity import candidate, exact_perplexity
from cope.core.plans import GoalPlan
from cope.core.policies.decision import Accept, Stop
from cope.core.policies.spec import GOAL_PLAN_TOKENS, GUIDELINE_PLAN_TOKENS, SOLUTION_TOKENS
from cope.core.problem import Kind
from cope.core.prompts.model import Role
from cope.core.stages import Call, Stage
from cope.core.task import TaskSpec
from cope.core.vote import Vote, tally


def goal_planner(temperature: float) -> Call:
    """The small planner's call: one short sentence."""
    return Call(Role.GOAL_PLANNER, temperature, GOAL_PLAN_TOKENS)


def guideline_planner(temperature: float) -> Call:
    """The large planner's call: one or two sentences."""
    return Call(Role.GUIDELINE_PLANNER, temperature, GUIDELINE_PLAN_TOKENS)


def sampled_executor(task: TaskSpec, stage_temperature: float) -> Call:
    """An executor of Stages 1 and 2: the caller's own temperature comes before the policy's."""
    own = task.options.temperature
    return Call(Role.EXECUTOR, stage_temperature if own is None else own, _solution_tokens(task))


def greedy_executor(task: TaskSpec, temperature: float) -> Call:
    """The large executor: greedy unless the policy says otherwise; the caller's temperature does not apply to it."""
    return Call(Role.EXECUTOR, temperature, _solution_tokens(task))


def _solution_tokens(task: TaskSpec) -> int:
    return SOLUTION_TOKENS if task.options.max_tokens is None else task.options.max_tokens


def needed(task: TaskSpec, stage: Stage) -> int:
    """Votes that accept in this stage; of programs, one that passes is enough."""
    policy = task.policy
    if task.problem.kind is Kind.CODE:
        return 1
    tau = policy.tau1 if stage is Stage.SMALL_PLANS_AND_EXECUTES else policy.tau2
    return votes_needed(tau, policy.n, policy.threshold_rule)


def vote_of(step: FinishedStep) -> Vote:
    """The vote over the samples that arrived; aborted and failed ones stay in the denominator."""
    return tally(step.arrived, step.n)


def draw_priority(seed: int, purpose: str, index: int) -> bytes:
    """A pre-drawn priority of a sample index: lowest wins. A hash, so it is reproducible on any machine."""
    return hashlib.sha256(f"{seed}:{purpose}:{index}".encode()).digest()


def draw_p1_star(task: TaskSpec, step: FinishedStep) -> tuple[GoalPlan | None, str]:
    """p1*: one plan drawn uniformly among those whose answer joined the majority class, and how it was drawn.

    Every answer unparsable: drawn over all plans. No plan at all (every chain failed): None.
    """
    planned = [sample for sample in step.samples if sample.plan]
    best = candidate(step)
    if best is not None and best.plan:
        # No majority where texts are open-ended: the plan that led to the surest of them stands in its place.
        return GoalPlan(best.plan), f"p1* is plan {best.index}, whose text has the lowest perplexity"
    winner = vote_of(step).winner
    among = "the plans of the majority class"
    pool = [s for s in planned if winner is not None and s.index in winner.indices]
    if not pool:
        pool, among = planned, "all plans: no answer was parsable"
    if not pool:
        return None, "no plan arrived"
    drawn = min(pool, key=lambda s: draw_priority(task.seed, "p1_star", s.index))
    return GoalPlan(drawn.plan or ""), f"p1* is plan {drawn.index}, drawn among {among}"


def majority(step: FinishedStep, *, accepted: bool) -> Accept | Stop:
    """The majority answer whatever its share; unparsable throughout: the first solution that arrived, unaccepted (of
    programs, the first of those that pass most tests).

    Texts without a vote (kind `open`): the one of lowest perplexity.

    A step in which no chain arrived is a `Stop` with that chain's error.
    """
    vote = vote_of(step)
    if vote.winner is not None:
        return Accept(
            step=step.name,
            sample_index=vote.winner.indices[0],
            stage=step.stage,
            accepted=accepted,
            reason=f"majority: {vote.winner.count} of {step.n} agree",
            confidence=vote.consensus_ratio,
            vote=vote,
        )
    best = candidate(step)
    if best is not None:
        return of_perplexity(step, best, accepted=accepted, reason=f"sample {best.index} has the lowest perplexity")
    if step.arrived:
        return Accept(
            step=step.name,
            sample_index=max(step.arrived, key=lambda s: (s.tests_passed or 0, -s.index)).index,
            stage=step.stage,
            accepted=False,
            reason=f"none of {step.n} answers could be read",
            confidence=vote.consensus_ratio,
            vote=vote,
        )
    return no_sample(step)


def of_perplexity(
    step: FinishedStep, best: Sample, *, accepted: bool, reason: str, theta: Fraction | None = None
) -> Accept:
    """A step's candidate by perplexity, which is its confidence."""
    return Accept(
        step=step.name,
        sample_index=best.index,
        stage=step.stage,
        accepted=accepted,
        reason=reason,
        confidence=exact_perplexity(best),
        threshold=theta,
    )


def single(step: FinishedStep, reason: str) -> Accept | Stop:
    """The one sample of a step without a vote."""
    if not step.arrived:
        return no_sample(step)
    return Accept(step.name, step.arrived[0].index, step.stage, accepted=True, reason=reason)


def no_sample(step: FinishedStep) -> Stop:
    """Every chain of the step failed for good: the task fails with the first one's error."""
    failed: list[Sample] = [s for s in step.samples if s.status is SampleStatus.FAILED]
    first = failed[0].error if failed else None
    code, _, message = (first or "no_sample: no sample arrived").partition(": ")
    return Stop(ErrorInfo(code, message or code))
