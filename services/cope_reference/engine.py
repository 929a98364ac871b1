"""One model and the thread that runs it: requests join and leave between any two tokens (continuous batching).

Computed prompts are kept, by blocks of 16 tokens, so that requests with a common prefix compute it once; the reuse is
reported as `cached_tokens`. Aborting frees a request's row before the next token.
"""

import queue
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from cope_reference.decoder import Decoder
from cope_reference.sampling import Generator, log_probabilities, sample
from cope_reference.weights import Array, load_weights

_BLOCK = 16
_KEPT_PREFIXES = 256
_UNFINISHED = "�"


class QueueFull(Exception):
    """More requests wait than the server was told to hold."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to sample. `max_tokens` ≥ 1; `top`: alternatives whose log-probabilities to give (None: no scores at all)."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    top: int | None = None


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A chosen token, its log-probability under the model's own distribution, and the likeliest alternatives."""

    token: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...]


@dataclass(slots=True)
class Sequence:
    """One sample under way. The engine's thread writes it; `notify` is called after each change of `text` or `finish`.

    `finish` is None, then ``"stop"``, ``"length"`` or ``"abort"``.
    """

    prompt: list[int]
    settings: Settings
    notify: Callable[[], None]
    tokens: list[int] = field(default_factory=list)
    scores: list[TokenScore] = field(default_factory=list)
    text: str = ""
    finish: str | None = None
    cached: int = 0
    aborted: bool = False
    generator: Generator | None = None


@dataclass(slots=True)
class Counters:
    """What `/metrics` shows."""

    requests: int = 0
    aborted: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


