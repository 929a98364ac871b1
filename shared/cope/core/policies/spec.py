"""A policy with its parameters (cascade, section 2). Frozen data: the decisions are in the policies' own files."""

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from cope.core.confidence import ThresholdRule
from cope.core.policies.options import NO_OPTIONS, BaselineOptions
from cope.core.stages import StopRule, StragglerRule, Tier
from cope.core.theta import Theta

GOAL_PLAN_TOKENS = 96
GUIDELINE_PLAN_TOKENS = 256
SOLUTION_TOKENS = 2048
MAX_SAMPLES = 64


class PolicyName(StrEnum):
    """The policies. `passthrough` is a single call to a configured model named in the request; `audit` is internal: the
    large model asked about an answer that was not escalated."""

    COPE = "cope"
    COPE_S2 = "cope-s2"
    SMALL = "small"
    SMALL_MAJORITY = "small-majority"
    SMALL_MULTI = "small-multi"
    LARGE = "large"
    CASCADE_VOTE = "cascade-vote"
    CASCADE_VERIFY = "cascade-verify"
    ABC = "abc"
    FRUGALGPT = "frugalgpt"
    PLAN_EXECUTE = "plan-execute"
    LARGE_PLAN = "large-plan"
    SMALL_GUIDED = "small-guided"
    PASSTHROUGH = "passthrough"
    AUDIT = "audit"


CASCADES = frozenset(
    {
        PolicyName.COPE,
        PolicyName.COPE_S2,
        PolicyName.CASCADE_VOTE,
        PolicyName.CASCADE_VERIFY,
        PolicyName.ABC,
        PolicyName.FRUGALGPT,
    }
)
"""The policies that may end with their first stage, or escalate: what a line of theirs costs is not known before."""


@dataclass(frozen=True, slots=True)
class Temperatures:
    """Sampling temperatures by role and stage; the defaults are the paper's appendix C."""

    planner1: float = 0.8
    executor1: float = 0.4
    planner2: float = 0.8
    executor2: float = 0.8
    executor3: float = 0.0


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """`n` in [1, 64] samples per voting stage; `tau1`, `tau2` in [0, 1]; `max_stage` 2 returns Stage 2's majority,
    1 (a dry run's pilot only) Stage 1's.

    `waves` are the samples of a vote launched together, in order (empty: all at once); their sum is `n`.
    `small` and `large` are configured model names; `passthrough` calls the one that `passthrough_tier` says, and the
    policies with `baseline` options of tiers, a planner or an executor call those instead. `theta` accepts in kind
    `open`, by category; it is empty where none was given.
    """

    name: PolicyName
    small: str
    large: str
    n: int = 8
    tau1: Fraction = Fraction(3, 4)
    tau2: Fraction = Fraction(1, 2)
    threshold_rule: ThresholdRule = ThresholdRule.AT_LEAST
    max_stage: int = 3
    temperatures: Temperatures = Temperatures()
    prompt_set: str | None = None
    stop: StopRule = StopRule.LOSSLESS
    p1_star: StragglerRule = StragglerRule.FULL
    waves: tuple[int, ...] = ()
    passthrough_tier: Tier = Tier.LARGE
    baseline: BaselineOptions = NO_OPTIONS
    theta: Theta = ()
