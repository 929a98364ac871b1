"""The dearest way a line can take, step by step, with the functions that decide and that reserve money.

The policy itself is asked what follows when nothing can be read and every plan is as long as it may be, and once more
with empty plans: a prompt is longest with the first, but in a short context it leaves the answer most room with the
second. What a step can cost is bounded by both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cope.core.budget import output_limit
from cope.core.history import FinishedStep, Sample, SampleStatus
from cope.core.models import ModelEntry
from cope.core.money import NanoUSD, Price
from cope.core.plans import GoalPlan
from cope.core.policies.registry import next_decision
from cope.core.policies.spec import CASCADES
from cope.core.problem import Message
from cope.core.prompts import PromptSet, Role
from cope.core.stages import Stage, Step, StopRule
from cope.core.survey import Reach, StepSize
from cope.core.task import TaskSpec
from cope.usecases.chains import PLAN_BYTES_PER_TOKEN, executor_messages, planner_messages
from cope.usecases.run_step import step_worst_case

_NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of the way: with the longest plans before it, and with empty ones."""

    longest: Step
    shortest: Step
    reach: Reach

    @property
    def writes_plan(self) -> bool:
        """Whether a plan is all that the step writes."""
        return self.longest.executor is None

    @property
    def guidelines(self) -> int:
        """How often the step sends the guideline plan along."""
        return 0 if self.longest.guideline is None or self.longest.executor is None else self.longest.n


def worst_path(spec: TaskSpec) -> tuple[Rung, ...]:
    """Every step that the line's policy can ask for, in order. It depends on the policy and the options alone."""
    # Nothing is left out because a vote is hopeless: with unreadable answers it always is.
    spec = replace(spec, policy=replace(spec.policy, stop=StopRule.OFF))
    longest, shortest = _walk(spec, longest=True), _walk(spec, longest=False)
    # Without anything in between, what the first stage does not accept comes to the last.
    between = any(step.stage is Stage.LARGE_PLANS_SMALL_EXECUTES for step in longest)
    return tuple(Rung(a, b, _reach(spec, a, between=between)) for a, b in zip(longest, shortest, strict=True))


def step_size(spec: TaskSpec, rung: Rung, entry: ModelEntry, prompts: PromptSet, price: Price) -> StepSize:
    """This line's share of the step's sums."""
    reserve = step_worst_case(spec, rung.longest, entry, prompts, price)
    most, counted = _limits(spec, rung.shortest, entry, prompts), _limits(spec, rung.longest, entry, prompts)
    room = sum(max(0, a - b) for a, b in zip(most, counted, strict=True))
    more = price.worst_case(input_tokens=0, output_tokens=room, calls=rung.longest.n)
    return StepSize(
        bytes=rung.shortest.n * sum(map(content_bytes, _prompts(spec, rung.shortest, prompts))),
        limit=rung.longest.n * sum(max(a, b) for a, b in zip(most, counted, strict=True)),
        worst=NanoUSD(reserve + more),
    )


def content_bytes(messages: Sequence[Message]) -> int:
    """UTF-8 bytes of what is said in these messages."""
    return sum(len(message.content.encode("utf-8", "surrogatepass")) for message in messages)


def _walk(spec: TaskSpec, *, longest: bool) -> list[Step]:
    history: tuple[FinishedStep, ...] = ()
    steps: list[Step] = []
    decision = next_decision(spec, history)
    while isinstance(decision, Step):
        steps.append(decision)
        history = (*history, _unreadable(spec, decision, longest=longest))
        decision = next_decision(spec, history)
    return steps


def _unreadable(spec: TaskSpec, step: Step, *, longest: bool) -> FinishedStep:
    """The step carried out, with answers that nobody can read: what escalates in every policy."""
    plan = None
    if step.planner is not None:
        plan = "x" * (step.planner.max_tokens * PLAN_BYTES_PER_TOKEN) if longest else ""
    solution = ""
    if spec.problem.turns and step.executor is not None and longest:  # a later turn is sent the earlier ones' answers
        solution = "x" * (step.executor.max_tokens * PLAN_BYTES_PER_TOKEN)
    samples = tuple(Sample(index, SampleStatus.FINISHED, plan=plan, solution=solution) for index in range(step.n))
    return FinishedStep(
        step.name, step.stage, step.tier, step.model, step.n, samples, step.reason, "", _NO_TIME, _NO_TIME
    )


def _reach(spec: TaskSpec, step: Step, *, between: bool) -> Reach:
    if spec.policy.name not in CASCADES or step.stage is Stage.SMALL_PLANS_AND_EXECUTES:
        return Reach.ALWAYS
    return Reach.UNRESOLVED if between and step.stage is Stage.LARGE_EXECUTES else Reach.ESCALATED


def _prompts(spec: TaskSpec, step: Step, prompts: PromptSet) -> list[tuple[Message, ...]]:
    sent = []
    if step.planner is not None:
        sent.append(planner_messages(spec, step, prompts))
    if step.executor is not None:
        sent.append(executor_messages(spec, step, prompts, None))
    return sent


def _limits(spec: TaskSpec, step: Step, entry: ModelEntry, prompts: PromptSet) -> list[int]:
    """The output limit of each call of one chain, as `step_worst_case` counts it for a step with these plans."""
    limits = []
    if step.planner is not None:
        messages = planner_messages(spec, step, prompts)
        limits.append(output_limit(entry, messages, step.planner.max_tokens))
    if step.executor is not None:
        # After a plan of the chain's own, the whole limit is counted: a shorter plan leaves the context more room.
        whole = step.executor.max_tokens
        own = step.planner is not None and step.planner.role is Role.GOAL_PLANNER
        messages = executor_messages(spec, step, prompts, GoalPlan("") if own else None)
        limits.append(whole if own else output_limit(entry, messages, whole))
    return limits