class Engine:
    """Load a model folder and run it. `most` sequences at once, at most `waiting` more in line."""

    def __init__(self, folder: Path, *, most: int = 64, waiting: int = 4096, seed: int = 0) -> None:
        self.weights = load_weights(folder)
        self.tokenizer: Tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.counters = Counters()
        self._waiting: queue.SimpleQueue[Sequence | None] = queue.SimpleQueue()
        self._limit = waiting
        self._decoder = Decoder(self.weights, most)
        self._rows: list[Sequence] = []
        self._line: deque[Sequence] = deque()
        self._prefixes: OrderedDict[int, tuple[list[int], Array, Array]] = OrderedDict()
        self._shared = np.random.default_rng(seed or None)
        self._next: list[int] = []
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Sequences being decoded."""
        return len(self._rows)

    @property
    def queued(self) -> int:
        """Sequences that wait for a row."""
        return len(self._line) + self._waiting.qsize()

    def submit(self, sequence: Sequence) -> None:
        """Begin a sequence. Raises `QueueFull`."""
        if self.queued >= self._limit:
            raise QueueFull
        self._waiting.put(sequence)

    def close(self) -> None:
        """Stop the thread; sequences under way end as aborted."""
        self._waiting.put(None)
        self._thread.join()

    # ---- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._take_arrivals(block=not self._rows and not self._line):
            self._drop_aborted()
            if self._line and len(self._rows) < self._decoder.most:
                self._admit(self._line.popleft())
            elif not self._rows:
                continue
            # One prompt is computed between two steps, so that arrivals do not stall those under way.
            if self._rows:
                self._advance()
        for sequence in [*self._rows, *self._line]:
            self._finish(sequence, "abort")

    def _take_arrivals(self, *, block: bool) -> bool:
        while True:
            try:
                sequence = self._waiting.get(block=block)
            except queue.Empty:
                return True
            if sequence is None:
                return False
            self._line.append(sequence)
            block = False

    def _drop_aborted(self) -> None:
        for row in reversed(range(len(self._rows))):
            if self._rows[row].aborted:
                self._leave(row, "abort")
        while self._line and self._line[0].aborted:
            self._finish(self._line.popleft(), "abort")

    def _admit(self, sequence: Sequence) -> None:
        if sequence.aborted:
            self._finish(sequence, "abort")
            return
        prompt = sequence.prompt
        keys, values = self._known_prefix(prompt)
        sequence.cached = keys.shape[2]
        logits, keys, values = self._decoder.prefill(prompt[sequence.cached :], keys, values)
        self._remember(prompt, keys, values)
        self.counters.requests += 1
        self.counters.prompt_tokens += len(prompt)
        self.counters.cached_tokens += sequence.cached
        if sequence.settings.seed is not None:
            sequence.generator = np.random.default_rng(sequence.settings.seed & (2**63 - 1))
        row = self._decoder.add(keys, values)
        self._rows.append(sequence)
        self._next.append(0)
        self._accept(logits[None], [row])

    def _advance(self) -> None:
        logits = self._decoder.step(np.asarray(self._next, dtype=np.int64))
        self._accept(logits, list(range(len(self._rows))))

    def _accept(self, logits: Array, rows: list[int]) -> None:
        """Draw the next token of these rows (`logits` in their order) and end those that are finished."""
        sequences = [self._rows[row] for row in rows]
        tokens = sample(
            logits,
            np.array([s.settings.temperature for s in sequences], dtype=np.float32),
            np.array([s.settings.top_p for s in sequences], dtype=np.float32),
            [s.generator for s in sequences],
            self._shared,
        ).tolist()
        scores = log_probabilities(logits) if any(s.settings.top is not None for s in sequences) else None
        ended: list[tuple[int, str]] = []
        for place, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            sequence = sequences[place]
            self._next[row] = token
            if scores is not None and sequence.settings.top is not None:
                sequence.scores.append(_score(scores[place], token, sequence.settings.top))
            finish = self._extend(sequence, token)
            if finish is not None:
                ended.append((row, finish))
        for row, finish in reversed(ended):
            self._leave(row, finish)

    def _extend(self, sequence: Sequence, token: int) -> str | None:
        sequence.tokens.append(token)
        self.counters.completion_tokens += 1
        if token in self.weights.end_ids:
            return "stop"
        if sequence.settings.stop and self._hit_stop(sequence):
            return "stop"
        total = len(sequence.prompt) + len(sequence.tokens)
        if len(sequence.tokens) >= sequence.settings.max_tokens or total >= self.weights.context:
            return "length"
        sequence.notify()
        return None

    def _hit_stop(self, sequence: Sequence) -> bool:
        text = self.decode(sequence.tokens)
        found = [at for at in (text.find(stop) for stop in sequence.settings.stop) if at >= 0]
        if found:
            sequence.text = text[: min(found)]
        return bool(found)

    def decode(self, tokens: list[int]) -> str:
        """The text of generated tokens, without special ones."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def partial_text(self, sequence: Sequence) -> str:
        """The text so far, without a last character whose bytes have not all arrived, nor what may begin a stop."""
        text = self.decode(list(sequence.tokens)).rstrip(_UNFINISHED)
        hold = max((len(stop) - 1 for stop in sequence.settings.stop), default=0)
        return text[: len(text) - hold] if hold else text

    def _leave(self, row: int, finish: str) -> None:
        sequence = self._rows[row]
        self._decoder.remove(row)
        last = self._rows.pop()
        last_next = self._next.pop()
        if last is not sequence:
            self._rows[row] = last
            self._next[row] = last_next
        self._finish(sequence, finish)

    def _finish(self, sequence: Sequence, finish: str) -> None:
        if not sequence.text:
            sequence.text = self.decode(sequence.tokens)
        if finish == "abort":
            self.counters.aborted += 1
        sequence.finish = finish
        sequence.notify()

    # ---- prefixes --------------------------------------------------------------------------------------------------

    def _known_prefix(self, prompt: list[int]) -> tuple[Array, Array]:
        """Keys and values of the longest kept prefix, at most all but the last token (whose logits are needed)."""
        for blocks in range((len(prompt) - 1) // _BLOCK, 0, -1):
            length = blocks * _BLOCK
            name = hash(tuple(prompt[:length]))
            kept = self._prefixes.get(name)
            if kept is not None and kept[0][:length] == prompt[:length]:
                self._prefixes.move_to_end(name)
                return kept[1][:, :, :length], kept[2][:, :, :length]
        w = self.weights
        nothing = np.zeros((len(w.layers), w.heads, 0, w.head_dim), dtype=np.float32)
        return nothing, nothing

    def _remember(self, prompt: list[int], keys: Array, values: Array) -> None:
        entry = (prompt, keys, values)
        for blocks in range(len(prompt) // _BLOCK, 0, -1):
            name = hash(tuple(prompt[: blocks * _BLOCK]))
            if name in self._prefixes:
                break
            self._prefixes[name] = entry
        while len(self._prefixes) > _KEPT_PREFIXES:
            self._prefixes.popitem(last=False)


def _score(row: Array, token: int, top: int) -> TokenScore:
    best = np.argsort(row)[::-1][:top].tolist() if top else []
    return TokenScore(token, float(row[token]), tuple((index, float(row[index])) for index in best))
