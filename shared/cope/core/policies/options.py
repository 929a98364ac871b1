"""What only the baselines are given: few-shot sets, tiers of models, an agreement, a scorer, who plans for whom."""

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from cope.core.scorer import Scorer
from cope.core.stages import Tier

MAX_TIERS, MAX_TIER_MODELS, MAX_PROMPT_SETS = 8, 8, 4


class PlanKind(StrEnum):
    """What `plan-execute` lets its planner write: nothing, what to achieve, or how (paper, section 3)."""

    NONE = "none"
    GOAL = "goal"
    GUIDELINE = "guideline"


@dataclass(frozen=True, slots=True)
class Seat:
    """A configured model in a policy's hands. `tier` is that of the model: which queue its steps wait in."""

    model: str
    tier: Tier


@dataclass(frozen=True, slots=True)
class BaselineOptions:
    """Empty or None where the policy has no such part.

    `prompt_sets`: 1 to 4 names that share the samples of a cascade in equal parts (`cascade-verify`: exactly 2).
    `tiers`: 2 to 8 tiers of 1 to 8 models, the last of exactly one. `samples_per_model` ≥ 1 in every tier but the last;
    `agreement` in [0, 1] is the share of a tier's votes that accepts.
    """

    prompt_sets: tuple[str, ...] = ()
    tiers: tuple[tuple[Seat, ...], ...] = ()
    samples_per_model: int = 1
    agreement: Fraction = Fraction(1)
    scorer: Scorer | None = None
    planner: Seat | None = None
    executor: Seat | None = None
    plan: PlanKind = PlanKind.GOAL


NO_OPTIONS = BaselineOptions()
