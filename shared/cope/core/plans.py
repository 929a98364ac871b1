"""The two plans of the paper, as two types, so that swapping them fails type checking.

Source: *Efficient LLM Collaboration via Planning*, section 4: a goal says *what* to achieve, a guideline *how*.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GoalPlan:
    """What to achieve: one short sentence, written by the small planner in Stage 1."""

    text: str


@dataclass(frozen=True, slots=True)
class GuidelinePlan:
    """How to approach the problem: one or two sentences, written by the large planner in Stage 2."""

    text: str
