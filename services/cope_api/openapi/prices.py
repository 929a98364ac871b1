"""The price table: the operator's."""

from cope_api.openapi.operation import op
from cope_api.openapi.shapes import (
    NANO,
    SECONDS,
    USD,
    Schema,
    array,
    closed,
    const,
    either,
    example,
    flag,
    listed,
    mapping,
    named,
    nullable,
    one_of,
    record,
    text,
    whole,
)

_TIER = one_of(["standard", "batch"])
PRICE = named(
    "Price",
    record(
        {
            "object": const("organization.price"),
            "id": text(),
            "price_id": text(),
            "tier": _TIER,
            "version": text(),
            "status": text(),
            "currency": const("USD"),
            "per_million_tokens": mapping(USD),
            "nanousd_per_million_tokens": mapping(NANO),
            "effective_at": SECONDS,
            "effective_until": nullable(SECONDS),
            "origin": one_of(["shipped", "file", "operator"]),
            "source": text(),
            "added_by": nullable(text()),
            "added_at": nullable(SECONDS),
            "reason": nullable(text()),
        },
        "One dated row.",
    ),
)
_SETTLED: dict[str, Schema] = {
    **{name: whole() for name in ("days", "attempts", "calls", "input_tokens", "cached_input_tokens", "output_tokens")},
    **{
        f"{name}_{unit}": schema
        for name in ("spent", "repriced", "difference")
        for unit, schema in (("usd", USD), ("nanousd", NANO))
    },
    "without_usage": record({"attempts": whole(), "spent_nanousd": NANO}),
}
_DIFF = record(
    {
        "object": const("organization.price.diff"),
        "id": text(),
        "price": PRICE,
        "replaces": nullable(PRICE),
        "objections": array(record({"code": text(), "message": text()})),
        "settled": record(_SETTLED),
        "typical_reserve": record(
            {
                "prompt_tokens": whole(),
                "output_limit": whole(),
                "before_nanousd": nullable(NANO),
                "after_nanousd": NANO,
                "difference_nanousd": nullable(NANO),
                "before_usd": nullable(USD),
                "after_usd": USD,
            }
        ),
    },
    "What a row would change (`dry_run`).",
)
_AMOUNT = text('USD per million tokens, such as "2.50".', low=1)
_MOMENT_IN = either(whole("Unix seconds.", low=0, high=253_402_300_799), text("ISO 8601.", low=1), {"type": "null"})
_ROW = {
    "price_id": text(low=1, high=256),
    "input": _AMOUNT,
    "output": _AMOUNT,
    "source": text("Where it is published.", low=1, high=2000),
}
_ROW_REST = {
    "cached_input": _AMOUNT,
    "tier": _TIER,
    "version": nullable(text(low=1, high=64)),
    "effective_at": _MOMENT_IN,
    "effective_until": _MOMENT_IN,
}
_ORDERS = {
    "dry_run": flag(),
    "force": flag("Take what looks like a slip; needs a `reason`."),
    "reason": text(high=1000),
    "added_by": text(low=1, high=200),
    "days": whole("Of settled calls, for a dry run.", low=1, high=366),
}
NEW_PRICES = either(
    closed(_ROW, optional={**_ROW_REST, **_ORDERS}),
    closed({"prices": array(closed(_ROW, optional=_ROW_REST), low=1, high=100)}, optional=_ORDERS),
)
_EXAMPLE = {
    "price_id": "gpt-x",
    "input": "3.00",
    "cached_input": "1.50",
    "output": "12.00",
    "source": "https://example.com/prices",
}

OPERATIONS = {
    "GET /v1/organization/prices": op(
        "Prices",
        listed(PRICE),
        by="admin",
        query={
            "at": text("Unix seconds or ISO 8601. Default: now.", low=1, high=512),
            "versions": one_of(["in_force", "all"]),
            "price_id": text(high=512),
            "tier": _TIER,
        },
    ),
    "POST /v1/organization/prices": op(
        "Prices",
        either(listed(PRICE), listed(_DIFF)),
        by="admin",
        body=example(NEW_PRICES, _EXAMPLE),
        errors=(422,),
    ),
}
