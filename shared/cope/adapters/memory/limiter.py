"""The rate limiter of one process: fixed windows of a minute, calls in flight, and blocks."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count

from cope.ports.support import Clock, Grant

_MINUTE_S = 60.0
_SLOT_WAIT_S = 0.05


@dataclass(frozen=True, slots=True)
class Limits:
    """Per minute and at once; None is no limit."""

    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None


@dataclass(slots=True)
class _Use:
    window_from: datetime
    calls: int = 0
    tokens: int = 0
    in_flight: dict[str, int] = field(default_factory=dict)
    blocked_until: datetime | None = None


class MemoryLimiter:
    """Limits by model name; a model without any is only ever blocked. A window begins with its first call.

    Simpler than the shared limiter on purpose (that one smooths; this one lets a minute's calls go at once), and as
    strict: all of calls, tokens and slots, or nothing.
    """

    def __init__(self, clock: Clock, limits: dict[str, Limits] | None = None) -> None:
        self._clock = clock
        self._limits = limits or {}
        self._uses: dict[str, _Use] = {}
        self._tokens = count(1)

    async def acquire(self, model: str, *, tokens: int) -> Grant:
        """Ask for one call of about `tokens` tokens."""
        now = self._clock.now()
        use, limits = self._use(model, now), self._limits.get(model, Limits())
        if use.blocked_until is not None and use.blocked_until > now:
            return Grant((use.blocked_until - now).total_seconds(), None)
        left_s = _MINUTE_S - (now - use.window_from).total_seconds()
        if limits.rpm is not None and use.calls >= limits.rpm:
            return Grant(left_s, None)
        # One call larger than a whole minute's tokens goes alone: waiting would never help it.
        if limits.tpm is not None and use.tokens > 0 and use.tokens + tokens > limits.tpm:
            return Grant(left_s, None)
        if limits.concurrency is not None and len(use.in_flight) >= limits.concurrency:
            return Grant(_SLOT_WAIT_S, None)
        token = f"{model}#{next(self._tokens)}"
        use.calls += 1
        use.tokens += tokens
        use.in_flight[token] = tokens
        return Grant(0.0, token)

    async def give_back(self, model: str, grant: Grant, *, tokens_used: int | None) -> None:
        """The call ended; giving back twice changes nothing."""
        use = self._use(model, self._clock.now())
        estimate = None if grant.token is None else use.in_flight.pop(grant.token, None)
        if estimate is not None and tokens_used is not None:
            use.tokens = max(0, use.tokens - estimate + tokens_used)

    async def block(self, model: str, *, seconds: float) -> None:
        """No call of this model for `seconds`; a shorter block never ends a longer one."""
        now = self._clock.now()
        use, until = self._use(model, now), now + timedelta(seconds=seconds)
        if use.blocked_until is None or use.blocked_until < until:
            use.blocked_until = until

    def _use(self, model: str, now: datetime) -> _Use:
        use = self._uses.setdefault(model, _Use(window_from=now))
        if (now - use.window_from).total_seconds() >= _MINUTE_S:
            use.window_from, use.calls, use.tokens = now, 0, 0
        return use
