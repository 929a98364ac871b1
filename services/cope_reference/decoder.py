"""The decoder in NumPy: many sequences of different lengths advance by one token in one step.

Sequences hold rows 0..B-1 of one key/value cache, kept compact: when one ends, the last row moves into its place. So
each product is one batched call, whatever mixture of requests is in flight. Greedy results equal those of transformers
in float32 (tested where torch is present).
"""

import numpy as np
from numpy.typing import NDArray

from cope_reference.weights import Array, Weights

_GROWTH = 64


class Decoder:
    """Weights and the cache. `most` is the largest number of sequences at once. Not thread-safe: one thread owns it."""

    def __init__(self, weights: Weights, most: int) -> None:
        self.weights = weights
        self.most = most
        self.lengths = np.zeros(most, dtype=np.int64)
        self.count = 0
        self._capacity = 0
        self._rows = 0
        shape = (len(weights.layers), 0, weights.heads, 0, weights.head_dim)
        self._keys: Array = np.zeros(shape, dtype=np.float32)
        self._values: Array = np.zeros(shape, dtype=np.float32)
        half = weights.head_dim // 2
        angles = np.outer(np.arange(weights.context), weights.rope_theta ** (-np.arange(half) / half))
        self._cos: Array = np.concatenate([np.cos(angles)] * 2, axis=1).astype(np.float32)
        self._sin: Array = np.concatenate([np.sin(angles)] * 2, axis=1).astype(np.float32)

    # ---- rows ------------------------------------------------------------------------------------------------------

    def add(self, keys: Array, values: Array) -> int:
        """A new sequence whose first tokens are cached already ([layers, heads, tokens, head_dim]); its row."""
        row, tokens = self.count, keys.shape[2]
        self.count += 1
        self._reserve(self.count, tokens + 1)
        self._keys[:, row, :, :tokens] = keys
        self._values[:, row, :, :tokens] = values
        self.lengths[row] = tokens
        return row

    def remove(self, row: int) -> None:
        """End a sequence; the last row takes its place."""
        self.count -= 1
        last, tokens = self.count, self.lengths[self.count]
        if row != last:
            self._keys[:, row, :, :tokens] = self._keys[:, last, :, :tokens]
            self._values[:, row, :, :tokens] = self._values[:, last, :, :tokens]
            self.lengths[row] = tokens

    def cached(self, row: int) -> tuple[Array, Array]:
        """Copies of a row's keys and values, [layers, heads, tokens, head_dim] each."""
        tokens = self.lengths[row]
        return self._keys[:, row, :, :tokens].copy(), self._values[:, row, :, :tokens].copy()

    def _reserve(self, rows: int, tokens: int) -> None:
        if rows <= self._rows and tokens <= self._capacity:
            return
        rows = max(self._rows, min(self.most, max(8, 2 * rows)) if rows > self._rows else rows)
        capacity = max(self._capacity, min(self.weights.context, -(-tokens // _GROWTH) * _GROWTH))
        for name in ("_keys", "_values"):
            old: Array = getattr(self, name)
            new = np.zeros((old.shape[0], rows, old.shape[2], capacity, old.shape[4]), dtype=np.float32)
            new[:, : old.shape[1], :, : old.shape[3]] = old
            setattr(self, name, new)
        self._rows, self._capacity = rows, capacity

    # ---- computation -----------------------------------------------------------------------------------------------

    def step(self, tokens: NDArray[np.int64]) -> Array:
        """Feed one token to every row (`tokens` is [count]); logits of what follows, [count, vocabulary]."""
        w, b = self.weights, self.count
        positions = self.lengths[:b]
        longest = int(positions.max()) + 1
        self._reserve(b, longest)
        x: Array = w.embedding[tokens]
        cos: Array = self._cos[positions][:, None]
        sin: Array = self._sin[positions][:, None]
        unseen = np.arange(longest)[None, :] > positions[:, None]
        rows = np.arange(b)
        scale = np.float32(w.head_dim**-0.5)
        for index, layer in enumerate(w.layers):
            qkv = (_norm(x, layer.attention_norm, w.epsilon) @ layer.qkv).reshape(b, 3, w.heads, w.head_dim)
            q = _rotate(qkv[:, 0], cos, sin)
            keys, values = self._keys[index], self._values[index]
            keys[rows, :, positions] = _rotate(qkv[:, 1], cos, sin)
            values[rows, :, positions] = qkv[:, 2]
            scores = np.matmul(keys[:b, :, :longest], (q * scale)[..., None])[..., 0]
            scores[np.broadcast_to(unseen[:, None], scores.shape)] = -np.inf
            mixed = np.matmul(_softmax(scores)[:, :, None], values[:b, :, :longest])[:, :, 0]
            x += mixed.reshape(b, -1) @ layer.out
            x += _mlp(_norm(x, layer.mlp_norm, w.epsilon), layer.gate_up, layer.down)
        self.lengths[:b] += 1
        logits: Array = _norm(x, w.norm, w.epsilon) @ w.unembedding
        return logits

    def prefill(self, tokens: list[int], keys: Array, values: Array) -> tuple[Array, Array, Array]:
        """Run `tokens` behind an already computed prefix. Returns the last token's logits, and keys and values of
        prefix and tokens together."""
        w = self.weights
        known, new = keys.shape[2], len(tokens)
        total = known + new
        shape = (len(w.layers), w.heads, total, w.head_dim)
        all_keys, all_values = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
        all_keys[:, :, :known], all_values[:, :, :known] = keys, values
        x: Array = w.embedding[tokens]
        cos, sin = self._cos[known:total][:, None], self._sin[known:total][:, None]
        unseen = np.arange(total)[None, :] > np.arange(known, total)[:, None]
        scale = np.float32(w.head_dim**-0.5)
        for index, layer in enumerate(w.layers):
            qkv = (_norm(x, layer.attention_norm, w.epsilon) @ layer.qkv).reshape(new, 3, w.heads, w.head_dim)
            all_keys[index, :, known:] = _rotate(qkv[:, 1], cos, sin).swapaxes(0, 1)
            all_values[index, :, known:] = qkv[:, 2].swapaxes(0, 1)
            q = (_rotate(qkv[:, 0], cos, sin) * scale).swapaxes(0, 1)
            scores = np.matmul(q, all_keys[index].swapaxes(1, 2))
            scores[np.broadcast_to(unseen[None], scores.shape)] = -np.inf
            mixed = np.matmul(_softmax(scores), all_values[index]).swapaxes(0, 1)
            x += mixed.reshape(new, -1) @ layer.out
            x += _mlp(_norm(x, layer.mlp_norm, w.epsilon), layer.gate_up, layer.down)
        logits: Array = _norm(x[-1:], w.norm, w.epsilon) @ w.unembedding
        return logits[0], all_keys, all_values


def _norm(x: Array, weight: Array, epsilon: float) -> Array:
    # einsum rather than mean(x*x): one pass, no temporary.
    power = np.einsum("ij,ij->i", x, x)[:, None] / np.float32(x.shape[1])
    return np.asarray(x / np.sqrt(power + np.float32(epsilon)) * weight, dtype=np.float32)


def _rotate(x: Array, cos: Array, sin: Array) -> Array:
    half = x.shape[-1] // 2
    turned = np.concatenate([-x[..., half:], x[..., :half]], axis=-1)
    result: Array = x * cos + turned * sin  # type: ignore[assignment]
    return result


def _softmax(scores: Array) -> Array:
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def _mlp(x: Array, gate_up: Array, down: Array) -> Array:
    gate, up = np.split(x @ gate_up, 2, axis=-1)
    result: Array = (gate / (np.float32(1.0) + np.exp(-gate)) * up) @ down
    return result
