"""Dated prices: once known, a row never changes."""

from collections.abc import Sequence
from dataclasses import asdict

from cope.adapters.postgres.database import Connection, fetch_one
from cope.core.errors import Conflict
from cope.core.money import Price

_INSERT = """
INSERT INTO prices (price_id, version, input_per_mtok, cached_input_per_mtok, output_per_mtok, effective_at)
VALUES (%(price_id)s, %(version)s, %(input_per_mtok)s, %(cached_input_per_mtok)s, %(output_per_mtok)s, %(effective_at)s)
ON CONFLICT DO NOTHING
"""


async def put_prices(conn: Connection, prices: Sequence[Price]) -> None:
    """All of them or, on a `Conflict`, none."""
    for price in prices:
        await conn.execute(_INSERT, asdict(price))
        row = await fetch_one(
            conn,
            "SELECT * FROM prices WHERE price_id = %(price_id)s AND version = %(version)s",
            {"price_id": price.price_id, "version": price.version},
        )
        if row is None or Price(**row) != price:
            raise Conflict(f"Price {price.price_id!r} of {price.version!r} is already known with other amounts.")
