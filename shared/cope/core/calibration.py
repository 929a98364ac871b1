"""Thresholds from traffic instead of guesses: which confidence should end a task on the small model.

A threshold is chosen by one of three rules, always the strictest or laxest that keeps its promise:
- `by_share`: the strictest at which at most a given share of the tasks asks the large model (unlabelled traffic);
- `by_budget`: the strictest whose mean cost per task stays within a budget (unlabelled traffic with its costs);
- `by_error`: the laxest whose error among accepted answers is below a bound with a given confidence (held-out, labelled
  rows: ones that nothing else was chosen by).

`by_error` tests thresholds in a fixed order, from strict to lax, and stops at the first that fails, so that looking at
many of them costs no confidence (Angelopoulos et al. 2021, "Learn then Test"); it does so from four starting points,
each with a quarter of the doubt. Shares are exact; chances are floats.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, exp, floor, lgamma, log

from cope.core.money import NanoUSD

_STARTS = 4


class CannotCalibrate(Exception):
    """No threshold keeps the promise on these rows; the message says what they lack."""


@dataclass(frozen=True, slots=True)
class Case:
    """Stage 1 of one task (or of one turn). `surety` is higher for surer answers: the consensus ratio, or minus the
    perplexity; None where nothing could be read, which no threshold accepts.

    `cost` is what the paid steps took, `escalated` whether there were any; `correct` None where nobody said.
    """

    surety: Fraction | None
    cost: NanoUSD
    escalated: bool
    correct: bool | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """Accept at a surety of `threshold` or more. Counts are of the rows it was chosen on.

    `mean_cost` is the expected cost per task; `errors` among the `accepted` and `error_bound`, which the true error
    stays below with the asked-for confidence, are None where the rows have no labels.
    """

    threshold: Fraction
    rows: int
    accepted: int
    mean_cost: NanoUSD | None = None
    errors: int | None = None
    error_bound: float | None = None

    @property
    def large_share(self) -> Fraction:
        """Tasks that ask the large model / all, in [0, 1]."""
        return Fraction(self.rows - self.accepted, self.rows)


def by_share(cases: Sequence[Case], share: Fraction) -> Choice:
    """The strictest threshold at which at most `share` of the rows, in [0, 1], escalates. Raises `CannotCalibrate`."""
    _need_rows(cases)
    most = floor(share * len(cases))
    for threshold, accepted in _ladder(cases):
        if len(cases) - accepted <= most:
            return Choice(threshold, len(cases), accepted)
    unread = sum(case.surety is None for case in cases)
    raise CannotCalibrate(
        f"{unread} of {len(cases)} rows have nothing that could be read, and those always ask the large model: the "
        f"lowest share is {float(Fraction(unread, len(cases))):.3f}."
    )


def by_budget(cases: Sequence[Case], budget: NanoUSD) -> Choice:
    """The strictest threshold whose mean cost per row is at most `budget`. A row that did not escalate is taken to cost
    the mean of those that did. Raises `CannotCalibrate`."""
    _need_rows(cases)
    paid = [case.cost for case in cases if case.escalated]
    if not paid:
        raise CannotCalibrate(
            "No row escalated, so nothing says what an escalation costs: calibrate on traffic of which some did, or by "
            "a share of large calls."
        )
    usual = -(-sum(paid) // len(paid))
    costs = {id(case): case.cost if case.escalated else usual for case in cases}
    best = None
    for threshold, accepted in _ladder(cases):
        spent = sum(costs[id(c)] for c in cases if c.surety is None or c.surety < threshold)
        best = Choice(threshold, len(cases), accepted, mean_cost=NanoUSD(-(-spent // len(cases))))
        if spent <= budget * len(cases):
            return best
    least = "nothing could be read in any row" if best is None else f"{best.mean_cost} nano-dollars is the least"
    raise CannotCalibrate(f"No threshold keeps the mean cost within {budget} nano-dollars per task: {least}.")


def by_error(cases: Sequence[Case], most: Fraction, confidence: Fraction) -> Choice:
    """The laxest threshold whose error among accepted answers is below `most`, in (0, 1), with `confidence` in (0, 1).

    Rows without a label end the search: what is laxer would accept them. Raises `CannotCalibrate`.
    """
    _need_rows(cases)
    bound, doubt = float(most), float(1 - confidence)
    rungs = _labelled(cases)
    fewest = ceil(log(doubt / _STARTS) / log(1 - bound))
    chosen: tuple[Fraction, int, int] | None = None
    for start in range(_STARTS):
        for threshold, accepted, errors in rungs:
            if accepted < fewest * 2**start:
                continue
            if binomial_tail(errors, accepted, bound) > doubt / _STARTS:
                break
            if chosen is None or accepted > chosen[1]:
                chosen = (threshold, accepted, errors)
    if chosen is None:
        labelled = sum(case.correct is not None for case in cases)
        raise CannotCalibrate(
            f"No threshold has an error below {bound:g} with confidence {float(confidence):g} on {labelled} labelled "
            f"rows: give more rows (at least {fewest} right ones at the top), a higher bound or a lower confidence."
        )
    threshold, accepted, errors = chosen
    return Choice(
        threshold,
        len(cases),
        accepted,
        errors=errors,
        error_bound=upper_bound(errors, accepted, doubt / _STARTS),
    )


def binomial_tail(hits: int, total: int, chance: float) -> float:
    """The probability of at most `hits` in `total` independent cases of probability `chance` in (0, 1)."""
    terms = [
        exp(lgamma(total + 1) - lgamma(k + 1) - lgamma(total - k + 1) + k * log(chance) + (total - k) * log(1 - chance))
        for k in range(hits + 1)
    ]
    return min(1.0, sum(terms))


def upper_bound(hits: int, total: int, doubt: float) -> float:
    """What a share stays below with confidence 1 − `doubt`: Clopper and Pearson's one-sided bound, in (0, 1]."""
    if hits >= total:
        return 1.0
    low, high = hits / total, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if binomial_tail(hits, total, middle) > doubt:
            low = middle
        else:
            high = middle
    return high


def _need_rows(cases: Sequence[Case]) -> None:
    if not cases:
        raise CannotCalibrate("There are no rows to calibrate on.")


def _ladder(cases: Sequence[Case]) -> list[tuple[Fraction, int]]:
    """Each threshold that makes a difference, strictest first, with how many rows it accepts."""
    sureties = sorted((case.surety for case in cases if case.surety is not None), reverse=True)
    return list({surety: place for place, surety in enumerate(sureties, 1)}.items())


def _labelled(cases: Sequence[Case]) -> list[tuple[Fraction, int, int]]:
    """The ladder with the errors of the accepted rows, as far down as every row has a label."""
    rungs: list[tuple[Fraction, int, int]] = []
    accepted = errors = 0
    by_surety: dict[Fraction, list[Case]] = {}
    for case in cases:
        if case.surety is not None:
            by_surety.setdefault(case.surety, []).append(case)
    for surety in sorted(by_surety, reverse=True):
        if any(case.correct is None for case in by_surety[surety]):
            break
        accepted += len(by_surety[surety])
        errors += sum(not case.correct for case in by_surety[surety])
        rungs.append((surety, accepted, errors))
    return rungs
