"""One model and the thread that runs it: requests join and leave between any two tokens (continuous batching).

Computed prompts are kept (`prefixes.py`), so that requests with a common beginning compute it once; the reuse is
reported as `cached_tokens`. Aborting frees a request's row before the next token.
"""

import logging
import queue
import threading
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders

from cope_reference.decoder import Decoder
from cope_reference.prefixes import BLOCK, Prefixes
from cope_reference.sampling import log_probabilities, sample
from cope_reference.sequences import Finish, Sequence, TokenScore
from cope_reference.weights import Array, UnsupportedModel, load_weights

_log = logging.getLogger(__name__)
# Prompt tokens computed between two steps: long prompts that arrive together don't stall those under way for long.
_PROMPT_TOKENS_A_STEP = 512


class QueueFull(Exception):
    """More requests wait than the server was told to hold."""


class EngineDown(Exception):
    """The engine was closed or has failed; nothing will be computed any more."""


@dataclass(slots=True)
class Counters:
    """What `/metrics` shows. `samples` are sequences begun; prompt tokens count once for each of them."""

    samples: int = 0
    aborted: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    steps: int = 0


class Engine:
    """Load a model folder and run it. `most` sequences at once, at most `waiting` more in line.

    `prefix_bytes` bounds the kept prompts; `seed` fixes the draws of requests without one (None: none does). Raises
    `UnsupportedModel`, `OSError` or `ValueError` (a broken file).
    """

    def __init__(
        self,
        folder: Path,
        *,
        most: int = 64,
        waiting: int = 4096,
        prefix_bytes: int = 64 << 20,
        seed: int | None = None,
    ) -> None:
        self.weights = load_weights(folder)
        self.tokenizer: Tokenizer = Tokenizer.from_str((folder / "tokenizer.json").read_text())
        if not isinstance(self.tokenizer.decoder, decoders.ByteLevel):
            raise UnsupportedModel(f"{folder}: the tokenizer's decoder is not byte-level")
        self.counters = Counters()
        self.failed = False
        self._open = True
        self._door = threading.Lock()  # closed for good before the last arrivals are told, so that none is forgotten
        self._prefixes = Prefixes(prefix_bytes)
        self._decoder = Decoder(self.weights, most)
        self._arrivals: queue.SimpleQueue[Sequence | None] = queue.SimpleQueue()
        self._limit = waiting
        self._line: deque[Sequence] = deque()
        self._rows: list[Sequence] = []  # by the decoder's row
        self._next: list[int] = []  # the token to feed to each row
        self._shared = np.random.default_rng(seed)
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Sequences being decoded."""
        return len(self._rows)

    @property
    def queued(self) -> int:
        """Sequences that wait for a row."""
        return len(self._line) + self._arrivals.qsize()

    def submit(self, sequences: Collection[Sequence]) -> None:
        """Begin these sequences, all or none. Raises `QueueFull` or `EngineDown`."""
        with self._door:
            if not self._open:
                raise EngineDown
            # A sequence that finds a free row doesn't wait: only what exceeds the rows counts against the line.
            free = self._decoder.most - self.running
            if self.queued + len(sequences) > self._limit + free:
                raise QueueFull
            for sequence in sequences:
                self._arrivals.put(sequence)

    def close(self) -> None:
        """Stop the thread; sequences under way end as aborted."""
        self._arrivals.put(None)
        self._thread.join()

    # ---- the thread ------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        ending: Finish = "abort"
        try:
            while self._take_arrivals(wait=not self._rows and not self._line):
                self._drop_aborted()
                self._admit()
                if self._rows:
                    self._advance()
        except Exception:
            # Nothing may wait for ever on a thread that has died: everyone is told, and `/health` says it.
            _log.exception("the engine failed")
            self.failed = True
            ending = "error"
        with self._door:
            self._open = False
        self._take_arrivals(wait=False)
        for sequence in [*self._rows, *self._line]:
            self._finish(sequence, ending)
        self._rows.clear()
        self._line.clear()

    def _take_arrivals(self, *, wait: bool) -> bool:
        """Move arrivals into the line; False when told to close."""
        going_on = True
        while True:
            try:
                sequence = self._arrivals.get(block=wait)
            except queue.Empty:
                return going_on
            wait = False
            if sequence is None:
                going_on = False
            else:
                self._line.append(sequence)

    def _drop_aborted(self) -> None:
        for row in reversed(range(len(self._rows))):
            if self._rows[row].aborted:
                self._leave(row, "abort")
        if any(sequence.aborted for sequence in self._line):
            for sequence in [s for s in self._line if s.aborted]:
                self._finish(sequence, "abort")
            self._line = deque(s for s in self._line if s.finish is None)

    def _admit(self) -> None:
        """Give free rows to those first in line and compute what is new in their prompts, up to the bound of a step."""
        room = _PROMPT_TOKENS_A_STEP
        while self._line and len(self._rows) < self._decoder.most and room > 0:
            sequence = self._line.popleft()
            # The prompt's last token is fed by the next step, which gives the first logits. So a prompt that was seen
            # before costs no computation of its own.
            body = sequence.prompt[:-1]
            known = self._prefixes.find(body)
            sequence.cached = min(len(known) * BLOCK, len(body))
            row = self._decoder.add(len(sequence.prompt))
            for block in known:
                self._decoder.load(row, block.keys, block.values)
            if len(body) > sequence.cached:
                self._decoder.prefill(row, body[sequence.cached :])
                self._prefixes.keep(body, known, *self._decoder.cached(row))
                room -= len(body) - sequence.cached
            if sequence.settings.seed is not None:
                sequence.generator = np.random.default_rng(sequence.settings.seed)
            self._rows.append(sequence)
            self._next.append(sequence.prompt[-1])
            self.counters.samples += 1
            self.counters.prompt_tokens += len(sequence.prompt)
            self.counters.cached_tokens += sequence.cached

    def _advance(self) -> None:
        """One more token for every row; rows that are finished leave."""
        rows = self._rows
        logits = self._decoder.step(np.asarray(self._next, dtype=np.int64))
        drawn = sample(
            logits,
            np.array([s.settings.temperature for s in rows]),
            np.array([s.settings.top_p for s in rows]),
            [s.generator for s in rows],
            self._shared,
        )
        self._next = drawn.tolist()
        self.counters.steps += 1
        self.counters.completion_tokens += len(rows)
        scored = [row for row, s in enumerate(rows) if s.settings.top is not None]
        if scored:
            for row, chances in zip(scored, log_probabilities(logits[scored]), strict=True):
                rows[row].scores.append(_score(chances, self._next[row], rows[row].settings.top or 0))
        # From the last row down, so that the row which takes a leaver's place has been looked at already.
        for row in reversed(range(len(rows))):
            finish = self._extend(rows[row], self._next[row])
            if finish is not None:
                self._leave(row, finish)
            elif rows[row].settings.follow:
                rows[row].notify()

    def _extend(self, sequence: Sequence, token: int) -> Finish | None:
        settings = sequence.settings
        sequence.tokens.append(token)
        if (settings.follow or settings.stop) and sequence.read(self.tokenizer):
            return "stop"
        if token in self.weights.end_ids:
            return "stop"
        full = len(sequence.prompt) + len(sequence.tokens) >= self.weights.context
        return "length" if full or len(sequence.tokens) >= settings.max_tokens else None

    def _leave(self, row: int, finish: Finish) -> None:
        sequence = self._rows[row]
        self._decoder.remove(row)
        last, last_next = self._rows.pop(), self._next.pop()
        if last is not sequence:
            self._rows[row], self._next[row] = last, last_next
        self._finish(sequence, finish)

    def _finish(self, sequence: Sequence, finish: Finish) -> None:
        sequence.read(self.tokenizer, last=True)
        if finish == "abort":
            self.counters.aborted += 1
        sequence.finish = finish
        sequence.notify()


def _score(chances: Array, token: int, top: int) -> TokenScore:
    best = np.argsort(chances)[::-1][:top].tolist()
    return TokenScore(token, float(chances[token]), tuple((index, float(chances[index])) for index in best))
