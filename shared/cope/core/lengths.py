"""How long what a step writes will be: from this project's past, else the pilot's own solutions, else its limit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt

from cope.core.chances import Chance, draw_factor, mean_factor
from cope.core.survey import PaidStep

FEWEST_PAST = 30
"""Calls or tasks of this project's past that are asked for before they are believed."""

PAST_IS_WORTH = 50
"""Past calls and tasks count as at most so many: they were about other problems."""

PAST_DRIFT = 0.15
VERBOSITY, VERBOSITY_DOUBT = 1.5, 0.8
"""A large model's solution beside the small one's: 1.5 times as long, give or take a factor of 2.2 (log-normal)."""

_SOLVING = frozenset({"stage3", "solve", "call"})


class Doubts:
    """The factors of one imaginary batch that all its lines share: how wordy a model is, how its tokenizer cuts."""

    def __init__(self, chance: Chance) -> None:
        self.chance = chance
        self._factors: dict[tuple[str, str, float], float] = {}

    def factor(self, what: str, model: str, sigma: float) -> float:
        """Of median 1; the same one for the same arguments."""
        key = (what, model, sigma)
        if key not in self._factors:
            self._factors[key] = draw_factor(self.chance, sigma)
        return self._factors[key]


class Basis(StrEnum):
    """Where a guess comes from."""

    HISTORY = "history"
    PILOT = "pilot"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Length:
    """What is known of a step's output, in tokens: of `count` texts, their mean and standard deviation."""

    basis: Basis
    mean: float = 0.0
    sd: float = 0.0
    count: int = 0

    def middle(self, limit: float) -> float:
        """The expected tokens of one line; `limit` is the lines' mean limit."""
        match self.basis:
            case Basis.HISTORY:
                return min(limit, self.mean * mean_factor(PAST_DRIFT))
            case Basis.PILOT:
                return min(limit, self.mean * VERBOSITY * mean_factor(VERBOSITY_DOUBT))
            case Basis.NONE:
                return limit / 2

    def draw(self, doubts: Doubts, step: PaidStep, lines: int) -> float:
        """The tokens of so many lines together, in one imaginary batch."""
        most = lines * step.limit / step.lines
        if self.basis is Basis.NONE or not lines:
            return most
        if self.basis is Basis.HISTORY:
            known, factor = min(self.count, PAST_IS_WORTH), doubts.factor(step.name, step.model, PAST_DRIFT)
        else:
            known, factor = self.count, VERBOSITY * doubts.factor("words", step.model, VERBOSITY_DOUBT)
        chance = doubts.chance
        mean = self.mean + chance.normalvariate() * self.sd / sqrt(known)
        total = factor * (lines * mean + chance.normalvariate() * self.sd * sqrt(lines))
        return min(most, max(float(lines), total))


def length_of(step: PaidStep, solutions: Sequence[float], past: Mapping[tuple[str, str], Sequence[int]]) -> Length:
    """What is known of a step's output. `solutions` are the pilot's, `past` output tokens by (model, step)."""
    names = [step.name, *sorted(_SOLVING - {step.name})] if step.name in _SOLVING else [step.name]
    for name in names:
        known = past.get((step.model, name), ())
        if len(known) >= FEWEST_PAST:
            return _measured(Basis.HISTORY, known)
    if step.name in _SOLVING and solutions:
        return _measured(Basis.PILOT, solutions)
    return Length(Basis.NONE)


def _measured(basis: Basis, lengths: Sequence[float]) -> Length:
    mean = sum(lengths) / len(lengths)
    squares = sum((length - mean) ** 2 for length in lengths)
    # Of a single text nothing is known but itself: as much doubt as it is long.
    sd = sqrt(squares / (len(lengths) - 1)) if len(lengths) > 1 else mean
    return Length(basis, mean, sd, len(lengths))
