"""Price rows, and what a proposed one would change, as JSON."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from cope.bootstrap import ApiParts
from cope.core.money import Price, format_usd
from cope.core.price_changes import Objection, Repricing, amounts, typical_call, typical_reserve
from cope.core.prices import PriceTable, split_price_id
from cope_api.context import seconds


class Change(NamedTuple):
    """A proposed row, what it takes the place of, and what speaks against it."""

    row: Price
    replaced: Price | None
    objections: tuple[Objection, ...]


def price_json(row: Price, table: PriceTable, at: datetime) -> dict[str, Any]:
    return {
        "object": "organization.price",
        "id": ":".join(row.key),
        "price_id": row.price_id,
        "tier": row.tier,
        "version": row.version,
        "status": table.status(row, at),
        "currency": "USD",
        "per_million_tokens": {name: format_usd(amount) for name, amount in amounts(row).items()},
        "nanousd_per_million_tokens": {name: int(amount) for name, amount in amounts(row).items()},
        "effective_at": seconds(row.effective_at),
        "effective_until": seconds(row.effective_until),
        "origin": row.origin,
        "source": row.source,
        "added_by": row.added_by,
        "added_at": seconds(row.added_at),
        "reason": row.reason or None,
    }


async def diff_json(parts: ApiParts, change: Change, days: int) -> dict[str, Any]:
    """What the row would have made of the last `days` days' settled calls, over all projects, and of a reserve."""
    row, now = change.row, parts.clock.now()
    models = [
        entry.name
        for entry in parts.catalog.entries.values()
        if split_price_id(entry.price_id or "") == (row.price_id, row.tier)
    ]
    found = await parts.store.reprice(row, models=models, since=now - timedelta(days=days))
    call = typical_call(found.usage)
    was = None if change.replaced is None else typical_reserve(change.replaced, call)
    will_be = typical_reserve(row, call)
    after = parts.prices.plus(row)
    return {
        "object": "organization.price.diff",
        "id": ":".join(row.key),
        "price": price_json(row, after, now),
        "replaces": None if change.replaced is None else price_json(change.replaced, parts.prices, now),
        "objections": [{"code": one.code, "message": one.message} for one in change.objections],
        "settled": {"days": days, **_repricing_json(found)},
        "typical_reserve": {
            "prompt_tokens": call[0],
            "output_limit": call[1],
            "before_nanousd": was,
            "after_nanousd": will_be,
            "difference_nanousd": None if was is None else will_be - was,
            "before_usd": None if was is None else format_usd(was),
            "after_usd": format_usd(will_be),
        },
    }


def _repricing_json(found: Repricing) -> dict[str, Any]:
    return {
        "attempts": found.attempts,
        "calls": found.usage.calls,
        "input_tokens": found.usage.prompt,
        "cached_input_tokens": found.usage.cached,
        "output_tokens": found.usage.completion,
        "spent_nanousd": int(found.spent),
        "repriced_nanousd": int(found.repriced),
        "difference_nanousd": int(found.difference),
        "spent_usd": format_usd(found.spent),
        "repriced_usd": format_usd(found.repriced),
        "difference_usd": format_usd(found.difference),
        "without_usage": {"attempts": found.unmeasured, "spent_nanousd": int(found.unmeasured_spent)},
    }
