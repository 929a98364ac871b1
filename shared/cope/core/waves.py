"""Launching a vote's samples in waves: the next wave starts once the last has ended and the vote is still open.

All at once is the fastest; the smaller the waves, the fewer samples are begun that nobody needs (cascade, section 6).
"""

from collections.abc import Sequence
from itertools import accumulate

from cope.core.errors import BadRequest
from cope.core.request_values import as_int

Waves = tuple[int, ...]
"""Samples of each wave, in order; empty: all at once."""


def launched(waves: Waves, n: int, ended: int) -> int:
    """How many of `n` samples have been launched once `ended` of them have ended, in [0, n]: every wave whose
    predecessors have ended as a whole. Samples are launched by index."""
    return next((upto for upto in accumulate(waves) if upto > ended), n)


def as_waves(value: object, param: str) -> Waves:
    """A list of whole numbers ≥ 1. Raises `BadRequest` naming the entry."""
    if not isinstance(value, list) or not value:
        raise BadRequest(f"`{param}` must be a list of sample counts, such as [6, 2].", param=param)
    return tuple(as_int(wave, f"{param}[{at}]", low=1, high=64) for at, wave in enumerate(value))


def check_waves(waves: Sequence[int], n: int, param: str) -> None:
    """Raises `BadRequest` where the waves don't launch `n` samples in all."""
    if waves and sum(waves) != n:
        raise BadRequest(
            f"`{param}` launches {sum(waves)} samples in all, but `cope.n` is {n}: make them equal.", param=param
        )
