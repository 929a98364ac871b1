"""The limiter without Redis: the same bounds, for the calls of this process alone."""

import time
from collections import deque
from dataclasses import dataclass, field

from cope.core.models import ModelCatalog, ModelEntry
from cope.ports.support import Grant

WINDOW_S = 60.0


@dataclass(slots=True)
class _State:
    calls: deque[tuple[float, int]] = field(default_factory=deque)
    tokens: int = 0
    in_flight: int = 0
    blocked_until: float = 0.0


class LocalLimiter:
    """A sliding window of calls and tokens per model, and calls in flight, all or nothing.

    `share` is this process's part of the whole when it stands in for the shared limiter (1/processes).
    """

    def __init__(self, catalog: ModelCatalog, *, share: float = 1.0) -> None:
        self._catalog = catalog
        self._share = share
        self._states: dict[str, _State] = {}

    async def acquire(self, model: str, *, tokens: int) -> Grant:
        """Ask for one call of about `tokens` tokens; a wait means that nothing was charged."""
        entry, state, now = self._catalog.entries[model], self._states.setdefault(model, _State()), time.monotonic()
        _forget(state, now)
        wait = max(0.0, state.blocked_until - now, self._wait(entry, state, tokens, now))
        if wait > 0:
            return Grant(wait, None)
        state.calls.append((now, tokens))
        state.tokens += tokens
        state.in_flight += 1
        return Grant(0.0, str(now))

    def _wait(self, entry: ModelEntry, state: _State, tokens: int, now: float) -> float:
        if entry.concurrency is not None and state.in_flight >= max(1, int(entry.concurrency * self._share)):
            return 0.05
        if entry.rpm is not None and len(state.calls) >= max(1, int(entry.rpm * self._share)):
            return state.calls[0][0] + WINDOW_S - now
        if entry.tpm is not None and state.calls and state.tokens + tokens > entry.tpm * self._share:
            return state.calls[0][0] + WINDOW_S - now
        return 0.0

    async def give_back(self, model: str, grant: Grant, *, tokens_used: int | None) -> None:
        """The call ended: its slot is free, and its charge corrected to what it used."""
        state = self._states.get(model)
        if state is None or grant.token is None:
            return
        state.in_flight = max(0, state.in_flight - 1)
        if tokens_used is None:
            return
        began = float(grant.token)
        for index, (when, charged) in enumerate(state.calls):
            if when == began:
                state.calls[index] = (when, tokens_used)
                state.tokens += tokens_used - charged
                break

    async def block(self, model: str, *, seconds: float) -> None:
        """No call to this model for `seconds`."""
        state = self._states.setdefault(model, _State())
        state.blocked_until = max(state.blocked_until, time.monotonic() + seconds)


def _forget(state: _State, now: float) -> None:
    while state.calls and state.calls[0][0] <= now - WINDOW_S:
        _, tokens = state.calls.popleft()
        state.tokens -= tokens
