"""The configured models, prompt sets and prices, from settings and the files they name."""

import os
import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from cope.core.errors import Misconfigured
from cope.core.limits.book import Place
from cope.core.models import Endpoint, ModelCatalog, ModelEntry
from cope.core.money import NanoUSD, Price, parse_usd
from cope.core.prices import PriceTable
from cope.core.problem import Kind
from cope.core.prompts import BUILT_IN, PromptSet, RolePrompts
from cope.core.stages import Tier
from cope.settings import Settings

# `endpoint` is set when a model is asked for at one of its endpoints; a key is never written in a file.
_ENTRY_KEYS = (frozenset(ModelEntry.__dataclass_fields__) | {"api_key_env", "default"}) - {
    "api_key",
    "endpoint",
    "endpoints",
}
_ENDPOINT_KEYS = (frozenset(Endpoint.__dataclass_fields__) | {"api_key_env"}) - {"api_key"}


def load_catalog(settings: Settings) -> ModelCatalog:
    """The models of COPE_MODELS_FILE, else the two of the COPE_SMALL_* and COPE_LARGE_* shorthand.

    Raises `Misconfigured` naming what is missing.
    """
    prompt_sets = {**BUILT_IN, **_prompt_sets(settings.prompts_file)}
    entries, defaults = (
        _from_file(settings.models_file) if settings.models_file is not None else _from_shorthand(settings)
    )
    for entry in entries.values():
        if entry.prompt_set not in prompt_sets:
            raise Misconfigured(f"Model {entry.name!r} names the prompt set {entry.prompt_set!r}, which is not there.")
        if entry.tier is Tier.LARGE and not all(one.price_id for one in entry.variants):
            raise Misconfigured(
                f"Model {entry.name!r} is of the paid tier and has no price: set its price id (COPE_LARGE_PRICE) "
                "to one of the shipped table's or of your own COPE_PRICES_FILE."
            )
    _check_groups(entries.values())
    return ModelCatalog(entries, defaults[Tier.SMALL], defaults[Tier.LARGE], prompt_sets)


def load_prices(settings: Settings) -> PriceTable:
    """The shipped table and, over it, the rows of COPE_PRICES_FILE. Raises `Misconfigured`."""
    shipped = tomllib.loads(resources.files("cope").joinpath("data/prices.toml").read_text())
    rows = _prices(shipped, "the shipped table")
    if settings.prices_file is not None:
        own = _prices(_toml(settings.prices_file), str(settings.prices_file))
        replaced = {row.price_id for row in own}
        rows = [row for row in rows if row.price_id not in replaced] + own
    return PriceTable(rows)


def _from_shorthand(settings: Settings) -> tuple[dict[str, ModelEntry], dict[Tier, str]]:
    for name in ("small_base_url", "small_model", "large_base_url", "large_model"):
        settings.need(name)
    small = ModelEntry(
        name=settings.small_model,
        served_name=settings.small_model,
        base_url=settings.small_base_url,
        tier=Tier.SMALL,
        prompt_set=settings.small_prompt_set,
        context_length=settings.small_context,
        price_id=settings.small_price or None,
        api_key=settings.small_api_key.get_secret_value(),
        abort=settings.small_abort,
    )
    large = ModelEntry(
        name=settings.large_model,
        served_name=settings.large_model,
        base_url=settings.large_base_url,
        tier=Tier.LARGE,
        prompt_set=settings.large_prompt_set,
        context_length=settings.large_context,
        price_id=settings.large_price or _price_of_name(settings.large_model),
        api_key=settings.large_api_key.get_secret_value(),
        rpm=settings.large_rpm,
        tpm=settings.large_tpm,
        concurrency=settings.large_concurrency,
        output_limit_field=settings.large_output_limit_field,
        timeout_s=settings.large_timeout_s,
    )
    if small.name == large.name:
        raise Misconfigured("COPE_SMALL_MODEL and COPE_LARGE_MODEL are the same: name two models.")
    return {small.name: small, large.name: large}, {Tier.SMALL: small.name, Tier.LARGE: large.name}


def _price_of_name(model: str) -> str | None:
    """A model that is called exactly like a shipped price has that price."""
    shipped = tomllib.loads(resources.files("cope").joinpath("data/prices.toml").read_text())
    return model if any(row["id"] == model for row in shipped["price"]) else None


def _from_file(path: Path) -> tuple[dict[str, ModelEntry], dict[Tier, str]]:
    entries: dict[str, ModelEntry] = {}
    defaults: dict[Tier, str] = {}
    for row in _toml(path).get("model", []):
        entry = _entry(row, path)
        if entry.name in entries:
            raise Misconfigured(f"{path}: model {entry.name!r} is declared twice.")
        entries[entry.name] = entry
        if row.get("default") or entry.tier not in defaults:
            defaults[entry.tier] = entry.name
    for tier in Tier:
        if tier not in defaults:
            word = "small" if tier is Tier.SMALL else "paid"
            raise Misconfigured(f'{path}: declare at least one [[model]] with tier = "{word}".')
    return entries, defaults


