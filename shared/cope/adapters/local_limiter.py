"""The limiter of one process: the same books as the shared one, for the calls of this process alone."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count

from cope.core.limits.book import Book, Place
from cope.core.limits.types import Ask, Grant, Headroom, Limits, Pace, Report, Wait
from cope.core.models import ModelCatalog

KEEPER = "local"


class LocalLimiter:
    """A `Limiter` over books in memory.

    `share` is this process's part of the whole when it stands in for the shared limiter (1/processes). `clock` gives
    seconds since any fixed moment.
    """

    def __init__(
        self,
        catalog: ModelCatalog,
        *,
        share: float = 1.0,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._places = {name: [_part(p, share) for p in entry.places] for name, entry in catalog.entries.items()}
        self._book = Book(pace or Pace())
        self._clock = clock
        self._numbers = count(1)

    async def acquire(self, model: str, ask: Ask) -> Grant | Wait:
        """A place at one of the model's endpoints, or how long to wait."""
        # Slots never expire here: their holders live exactly as long as these books.
        return self._book.choose(
            self._places[model],
            ask,
            now=self._clock(),
            ticket_id=str(next(self._numbers)),
            keeper=KEEPER,
            slot_lease_s=math.inf,
        )

    async def give_back(self, grant: Grant, report: Report) -> None:
        """The granted call ended."""
        place = next(place for place in self._places[grant.model] if place.endpoint == grant.endpoint)
        self._book.settle(place, grant.ticket, report, now=self._clock())

    async def headroom(self) -> tuple[Headroom, ...]:
        """Every endpoint as it stands in this process."""
        now = self._clock()
        return tuple(self._book.headroom(place, now=now) for places in self._places.values() for place in places)


def _part(place: Place, share: float) -> Place:
    """The place with this share of its limits, at least one call."""
    limits = place.limits
    return replace(
        place,
        limits=Limits(
            *(None if n is None else max(1, int(n * share)) for n in (limits.rpm, limits.tpm, limits.concurrency))
        ),
    )
