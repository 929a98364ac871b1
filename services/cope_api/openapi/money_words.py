"""Words that the schemas of money share."""

from cope_api.openapi.shapes import (
    NANO,
    USD,
    Schema,
    text,
    whole,
)

PROJECT = "/v1/organization/projects/{project_id}"
MONTH = text("Such as 2026-11.", like=r"^2[0-9]{3}-(0[1-9]|1[0-2])$")
CENTS = whole("Cents.", low=0, high=9 * 10**11)
SUMS: dict[str, Schema] = {
    "spent_usd": USD,
    "reserved_usd": USD,
    "unconfirmed_usd": USD,
}
TOKENS: dict[str, Schema] = {
    name: whole(low=0)
    for name in ("steps", "calls", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
}


def both(*names: str) -> dict[str, Schema]:
    """Each amount as dollars and as nano-dollars."""
    return {f"{name}_{unit}": schema for name in names for unit, schema in (("usd", USD), ("nanousd", NANO))}
