"""Dated prices: once known, a row never changes. They belong to no project, so row-level security is not concerned."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from cope.adapters.postgres.database import Connection, fetch, fetch_one
from cope.core.errors import Conflict
from cope.core.money import NanoUSD, Price, TokenUsage
from cope.core.price_changes import Repricing

_INSERT = """
INSERT INTO prices (price_id, tier, version, input_per_mtok, cached_input_per_mtok, output_per_mtok, effective_at,
                    effective_until, origin, source, added_by, reason)
VALUES (%(price_id)s, %(tier)s, %(version)s, %(input_per_mtok)s, %(cached_input_per_mtok)s, %(output_per_mtok)s,
        %(effective_at)s, %(effective_until)s, %(origin)s, %(source)s, %(added_by)s, %(reason)s)
ON CONFLICT DO NOTHING
"""
_BY_KEY = "SELECT * FROM prices WHERE price_id = %(price_id)s AND tier = %(tier)s AND version = %(version)s"


async def put_prices(conn: Connection, prices: Sequence[Price]) -> None:
    """All of them or, on a `Conflict`, none."""
    for price in prices:
        await conn.execute(_INSERT, asdict(price))
        row = await fetch_one(conn, _BY_KEY, asdict(price))
        if row is None or Price(**row) != price:
            raise Conflict(
                f"Price {price.price_id!r} ({price.tier}) of version {price.version!r} is already known with other "
                "terms: a row never changes, give the new terms a new version.",
                code="price_version_exists",
            )


async def add_prices(conn: Connection, prices: Sequence[Price]) -> tuple[Price, ...]:
    """All of them or, on a `Conflict`, none."""
    added = []
    for price in prices:
        if (await conn.execute(_INSERT, asdict(price))).rowcount != 1:
            raise Conflict(
                f"There is a version {price.version!r} of price {price.price_id!r} ({price.tier}) already: a row never "
                "changes, add a newer version.",
                code="price_version_exists",
            )
        row = await fetch_one(conn, _BY_KEY, asdict(price))
        assert row is not None
        added.append(Price(**row))
    return tuple(added)


async def count_prices(conn: Connection) -> int:
    """All rows."""
    row = await fetch_one(conn, "SELECT count(*) AS known FROM prices")
    return 0 if row is None else int(row["known"])


async def list_prices(conn: Connection) -> tuple[Price, ...]:
    """By price id, tier, date and version."""
    rows = await fetch(
        conn,
        """
        SELECT * FROM prices
        ORDER BY price_id COLLATE "C", tier COLLATE "C", effective_at, added_at, version COLLATE "C"
        """,
    )
    return tuple(Price(**row) for row in rows)


async def reprice(conn: Connection, price: Price, *, models: Sequence[str], since: datetime) -> Repricing:
    """One look at every settled attempt: the operator's question, asked seldom, is worth no index on a hot table."""
    row = await fetch_one(conn, _REPRICE, {**asdict(price), "models": list(models), "since": since})
    assert row is not None
    return Repricing(
        attempts=row["attempts"],
        usage=TokenUsage(*(int(row[name]) for name in ("prompt", "cached", "completion", "reasoning", "calls"))),
        spent=NanoUSD(int(row["spent"])),
        repriced=NanoUSD(int(row["repriced"])),
        unmeasured=row["unmeasured"],
        unmeasured_spent=NanoUSD(int(row["unmeasured_spent"])),
    )


# Each attempt is rounded up by itself, as `Price.cost` does: div() of numerics is exact where a quotient is not.
_REPRICE = """
WITH settled AS (
  SELECT cost + overrun AS came_to, usage FROM attempts
  WHERE state = 'settled' AND settled_at >= %(since)s
    AND (price_id = %(price_id)s AND price_tier = %(tier)s
         OR price_id = '' AND model = ANY (%(models)s::text[]))
)
SELECT
  count(usage) AS attempts,
  coalesce(sum(usage[1]), 0) AS prompt, coalesce(sum(usage[2]), 0) AS cached,
  coalesce(sum(usage[3]), 0) AS completion, coalesce(sum(usage[4]), 0) AS reasoning,
  coalesce(sum(usage[5]), 0) AS calls,
  coalesce(sum(came_to) FILTER (WHERE usage IS NOT NULL), 0) AS spent,
  coalesce(sum(div((usage[1] - usage[2])::numeric * %(input_per_mtok)s
                   + usage[2]::numeric * %(cached_input_per_mtok)s
                   + usage[3]::numeric * %(output_per_mtok)s + 999999, 1000000)), 0) AS repriced,
  count(*) FILTER (WHERE usage IS NULL) AS unmeasured,
  coalesce(sum(came_to) FILTER (WHERE usage IS NULL), 0) AS unmeasured_spent
FROM settled
"""
