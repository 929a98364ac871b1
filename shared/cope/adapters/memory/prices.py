"""Dated prices over the memory store: both sides of it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from cope.adapters.memory.tables import AttemptRow, Tables
from cope.core.errors import Conflict
from cope.core.lifecycle import AttemptState
from cope.core.money import NanoUSD, Price, TokenUsage
from cope.core.price_changes import Repricing


class PricesMixin:
    """Price rows as `PriceKeeper` and `WorkerStore` describe them."""

    def __init__(self, db: Tables) -> None:
        self._db = db

    async def put_prices(self, prices: Sequence[Price]) -> None:
        """All of them or, on a `Conflict`, none."""
        for price in prices:
            if self._db.prices.get(price.key, price) != price:
                raise Conflict(
                    f"Price {price.price_id!r} ({price.tier}) of version {price.version!r} is already known with other "
                    "terms: a row never changes, give the new terms a new version.",
                    code="price_version_exists",
                )
        now = self._db.now()
        for price in prices:
            self._db.prices.setdefault(price.key, replace(price, added_at=now))

    async def add_prices(self, prices: Sequence[Price]) -> tuple[Price, ...]:
        """All of them or, on a `Conflict`, none."""
        seen = set(self._db.prices)
        for price in prices:
            if price.key in seen:
                raise Conflict(
                    f"There is a version {price.version!r} of price {price.price_id!r} ({price.tier}) already: a row "
                    "never changes, add a newer version.",
                    code="price_version_exists",
                )
            seen.add(price.key)
        added = tuple(replace(price, added_at=self._db.now()) for price in prices)
        self._db.prices.update({price.key: price for price in added})
        return added

    async def count_prices(self) -> int:
        """All rows."""
        return len(self._db.prices)

    async def list_prices(self) -> tuple[Price, ...]:
        """By price id, tier, date and version."""
        rows = self._db.prices.values()
        return tuple(sorted(rows, key=lambda p: (p.price_id, p.tier, p.effective_at, p.added_at, p.version)))

    async def reprice(self, price: Price, *, models: Sequence[str], since: datetime) -> Repricing:
        """Over every project."""
        settled = [
            row
            for row in self._db.attempts.values()
            if row.state is AttemptState.SETTLED
            and row.settled_at is not None
            and row.settled_at >= since
            and _is_of(row, price, models)
        ]
        measured = [row for row in settled if row.usage is not None]
        unmeasured = [row for row in settled if row.usage is None]
        usages = [row.usage for row in measured if row.usage is not None]
        return Repricing(
            attempts=len(measured),
            usage=sum(usages, TokenUsage()),
            spent=_came_to(measured),
            repriced=NanoUSD(sum(price.cost(usage) for usage in usages)),
            unmeasured=len(unmeasured),
            unmeasured_spent=_came_to(unmeasured),
        )


def _is_of(row: AttemptRow, price: Price, models: Sequence[str]) -> bool:
    if row.price_id:
        return (row.price_id, row.price_tier) == (price.price_id, price.tier)
    return row.model in models


def _came_to(rows: Sequence[AttemptRow]) -> NanoUSD:
    return NanoUSD(sum((row.cost or 0) + row.overrun for row in rows))