def _entry(row: Mapping[str, Any], path: Path) -> ModelEntry:
    for key in row:
        if key not in _ENTRY_KEYS and key != "endpoint":
            known = ", ".join(sorted(_ENTRY_KEYS))
            raise Misconfigured(f"{path}: unknown key {key!r} in a [[model]]. Known keys: {known}; [[model.endpoint]].")
    endpoints = _endpoints(row, path)
    if endpoints and "base_url" not in row:
        row = {**row, "base_url": endpoints[0].base_url}
    for key in ("name", "base_url", "tier", "context_length"):
        if key not in row:
            raise Misconfigured(f"{path}: a [[model]] lacks {key!r}.")
    if row["tier"] not in {"small", "paid"}:
        raise Misconfigured(f'{path}: tier must be "small" or "paid", not {row["tier"]!r}.')
    _check_limits(row, f"{path}: model {row['name']!r}")
    values = {key: value for key, value in row.items() if key not in {"api_key_env", "default", "endpoint"}}
    return ModelEntry(
        **{
            "served_name": row["name"],
            "prompt_set": "instruct",
            **values,
            "tier": Tier.SMALL if row["tier"] == "small" else Tier.LARGE,
            "unsupported": frozenset(row.get("unsupported", ())),
            "api_key": _key(row, f"{path}: model {row['name']!r}"),
            "endpoints": endpoints,
        }
    )


def _key(row: Mapping[str, Any], where: str) -> str:
    variable = row.get("api_key_env")
    if variable and variable not in os.environ:
        raise Misconfigured(f"{where} takes its key from {variable}, which is not set.")
    return os.environ[variable] if variable else ""


def _endpoints(row: Mapping[str, Any], path: Path) -> tuple[Endpoint, ...]:
    """The [[model.endpoint]] tables of a model; what one leaves out is the model's own, but for its limits."""
    model, found = row.get("name"), row.get("endpoint", [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Misconfigured(f"{path}: model {model!r}: write endpoints as [[model.endpoint]] tables.")
    if found and row.get("tier") != "paid":
        raise Misconfigured(
            f"{path}: model {model!r}: only paid models have endpoints; put a router before small ones."
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
        _check_limits(one, where)
        values = {key: value for key, value in one.items() if key != "api_key_env"}
        key = _key(one if "api_key_env" in one else row, where)
        endpoints.append(Endpoint(**{"base_url": row.get("base_url"), "api_key": key, **values}))
    return tuple(endpoints)


def _check_limits(row: Mapping[str, Any], where: str) -> None:
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


def _check_groups(entries: Iterable[ModelEntry]) -> None:
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
                    f"limit_group {place.group!r}: model {first.model!r} and model {place.model!r} state different limits. "
                    "The group's rpm, tpm and concurrency are shared: write the same ones at each."
                )


def _prices(data: Mapping[str, Any], where: str) -> list[Price]:
    version = data.get("version")
    if not isinstance(version, str):
        raise Misconfigured(f'{where}: a price table has a `version`, such as "2026-11-01".')
    return [_price(row, version, where) for row in data.get("price", [])]


def _price(row: Mapping[str, Any], version: str, where: str) -> Price:
    try:
        return Price(
            price_id=str(row["id"]),
            version=version,
            input_per_mtok=_amount(row["input"]),
            cached_input_per_mtok=_amount(row.get("cached_input", row["input"])),
            output_per_mtok=_amount(row["output"]),
            effective_at=datetime.fromisoformat(str(row["effective_at"])).replace(tzinfo=UTC),
        )
    except (KeyError, ValueError) as wrong:
        raise Misconfigured(f"{where}: price {row.get('id', '?')!r}: {wrong}") from None


def _amount(value: object) -> NanoUSD:
    if not isinstance(value, str):
        raise ValueError('amounts are written as text, such as "2.50"')
    return parse_usd(value)


def _prompt_sets(path: Path | None) -> dict[str, PromptSet]:
    if path is None:
        return {}
    sets: dict[str, PromptSet] = {}
    for name, row in _toml(path).items():
        try:
            kinds = {Kind(kind): RolePrompts(**texts) for kind, texts in row.pop("kinds").items()}
            sets[name] = PromptSet(name=name, kinds=kinds, **row)
        except (KeyError, TypeError, ValueError, AttributeError) as wrong:
            raise Misconfigured(f"{path}: prompt set {name!r}: {wrong}") from None
    return sets


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as wrong:
        raise Misconfigured(f"{path}: {wrong}") from None
