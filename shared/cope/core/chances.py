"""A little statistics: shares with their intervals, and draws from a generator that is passed in.

Shares, mean lengths and deviations are floats: they are guesses with percents of doubt, and no money is made of them
but through whole tokens at whole prices.
"""

from math import exp, log, log1p, sqrt
from typing import Protocol

_Z95 = 1.959963984540054
_FEW = 30.0


class Chance(Protocol):
    """A seeded generator, such as `random.Random`: equal seeds give equal draws."""

    def random(self) -> float:
        """In [0, 1)."""
        ...

    def normalvariate(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        """From the normal distribution."""
        ...

    def betavariate(self, alpha: float, beta: float) -> float:
        """In [0, 1]; both parameters above 0."""
        ...


def share_interval(hits: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, in [0, 1]; (0, 1) where nothing was counted."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = hits / total, _Z95**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 / (1 + z2 / total) * sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def draw_count(chance: Chance, total: int, share: float) -> int:
    """How many of `total` (≥ 0) independent cases of probability `share` come true.

    Exact where few are to be expected, by the normal approximation elsewhere.
    """
    if share > 0.5:
        return total - draw_count(chance, total, 1 - share)
    if total * share >= _FEW:
        drawn = chance.normalvariate(total * share, sqrt(total * share * (1 - share)))
        return min(total, max(0, round(drawn)))
    if share <= 0:
        return 0
    # From one hit to the next: the gaps are geometric.
    hits, at = 0, 0
    while True:
        at += int(log(1 - chance.random()) / log1p(-share)) + 1
        if at > total:
            return hits
        hits += 1


def draw_factor(chance: Chance, sigma: float) -> float:
    """A log-normal factor of median 1."""
    return exp(chance.normalvariate(0.0, sigma))


def mean_factor(sigma: float) -> float:
    """The mean of `draw_factor`."""
    return exp(sigma * sigma / 2)
