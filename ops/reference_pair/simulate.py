"""Votes, policies and intervals over answers drawn beforehand: pure, so that every policy sees the same draws.

A cross-check on a small scale. The product's own policies are `cope.core.policies`.
"""

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

Z95 = 1.959964
_BOXED = re.compile(r"\\boxed\{(-?\d+)\}")


@dataclass(frozen=True)
class Spent:
    """Tokens of large-model calls."""

    prompt: int
    output: int

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.prompt + other.prompt, self.output + other.output)


NOTHING = Spent(0, 0)


@dataclass(frozen=True)
class Drawn:
    """Everything drawn for one problem; an answer is None where none could be read."""

    answer: int
    plain: tuple[int | None, ...]
    stage1: tuple[int | None, ...]
    stage2: tuple[int | None, ...]
    stage3: int | None
    large: int | None
    guideline_cost: Spent
    stage3_cost: Spent
    large_cost: Spent


@dataclass(frozen=True)
class Outcome:
    """What a policy did with one problem: where it ended (1 to 3), and what the large model cost."""

    right: bool
    stage: int
    cost: Spent


def read_answer(solution: str) -> int | None:
    """The last boxed whole number, None if there is none."""
    found = _BOXED.findall(solution)
    return int(found[-1]) if found else None


def vote(answers: Sequence[int | None]) -> tuple[int | None, Fraction]:
    """The most frequent answer (ties to the first drawn) and its share; unreadable ones count below the line only."""
    readable = [a for a in answers if a is not None]
    if not readable:
        return None, Fraction(0)
    winner = max(dict.fromkeys(readable), key=readable.count)
    return winner, Fraction(readable.count(winner), len(answers))


def p1_star(answers: Sequence[int | None], rng: random.Random) -> int:
    """Index of the plan handed on: one of the majority class, of all where no answer could be read."""
    winner, _ = vote(answers)
    return rng.choice([i for i, a in enumerate(answers) if a == winner] or list(range(len(answers))))


def cope(drawn: Drawn, tau1: Fraction, tau2: Fraction) -> Outcome:
    """COPE: small plans and executes; large plans, small executes; large executes."""
    winner, share = vote(drawn.stage1)
    if share >= tau1:
        return Outcome(winner == drawn.answer, 1, NOTHING)
    winner, share = vote(drawn.stage2)
    if share >= tau2:
        return Outcome(winner == drawn.answer, 2, drawn.guideline_cost)
    return Outcome(drawn.stage3 == drawn.answer, 3, drawn.guideline_cost + drawn.stage3_cost)


def small_majority(drawn: Drawn) -> Outcome:
    """The small model's majority, without plans."""
    return Outcome(vote(drawn.plain)[0] == drawn.answer, 1, NOTHING)


def large_only(drawn: Drawn) -> Outcome:
    """One greedy large call, without a plan."""
    return Outcome(drawn.large == drawn.answer, 3, drawn.large_cost)


def planless_cascade(drawn: Drawn, tau: Fraction) -> Outcome:
    """The small model's majority where its share reaches `tau`, else the large model."""
    winner, share = vote(drawn.plain)
    return Outcome(winner == drawn.answer, 1, NOTHING) if share >= tau else large_only(drawn)


def wilson(right: int, total: int) -> tuple[float, float]:
    """95 % interval of a share, in [0, 1]; (0, 1) where nothing was counted."""
    if total == 0:
        return 0.0, 1.0
    p, z2 = right / total, Z95**2
    middle = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 / (1 + z2 / total) * math.sqrt(p * (1 - p) / total + z2 / (4 * total**2))
    return max(0.0, middle - half), min(1.0, middle + half)
