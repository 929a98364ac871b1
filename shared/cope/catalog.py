"""The configured models, prompt sets and prices, from settings and the files they name."""

import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from cope.core.errors import Misconfigured
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.money import NanoUSD, Price, parse_usd
from cope.core.prices import PriceTable
from cope.core.problem import Kind
from cope.core.prompts import BUILT_IN, PromptSet, RolePrompts
from cope.core.stages import Tier
from cope.endpoints import check_groups, check_limits, endpoints_of, key_of
from cope.settings import Settings

# `endpoint` is set when a model is asked for at one of its endpoints; a key is never written in a file.
_ENTRY_KEYS = (frozenset(ModelEntry.__dataclass_fields__) | {"api_key_env", "default"}) - {
    "api_key",
    "endpoint",
    "endpoints",
}


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
    check_groups(entries.values())
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
    endpoints = endpoints_of(row, path)
    if endpoints and "base_url" not in row:
        row = {**row, "base_url": endpoints[0].base_url}
    for key in ("name", "base_url", "tier", "context_length"):
        if key not in row:
            raise Misconfigured(f"{path}: a [[model]] lacks {key!r}.")
    if row["tier"] not in {"small", "paid"}:
        raise Misconfigured(f'{path}: tier must be "small" or "paid", not {row["tier"]!r}.')
    check_limits(row, f"{path}: model {row['name']!r}")
    values = {key: value for key, value in row.items() if key not in {"api_key_env", "default", "endpoint"}}
    return ModelEntry(
        **{
            "served_name": row["name"],
            "prompt_set": "instruct",
            **values,
            "tier": Tier.SMALL if row["tier"] == "small" else Tier.LARGE,
            "unsupported": frozenset(row.get("unsupported", ())),
            "api_key": key_of(row, f"{path}: model {row['name']!r}"),
            "endpoints": endpoints,
        }
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
