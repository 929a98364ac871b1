"""Stages, tiers and steps: the words of the paper's section 4 as types."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from cope.core.plans import GoalPlan, GuidelinePlan
from cope.core.problem import Problem
from cope.core.prompts.model import Role


class Stage(IntEnum):
    """Named by who does what."""

    SMALL_PLANS_AND_EXECUTES = 1
    LARGE_PLANS_SMALL_EXECUTES = 2
    LARGE_EXECUTES = 3


class Tier(StrEnum):
    """Which models a step needs, and so which queue it waits in."""

    SMALL = "small"
    LARGE = "large"


class StopRule(StrEnum):
    """Whether a vote may end before its last sample (cascade, section 6). `first_pass`, for code only: at the first
    program that passes, which need not be the one that would have been drawn."""

    OFF = "off"
    LOSSLESS = "lossless"
    FIRST_PASS = "first_pass"  # noqa: S105 - no password


class StragglerRule(StrEnum):
    """What an early escalation does with samples still running: wait for them, or abort and draw p1* among the rest."""

    FULL = "full"
    ARRIVED = "arrived"


@dataclass(frozen=True, slots=True)
class Call:
    """How one role is sampled. `temperature` ≥ 0 (0 is greedy); `max_tokens` ≥ 1 caps the output.

    `logprobs` asks for the log-probabilities of what is generated."""

    role: Role
    temperature: float
    max_tokens: int
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What one queue does in one go: `n` chains, each a plan, a solution, or a plan and then a solution from it.

    `name` is unique within a task. With `planner` and `executor` both set, chain i's goal plan is given to chain i's
    executor. `goal` and `guideline` are plans handed to every executor. `votes_needed` is set where a vote may stop
    early: at that many equal answers the step's outcome is acceptance. `waves` are the samples launched together, in
    order (empty: all at once). `verbatim` sends the caller's own messages. `problem` is what is asked where that is not
    the task's own (a later turn). `reason` says why this step follows.
    """

    name: str
    stage: Stage
    tier: Tier
    model: str
    n: int
    planner: Call | None
    executor: Call | None
    goal: GoalPlan | None = None
    guideline: GuidelinePlan | None = None
    votes_needed: int | None = None
    stop: StopRule = StopRule.OFF
    stragglers: StragglerRule = StragglerRule.FULL
    waves: tuple[int, ...] = ()
    prompt_set: str | None = None
    verbatim: bool = False
    reason: str = ""
    problem: Problem | None = None
