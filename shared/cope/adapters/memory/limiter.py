"""The limiter over books in memory, by a clock that a test holds in its hand."""

import math
from collections.abc import Mapping
from itertools import count

from cope.core.limits.book import Book, Place
from cope.core.limits.types import Ask, Grant, Headroom, Limits, Pace, Report, Wait
from cope.ports.support import Clock


class MemoryLimiter:
    """Limits by model name; a model without any is only ever blocked. `places` are the endpoints of a model with
    several."""

    def __init__(
        self,
        clock: Clock,
        limits: Mapping[str, Limits] | None = None,
        *,
        places: Mapping[str, tuple[Place, ...]] | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._clock = clock
        self._places = {name: (_only(name, one),) for name, one in (limits or {}).items()} | dict(places or {})
        self._book = Book(pace or Pace())
        self._numbers = count(1)

    async def acquire(self, model: str, ask: Ask) -> Grant | Wait:
        """A place at one of the model's endpoints, or how long to wait."""
        return self._book.choose(
            self._of(model),
            ask,
            now=self._now(),
            ticket_id=str(next(self._numbers)),
            keeper="memory",
            slot_lease_s=math.inf,
        )

    async def give_back(self, grant: Grant, report: Report) -> None:
        """The granted call ended."""
        place = next(place for place in self._of(grant.model) if place.endpoint == grant.endpoint)
        self._book.settle(place, grant.ticket, report, now=self._now())

    async def headroom(self) -> tuple[Headroom, ...]:
        """Every endpoint that was declared or asked for."""
        return tuple(self._book.headroom(p, now=self._now()) for places in self._places.values() for p in places)

    def _of(self, model: str) -> tuple[Place, ...]:
        return self._places.setdefault(model, (_only(model, Limits()),))

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _only(model: str, limits: Limits) -> Place:
    return Place(model, model, model, model, limits)
