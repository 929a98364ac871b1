"""From logits to tokens: greedy, temperature, top-p, each row by its own request's settings."""

import numpy as np
from numpy.typing import NDArray

from cope_reference.weights import Array

Generator = np.random.Generator
Tokens = NDArray[np.int64]
COLDEST = 1e-3  # below this a temperature is greedy: the division would overflow, and no draw would differ


def log_probabilities(logits: Array) -> Array:
    """Log-softmax over the vocabulary: of the model's own distribution, no temperature applied. [rows, vocabulary]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def sample(
    logits: Array,
    temperatures: NDArray[np.float64],
    top_ps: NDArray[np.float64],
    generators: list[Generator | None],
    shared: Generator,
) -> Tokens:
    """One token a row. Temperature 0 is greedy; a row with its own generator (a seeded request) draws from that."""
    greedy: Tokens = np.argmax(logits, axis=-1)
    warm = temperatures >= COLDEST
    if not warm.any():
        return greedy
    chances = logits - np.take_along_axis(logits, greedy[:, None], axis=-1)
    chances /= np.where(warm, temperatures, 1.0)[:, None].astype(np.float32)
    np.exp(chances, out=chances)
    for row in np.flatnonzero(warm & (top_ps < 1.0)).tolist():
        _keep_nucleus(chances[row], float(top_ps[row]))
    # In float64: float32 sums of many small chances would never pass a draw close to 1.
    heaps = np.cumsum(chances, axis=-1, dtype=np.float64)
    draws = shared.random(len(logits))
    for row, own in enumerate(generators):
        if own is not None:
            draws[row] = own.random()
    # The first token whose heap is above the draw; draws are below 1, so there is one, and its chance is above 0.
    drawn: Tokens = np.argmax(heaps > (draws * heaps[:, -1])[:, None], axis=-1)
    drawn[~warm] = greedy[~warm]
    return drawn


def _keep_nucleus(chances: Array, top_p: float) -> None:
    """Set every chance outside the smallest set of likeliest tokens with a total share ≥ `top_p` to 0, in place."""
    order = np.argsort(chances)[::-1]
    shares = np.cumsum(chances[order] / chances.sum())
    chances[order[int(np.searchsorted(shares, top_p)) + 1 :]] = 0.0
