"""FrugalGPT's thresholds: the most right answers whose mean cost stays within a budget (Chen et al. 2023, section 3).

Found by trying, not by gradients: every set of thresholds that makes a difference on the rows, the last scored tier
in one sweep. Only where that would be too many are a tier's thresholds thinned to evenly spaced ones, and the result
says so. Whole numbers throughout: budgets are nano-dollars per million tasks, so no mean is ever rounded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

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
    tiers = len(cases[0].scores)
    ladders = [_ladder(cases, tier) for tier in range(tiers)]
    exhaustive = _thin(ladders[:-1], len(cases), most_steps)
    cap = budget_per_million * len(cases)
    best: tuple[tuple[int, int], tuple[Fraction, ...]] | None = None
    least: int | None = None
    for limits, right, spent in _every(cases, ladders, list(range(len(cases))), 0, 0, ()):
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


def _ladder(cases: Sequence[Case], tier: int) -> list[Fraction]:
    """Every limit that makes a difference, strictest first: 1 accepts nothing, 0 all that scores at all; in between,
    half way between two scores, so that a row a little off is judged like its neighbours."""
    scores = sorted({found for case in cases if (found := case.scores[tier]) is not None}, reverse=True)
    between = [(high + low) / 2 for high, low in pairwise(scores)]
    return [Fraction(1), *between, Fraction(0)]


def _thin(ladders: list[list[Fraction]], rows: int, most_steps: int) -> bool:
    """Keep the outer ladders' product within `most_steps` / rows, in place; whether nothing had to go."""
    whole = True
    while ladders and _product(ladders) * rows > most_steps:
        longest = max(ladders, key=len)
        if len(longest) <= 2:
            break
        longest[1:-1] = longest[1:-1][1::2]
        whole = False
    return whole


def _product(ladders: list[list[Fraction]]) -> int:
    total = 1
    for ladder in ladders:
        total *= len(ladder)
    return total


def _every(
    cases: Sequence[Case],
    ladders: list[list[Fraction]],
    left: list[int],
    right: int,
    spent: int,
    limits: tuple[Fraction, ...],
) -> Iterator[tuple[tuple[Fraction, ...], int, int]]:
    """Every set of limits, with the right answers and the money of the rows `left` added to what is done."""
    tier = len(limits)
    spent += sum(cases[i].costs[tier] for i in left)
    last = tier == len(ladders) - 1
    readable = [(found, i) for i in left if (found := cases[i].scores[tier]) is not None]
    readable.sort(reverse=True)
    if last:
        right += sum(cases[i].correct[-1] for i in left)
        spent += sum(cases[i].costs[-1] for i in left)
    place = 0
    for limit in ladders[tier]:
        start = place
        while place < len(readable) and readable[place][0] > limit:
            case = cases[readable[place][1]]
            right += case.correct[tier] - (case.correct[-1] if last else 0)
            spent -= case.costs[-1] if last else 0
            place += 1
        if place == start and limit not in {0, 1}:
            continue  # accepts what the stricter one before it accepts
        if last:
            yield (*limits, limit), right, spent
        else:
            accepted = {i for _, i in readable[:place]}
            rest = [i for i in left if i not in accepted]
            yield from _every(cases, ladders, rest, right, spent, (*limits, limit))
