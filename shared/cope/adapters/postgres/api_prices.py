"""Prices for the operator: rows of no project, and a question over every project's attempts."""

from collections.abc import Sequence
from datetime import datetime

from cope.adapters.postgres import prices
from cope.adapters.postgres.database import Database
from cope.core.money import Price
from cope.core.price_changes import Repricing


class ApiPrices:
    """`PriceKeeper` as role `cope_api`: it may read and add, never change."""

    _db: Database

    async def count_prices(self) -> int:
        """How many rows there are."""
        async with self._db.connection() as conn:
            return await prices.count_prices(conn)

    async def list_prices(self) -> tuple[Price, ...]:
        """All of them."""
        async with self._db.connection() as conn:
            return await prices.list_prices(conn)

    async def add_prices(self, new: Sequence[Price]) -> tuple[Price, ...]:
        """All of them or, on a `Conflict`, none."""
        async with self._db.transaction() as conn:
            return await prices.add_prices(conn, new)

    async def reprice(self, price: Price, *, models: Sequence[str], since: datetime) -> Repricing:
        """Over every project: said to row-level security for this one transaction."""
        async with self._db.transaction(operator="on") as conn:
            return await prices.reprice(conn, price, models=models, since=since)
