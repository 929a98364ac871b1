"""One limiter out of several: the first whose store answers."""

import logging
import time
from collections.abc import Sequence
from typing import Protocol

from cope.core.limits.types import Ask, Grant, Headroom, Report, Wait
from cope.ports.limiter import Limiter

logger = logging.getLogger(__name__)

ASKED_AGAIN_AFTER_S = 5.0


class SharedLimiter(Limiter, Protocol):
    """A limiter that raises `LimiterAway`, and can be told that others granted calls meanwhile."""

    def distrust(self) -> None:
        """Its books may lack calls."""
        ...

    def let_go(self, grant: Grant) -> None:
        """The granted call ended, and the store is not told: its slot is no longer renewed and expires."""
        ...


class FallbackLimiter:
    """Asks `shared` in their order, each by the name of the keeper on its tickets, and `alone` when all are away.

    One that did not answer is left alone for some seconds: a time-out for every call would be worse than its absence.
    """

    def __init__(self, shared: Sequence[tuple[str, SharedLimiter]], alone: Limiter) -> None:
        self._shared = tuple(shared)
        self._alone = alone
        self._away_until: dict[str, float] = {}
        self._current = shared[0][0] if shared else ""

    async def acquire(self, model: str, ask: Ask) -> Grant | Wait:
        """A place at one of the model's endpoints, or how long to wait. Never raises for a store that is away."""
        for name, limiter in self._present():
            if name != self._current:
                logger.warning("rate limits are now kept in %s", name)
                limiter.distrust()
                self._current = name
            try:
                return await limiter.acquire(model, ask)
            except Exception as away:  # a store that answers wrongly is no better than one that is away
                self._missed(name, away)
        if self._current:
            logger.warning("no shared limiter answers: this process keeps to its own share of each rate limit")
            self._current = ""
        return await self._alone.acquire(model, ask)

    async def give_back(self, grant: Grant, report: Report) -> None:
        """To the keeper of its ticket. If that one is away its slot expires and the estimate stands."""
        for name, limiter in self._shared:
            if name == grant.ticket.keeper:
                if self._is_away(name):
                    limiter.let_go(grant)
                    return
                try:
                    await limiter.give_back(grant, report)
                except Exception as away:
                    self._missed(name, away)
                return
        await self._alone.give_back(grant, report)

    async def headroom(self) -> tuple[Headroom, ...]:
        """As the first limiter that answers sees it."""
        for name, limiter in self._present():
            try:
                return await limiter.headroom()
            except Exception as away:
                self._missed(name, away)
        return await self._alone.headroom()

    def _present(self) -> list[tuple[str, SharedLimiter]]:
        return [(name, limiter) for name, limiter in self._shared if not self._is_away(name)]

    def _is_away(self, name: str) -> bool:
        return self._away_until.get(name, 0.0) > time.monotonic()

    def _missed(self, name: str, away: Exception) -> None:
        if not self._is_away(name):
            logger.warning("the rate limiter in %s is away (%s: %s)", name, type(away).__name__, away)
        self._away_until[name] = time.monotonic() + ASKED_AGAIN_AFTER_S
