"""From logits to tokens: greedy, temperature, top-p, each row by its own request's settings."""

import numpy as np
from numpy.typing import NDArray

from cope_reference.weights import Array

Generator = np.random.Generator
Tokens = NDArray[np.int64]


def log_probabilities(logits: Array) -> Array:
    """Log-softmax over the vocabulary: of the model's own distribution, no temperature applied. [rows, vocabulary]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def sample(
    logits: Array, temperatures: Array, top_ps: Array, generators: list[Generator | None], shared: Generator
) -> Tokens:
    """One token a row. Temperature 0 is greedy; a row with its own generator (a seeded request) draws from that.

    Drawn by Gumbel's trick: the largest of scaled logits plus Gumbel noise is a draw from their softmax.
    """
    warm = temperatures > 0
    if not warm.any():
        return np.asarray(np.argmax(logits, axis=-1), dtype=np.int64)
    scaled = logits / np.where(warm, temperatures, 1.0)[:, None]
    for row in np.flatnonzero(warm & (top_ps < 1.0)).tolist():
        _keep_nucleus(scaled[row], float(top_ps[row]))
    noise = shared.gumbel(size=logits.shape).astype(np.float32)
    for row, own in enumerate(generators):
        if own is not None:
            noise[row] = own.gumbel(size=logits.shape[1])
    noise[~warm] = 0.0
    return np.asarray(np.argmax(scaled + noise, axis=-1), dtype=np.int64)


def _keep_nucleus(row: Array, top_p: float) -> None:
    """Set every logit outside the smallest set with total probability ≥ `top_p` to minus infinity, in place."""
    order = np.argsort(row)[::-1]
    probabilities = np.exp(row[order] - row[order[0]])
    reached = np.cumsum(probabilities / probabilities.sum())
    row[order[int(np.searchsorted(reached, top_p)) + 1 :]] = -np.inf
