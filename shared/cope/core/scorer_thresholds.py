"""FrugalGPT's thresholds: the most right answers whose mean cost stays within a budget (Chen et al. 2023, section 3).

Found by trying, not by gradients: every set of thresholds that makes a difference on the rows, the last scored tier
in one sweep. Only where that would be too many are a tier's thresholds thinned to evenly spaced ones, and the result
says so. Whole numbers throughout: budgets are nano-dollars per million tasks, so no mean is ever rounded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import prod

from cope.core.money import NanoUSD

MILLION = 1_000_000
MOST_STEPS = 4_000_000
"""Rows looked at in one search, about: a few seconds."""


class CannotFit(Exception):
    """No thresholds can be fitted on these rows; the message says what they lack."""


@dataclass(frozen=True, slots=True)
class Case:
    """One problem with every model's answer, in the order in which they are asked.

    `scores` are those of all but the last, in [0, 1]; None for an answer that can't be read, which is never accepted.
    """

    scores: tuple[Fraction | None, ...]
    correct: tuple[bool, ...]
    costs: tuple[NanoUSD, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What these thresholds make of some rows: `answered` counts the tasks that ended with each model."""

    rows: int
    right: int
    spent: NanoUSD
    answered: tuple[int, ...]

    @property
    def mean_cost(self) -> NanoUSD:
        """Per task, rounded up; 0 without rows."""
        return NanoUSD(-(-self.spent // self.rows) if self.rows else 0)

    def within(self, budget_per_million: int) -> bool:
        """Whether the mean cost is at most the budget, exactly."""
        return self.spent * MILLION <= budget_per_million * self.rows


@dataclass(frozen=True, slots=True)
class Fit:
    """`thresholds` of each scored tier, in [0, 1]: accepted if the score exceeds 1 − threshold. `outcome` is on the
    rows they were fitted on. `exhaustive`: nothing better exists on these rows."""

    thresholds: tuple[Fraction, ...]
    outcome: Outcome
    exhaustive: bool


def outcome(cases: Sequence[Case], thresholds: Sequence[Fraction]) -> Outcome:
    """What the policy does with these rows, decided as it decides."""
    right = spent = 0
    answered = [0] * (len(thresholds) + 1)
    for case in cases:
        place = 0
        for found, threshold in zip(case.scores, thresholds, strict=True):
            if found is not None and found > 1 - threshold:
                break
            place += 1
        answered[place] += 1
        right += case.correct[place]
        spent += sum(case.costs[: place + 1])
    return Outcome(len(cases), right, NanoUSD(spent), tuple(answered))


def fit_thresholds(cases: Sequence[Case], budget_per_million: int, *, most_steps: int = MOST_STEPS) -> Fit:
    """The thresholds with the most right answers within the budget; of equals the cheapest, then the strictest.

    `budget_per_million` is in nano-dollars per million tasks. Raises `CannotFit` where even the cheapest is too dear.
    """
    if not cases:
        raise CannotFit("There are no rows to fit thresholds on.")
    tiers = [_ladder(cases, tier) for tier in range(len(cases[0].scores))]
    exhaustive = _thin(tiers[:-1], len(cases), most_steps)
    cap = budget_per_million * len(cases)
    best: tuple[tuple[int, int], tuple[Fraction, ...]] | None = None
    least: int | None = None
    for limits, right, spent in _every(cases, tiers, list(range(len(cases))), 0, 0, ()):
        least = spent if least is None else min(least, spent)
        if spent * MILLION > cap:
            continue
        rank = (right, -spent)
        if best is None or rank > best[0] or (rank == best[0] and limits > best[1]):
            best = (rank, limits)
    if best is None:
        raise CannotFit(
            f"No thresholds keep the mean cost within the budget: {-(-(least or 0) // len(cases))} nano-dollars per "
            "task is the least on these rows (the first model has to be asked, and answers that can't be read go on)."
        )
    thresholds = tuple(1 - limit for limit in best[1])
    return Fit(thresholds, outcome(cases, thresholds), exhaustive)


@dataclass(frozen=True, slots=True)
class _Ladder:
    """One tier's limits that make a difference, strictest first, each with how many places it accepts; `place` is a
    row's among the different scores, 0 for the highest, None where it has none. `order` are the rows by it."""

    limits: list[tuple[Fraction, int]]
    place: list[int | None]
    order: list[int]


def _ladder(cases: Sequence[Case], tier: int) -> _Ladder:
    """1 accepts nothing, 0 all that scores at all; in between, half way between two scores, so that a row a little off
    is judged like its neighbours. Places, because comparing fractions is slow."""
    found = [case.scores[tier] for case in cases]
    scores = sorted({score for score in found if score is not None}, reverse=True)
    limits = [(Fraction(1), 0), *(((high + low) / 2, i) for i, (high, low) in enumerate(pairwise(scores), 1))]
    limits.append((Fraction(0), sum(score > 0 for score in scores)))
    places = {score: place for place, score in enumerate(scores)}
    place = [None if score is None else places[score] for score in found]
    known = [(at, row) for row, at in enumerate(place) if at is not None]
    return _Ladder(limits, place, [row for _, row in sorted(known)])


def _thin(outer: list[_Ladder], rows: int, most_steps: int) -> bool:
    """Keep the product of these ladders' lengths within `most_steps` / rows, in place; whether nothing had to go."""
    whole = True
    while outer and prod(len(ladder.limits) for ladder in outer) * rows > most_steps:
        longest = max((ladder.limits for ladder in outer), key=len)
        if len(longest) <= 2:
            break
        longest[1:-1] = longest[1:-1][1::2]
        whole = False
    return whole


def _every(
    cases: Sequence[Case],
    ladders: Sequence[_Ladder],
    left: list[int],
    right: int,
    spent: int,
    limits: tuple[Fraction, ...],
) -> Iterator[tuple[tuple[Fraction, ...], int, int]]:
    """Every set of limits, with the right answers and the money of the rows `left` added to what is done."""
    tier = len(limits)
    ladder, last = ladders[tier], tier == len(ladders) - 1
    spent += sum(cases[row].costs[tier] for row in left)
    if last:
        right += sum(cases[row].correct[-1] for row in left)
        spent += sum(cases[row].costs[-1] for row in left)
    here = set(left)
    asked = [row for row in ladder.order if row in here]
    done = 0
    for limit, accepts in ladder.limits:
        before = done
        while done < len(asked) and (ladder.place[asked[done]] or 0) < accepts:
            case = cases[asked[done]]
            right += case.correct[tier] - (case.correct[-1] if last else 0)
            spent -= case.costs[-1] if last else 0
            done += 1
        if done == before and accepts:
            continue  # accepts what the stricter one before it accepts
        if last:
            yield (*limits, limit), right, spent
        else:
            accepted = set(asked[:done])
            rest = [row for row in left if row not in accepted]
            yield from _every(cases, ladders, rest, right, spent, (*limits, limit))
