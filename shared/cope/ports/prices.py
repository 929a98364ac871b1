"""The price rows that the store keeps: read by every process, added to by the operator."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from cope.core.money import Price
from cope.core.price_changes import Repricing


class PriceReader(Protocol):
    """Reading. Rows are only ever added, so an unchanged count means unchanged rows."""

    async def count_prices(self) -> int:
        """How many rows there are."""
        ...

    async def list_prices(self) -> tuple[Price, ...]:
        """All of them with their provenance, by price id, tier, date and version."""
        ...


class PriceKeeper(PriceReader, Protocol):
    """The operator's side, over all projects."""

    async def add_prices(self, prices: Sequence[Price]) -> tuple[Price, ...]:
        """Add these rows, all or none; they come back as stored, `added_at` by the store's clock. `Conflict` where one
        of their keys is taken, even by an equal row."""
        ...

    async def reprice(self, price: Price, *, models: Sequence[str], since: datetime) -> Repricing:
        """What the attempts of this price id and tier that were settled since then cost, and would have cost at
        `price`, each rounded up by itself. An attempt from before price ids were recorded counts by its model."""
        ...
