"""The decoder in NumPy: many sequences of different lengths advance by one token in one step.

Sequences hold rows 0..count-1 of one key/value cache, kept compact: when one ends, the last row moves into its place.
So each product is one batched call, whatever mixture of requests is in flight. Shapes: b rows, t tokens, h heads, d
head_dim. Greedy results equal those of transformers in float32.
"""

import numpy as np
from numpy.typing import NDArray

from cope_reference.weights import Array, Layer, Weights

_GROWTH = 64
_KEPT_BYTES = 16 << 20  # a larger cache goes back to the system when its last sequence ends


class Decoder:
    """Weights and the cache. `most` is the largest number of sequences at once. Not thread-safe: one thread owns it."""

    def __init__(self, weights: Weights, most: int) -> None:
        self.weights = weights
        self.most = most
        self.count = 0
        self.lengths = np.zeros(most, dtype=np.int64)
        self._empty: Array = np.zeros((len(weights.layers), 0, weights.heads, 0, weights.head_dim), dtype=np.float32)
        self._keys = self._values = self._empty
        half = weights.head_dim // 2
        angles = np.outer(np.arange(weights.context), weights.rope_theta ** (-np.arange(half) / half))
        self._cos: Array = np.cos(angles)[:, None, None].astype(np.float32)  # [context, 1, 1, d/2]
        self._sin: Array = np.stack([-np.sin(angles), np.sin(angles)], axis=1)[:, None].astype(np.float32)

    # ---- rows ------------------------------------------------------------------------------------------------------

    def add(self, tokens: int) -> int:
        """Begin an empty sequence with room for `tokens`; its row, always the last."""
        self._reserve(self.count + 1, tokens)
        row = self.count
        self.lengths[row] = 0
        self.count += 1
        return row

    def load(self, row: int, keys: Array, values: Array) -> None:
        """Append tokens to a sequence by what was computed before: [layers, h, t, d] each."""
        first = int(self.lengths[row])
        self._keys[:, row, :, first : first + keys.shape[2]] = keys
        self._values[:, row, :, first : first + keys.shape[2]] = values
        self.lengths[row] += keys.shape[2]

    def cached(self, row: int) -> tuple[Array, Array]:
        """A view of a row's keys and values, [layers, h, t, d] each; good until the next call of any other method."""
        tokens = int(self.lengths[row])
        return self._keys[:, row, :, :tokens], self._values[:, row, :, :tokens]

    def remove(self, row: int) -> None:
        """End a sequence; the last row takes its place."""
        self.count -= 1
        last, tokens = self.count, int(self.lengths[self.count])
        if row != last:
            self._keys[:, row, :, :tokens] = self._keys[:, last, :, :tokens]
            self._values[:, row, :, :tokens] = self._values[:, last, :, :tokens]
            self.lengths[row] = tokens
        if self.count == 0 and self._keys.nbytes > _KEPT_BYTES:
            self._keys = self._values = self._empty

    def _reserve(self, rows: int, tokens: int) -> None:
        have_rows, capacity = self._keys.shape[1], self._keys.shape[3]
        if rows <= have_rows and tokens <= capacity:
            return
        if rows > have_rows:
            have_rows = min(self.most, max(8, 2 * rows))
        if tokens > capacity:
            capacity = min(self.weights.context, -(-tokens // _GROWTH) * _GROWTH)
        # One after the other, so that only one of them is in memory twice.
        self._keys = _grown(self._keys, have_rows, capacity)
        self._values = _grown(self._values, have_rows, capacity)

    # ---- computation -----------------------------------------------------------------------------------------------

    def step(self, tokens: NDArray[np.int64]) -> Array:
        """Feed one token to every row (`tokens` is [b]); logits of what follows, [b, vocabulary]."""
        w, b = self.weights, self.count
        positions = self.lengths[:b]
        longest = int(np.max(positions)) + 1
        self._reserve(b, longest)
        rows = np.arange(b)
        cos, sin = self._cos[positions], self._sin[positions]
        unseen = _mask(np.arange(longest)[None, :] > positions[:, None])[:, None]  # [b, 1, longest]
        x: Array = w.embedding[tokens]
        for layer, keys, values in zip(w.layers, self._keys, self._values, strict=True):
            q, k, v = _project(x, layer, w, cos, sin)
            keys[rows, :, positions] = k
            values[rows, :, positions] = v
            scores = np.matmul(keys[:b, :, :longest], q[..., None])[..., 0]
            scores += unseen
            mixed = np.matmul(_softmax(scores)[:, :, None], values[:b, :, :longest])
            x += mixed.reshape(b, -1) @ layer.out
            x += _mlp(x, layer, w.epsilon)
        self.lengths[:b] += 1
        logits: Array = _norm(x, w.epsilon) @ w.unembedding
        return logits

    def prefill(self, row: int, tokens: list[int]) -> None:
        """Append `tokens` (at least one) to a sequence in one go. No logits: the prompt's last token is for `step`."""
        w = self.weights
        known = int(self.lengths[row])
        total = known + len(tokens)
        self._reserve(self.count, total)
        cos, sin = self._cos[known:total], self._sin[known:total]
        unseen = _mask(np.arange(total)[None, :] > np.arange(known, total)[:, None])
        x: Array = w.embedding[tokens]
        for layer, all_keys, all_values in zip(w.layers, self._keys, self._values, strict=True):
            q, k, v = _project(x, layer, w, cos, sin)
            keys, values = all_keys[row, :, :total], all_values[row, :, :total]
            keys[:, known:], values[:, known:] = k.swapaxes(0, 1), v.swapaxes(0, 1)
            scores = np.matmul(q.swapaxes(0, 1), keys.swapaxes(1, 2))
            scores += unseen
            mixed = np.matmul(_softmax(scores), values).swapaxes(0, 1)
            x += mixed.reshape(len(tokens), -1) @ layer.out
            x += _mlp(x, layer, w.epsilon)
        self.lengths[row] = total


def _grown(old: Array, rows: int, capacity: int) -> Array:
    # Zeros, not whatever memory holds: masked weights are exactly 0, and 0 times NaN would not be.
    new: Array = np.zeros((old.shape[0], rows, old.shape[2], capacity, old.shape[4]), dtype=np.float32)
    new[:, : old.shape[1], :, : old.shape[3]] = old
    return new


def _project(x: Array, layer: Layer, w: Weights, cos: Array, sin: Array) -> tuple[Array, Array, Array]:
    """Rotated queries (scaled already, in the weights) and keys, and values: [tokens, h, d] each."""
    qkv = (_norm(x, w.epsilon) @ layer.qkv).reshape(len(x), 3 * w.heads, 2, w.head_dim // 2)
    turning = qkv[:, : 2 * w.heads]
    turned = (turning * cos + turning[:, :, ::-1] * sin).reshape(len(x), 2 * w.heads, w.head_dim)
    return turned[:, : w.heads], turned[:, w.heads :], qkv[:, 2 * w.heads :].reshape(len(x), w.heads, w.head_dim)


def _mask(unseen: NDArray[np.bool_]) -> Array:
    """To add to scores: 0 where a token may be looked at, minus infinity where not."""
    return np.where(unseen, np.float32(-np.inf), np.float32(0))


def _norm(x: Array, epsilon: float) -> Array:
    # The norm's own weight is a factor of the matrix that follows. einsum: one pass, no temporary.
    power = np.einsum("ij,ij->i", x, x)[:, None] / np.float32(x.shape[1])
    result: Array = x / np.sqrt(power + np.float32(epsilon))
    return result


def _softmax(scores: Array) -> Array:
    """Over the last axis, in place."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def _mlp(x: Array, layer: Layer, epsilon: float) -> Array:
    both = _norm(x, epsilon) @ layer.gate_up
    gate, up = np.split(both, 2, axis=-1)
    # silu(gate) * up. A very negative gate overflows exp to infinity, and gate / infinity is the right answer, 0.
    with np.errstate(over="ignore"):
        inner = np.exp(-gate)
    inner += np.float32(1)
    np.divide(gate, inner, out=inner)
    inner *= up
    result: Array = inner @ layer.down
    return result
