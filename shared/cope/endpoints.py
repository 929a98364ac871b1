"""Endpoints in the models file: several keys or providers of one model, and the limits they share."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cope.core.errors import Misconfigured
from cope.core.limits.book import Place
from cope.core.models import Endpoint, ModelEntry

# A key is never written in a file, only the name of the variable that holds it.
_ENDPOINT_KEYS = (frozenset(Endpoint.__dataclass_fields__) | {"api_key_env"}) - {"api_key"}


def key_of(row: Mapping[str, Any], where: str) -> str:
    """The secret in the variable that `api_key_env` names, or none. Raises `Misconfigured` for a missing variable."""
    variable = row.get("api_key_env")
    if variable and variable not in os.environ:
        raise Misconfigured(f"{where} takes its key from {variable}, which is not set.")
    return os.environ[variable] if variable else ""


def endpoints_of(row: Mapping[str, Any], path: Path) -> tuple[Endpoint, ...]:
    """The [[model.endpoint]] tables of a model; what one leaves out is the model's own, but for its limits."""
    model, found = row.get("name"), row.get("endpoint", [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Misconfigured(f"{path}: model {model!r}: write endpoints as [[model.endpoint]] tables.")
    if found and row.get("tier") != "paid":
        raise Misconfigured(
            f"{path}: model {model!r}: only paid models have endpoints; put a router in front of this one."
        )
    if found and any(key in row for key in ("rpm", "tpm", "concurrency", "limit_group")):
        raise Misconfigured(f"{path}: model {model!r} has endpoints: state rpm, tpm and concurrency at each of them.")
    endpoints: list[Endpoint] = []
    for one in found:
        where = f"{path}: endpoint {one.get('name')!r} of model {model!r}"
        for key in one:
            if key not in _ENDPOINT_KEYS:
                raise Misconfigured(f"{where}: unknown key {key!r}. Known keys: {', '.join(sorted(_ENDPOINT_KEYS))}.")
        if not isinstance(one.get("name"), str) or not one["name"]:
            raise Misconfigured(f"{where}: give it a `name`.")
        if one["name"] in {other.name for other in endpoints}:
            raise Misconfigured(f"{where} is declared twice.")
        if not one.get("base_url", row.get("base_url")):
            raise Misconfigured(f"{where} lacks `base_url`, and the model has none either.")
        check_limits(one, where)
        values = {key: value for key, value in one.items() if key != "api_key_env"}
        key = key_of(one if "api_key_env" in one else row, where)
        own = {"base_url": row.get("base_url"), "tpm_counts": row.get("tpm_counts", "used")}
        endpoints.append(Endpoint(**{**own, "api_key": key, **values}))
    return tuple(endpoints)


def check_limits(row: Mapping[str, Any], where: str) -> None:
    """Limits and what belongs to them. Raises `Misconfigured`."""
    for name in ("rpm", "tpm", "concurrency"):
        if name in row and (type(row[name]) is not int or row[name] < 1):
            raise Misconfigured(
                f"{where}: {name} is a whole number from 1, not {row[name]!r}; leave it out for no limit."
            )
    weight = row.get("weight", 1)
    if type(weight) not in {int, float} or not 0 < weight < 1e6:
        raise Misconfigured(f"{where}: weight is a number above 0, not {weight!r}.")
    if row.get("tpm_counts", "used") not in {"used", "limit"}:
        raise Misconfigured(f'{where}: tpm_counts is "used" or "limit", not {row["tpm_counts"]!r}.')


def check_groups(entries: Iterable[ModelEntry]) -> None:
    """Those who share a limit group say the same limits, and one model goes to a group by one way."""
    stated: dict[str, Place] = {}
    for entry in entries:
        names = [place.group for place in entry.places]
        if len(set(names)) < len(names):
            raise Misconfigured(f"Two endpoints of model {entry.name!r} share a limit_group: make them one endpoint.")
        for place in entry.places:
            first = stated.setdefault(place.group, place)
            if first.limits != place.limits:
                raise Misconfigured(
                    f"limit_group {place.group!r}: models {first.model!r} and {place.model!r} state different limits. "
                    "The group's rpm, tpm and concurrency are shared: write the same ones at each."
                )
