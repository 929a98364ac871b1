"""The configured models, prompt sets and prices, from settings and the files they name."""

import json
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from cope.core.errors import Misconfigured
from cope.core.models import BatchTier, ModelCatalog, ModelEntry
from cope.core.money import NanoUSD, Price, PriceOrigin, parse_usd
from cope.core.prices import TIERS, PriceTable, parse_moment, split_price_id
from cope.core.problem import Kind
from cope.core.prompts import BUILT_IN, PromptSet, RolePrompts, Shot
from cope.core.scorer import Scorer, decode_scorer
from cope.core.stages import Tier
from cope.endpoints import check_groups, check_limits, endpoints_of, key_of
from cope.settings import Settings

_PRICE_KEYS = frozenset(
    {"id", "tier", "version", "effective_at", "effective_until", "input", "cached_input", "output", "source"}
)
_BATCH_KEYS = {
    "batch_min": ("min_lines", int),
    "batch_max_lines": ("max_lines", int),
    "batch_max_wait_s": ("max_wait_s", float),
    "batch_turnaround_s": ("turnaround_s", float),
    "batch_margin_s": ("margin_s", float),
    "batch_poll_s": ("poll_s", float),
    "batch_window": ("window", str),
    "batch_price_id": ("price_id", str),
}
# `endpoint` is set when a model is asked for at one of its endpoints; a key is never written in a file.
_ENTRY_KEYS = (
    (frozenset(ModelEntry.__dataclass_fields__) - {"batch", "api_key", "endpoint", "endpoints"})
    | {"api_key_env", "default", "batch_tier"}
    | frozenset(_BATCH_KEYS)
)


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
    check_groups(entries.values())
    scorers = load_scorers(settings.scorers_dir)
    runs_programs = settings.sandbox_processes > 0
    return ModelCatalog(entries, defaults[Tier.SMALL], defaults[Tier.LARGE], prompt_sets, scorers, runs_programs)


def load_scorers(folder: Path | None) -> dict[str, Scorer]:
    """FrugalGPT's scorers by name, from every `*.json` of a folder. Raises `Misconfigured` naming the file."""
    if folder is None:
        return {}
    if not folder.is_dir():
        raise Misconfigured(f"COPE_SCORERS_DIR: {folder} is not a folder.")
    scorers: dict[str, Scorer] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            scorer = decode_scorer(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as wrong:
            raise Misconfigured(f"{path}: {wrong}") from None
        if scorer.name in scorers:
            raise Misconfigured(f"{path}: there is another scorer named {scorer.name!r} in this folder.")
        scorers[scorer.name] = scorer
    return scorers


def load_prices(settings: Settings) -> PriceTable:
    """The shipped table and, over it, the rows of COPE_PRICES_FILE. Raises `Misconfigured`.

    A price id that the file names has the file's rows alone, in every tier. What operators add is in the store.
    """
    shipped = tomllib.loads(resources.files("cope").joinpath("data/prices.toml").read_text())
    rows = _prices(shipped, "the shipped table", "shipped")
    if settings.prices_file is not None:
        own = _prices(_toml(settings.prices_file), str(settings.prices_file), "file")
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
        logprobs=settings.small_logprobs,
    )
    large = ModelEntry(
        name=settings.large_model,
        served_name=settings.large_model,
        base_url=settings.large_base_url,
        tier=Tier.LARGE,
        prompt_set=settings.large_prompt_set,
        context_length=settings.large_context,
        price_id=settings.large_price or settings.large_model,
        api_key=settings.large_api_key.get_secret_value(),
        rpm=settings.large_rpm,
        tpm=settings.large_tpm,
        concurrency=settings.large_concurrency,
        output_limit_field=settings.large_output_limit_field,
        timeout_s=settings.large_timeout_s,
        batch=_large_batch_tier(settings),
    )
    if small.name == large.name:
        raise Misconfigured("COPE_SMALL_MODEL and COPE_LARGE_MODEL are the same: name two models.")
    return {small.name: small, large.name: large}, {Tier.SMALL: small.name, Tier.LARGE: large.name}


def _large_batch_tier(settings: Settings) -> BatchTier | None:
    given = {
        "batch_tier": settings.large_batch_tier,
        "batch_min": settings.large_batch_min,
        "batch_turnaround_s": settings.large_batch_turnaround_s if settings.large_batch_tier else None,
        "batch_price_id": settings.large_batch_price or None,
    }
    row = {key: value for key, value in given.items() if value is not None}
    return _batch_tier({"tier": "paid", **row}, "COPE_LARGE_BATCH_*")


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
    if endpoints and row.get("batch_tier") and not ("base_url" in row and "api_key_env" in row):
        raise Misconfigured(
            f"{path}: model {row.get('name')!r}: batch_tier sends to the model's own address, not to an endpoint's: "
            "give the [[model]] its `base_url` and `api_key_env`."
        )
    if endpoints and "base_url" not in row:
        row = {**row, "base_url": endpoints[0].base_url}
    for key in ("name", "base_url", "tier", "context_length"):
        if key not in row:
            raise Misconfigured(f"{path}: a [[model]] lacks {key!r}.")
    if row["tier"] not in {"small", "paid"}:
        raise Misconfigured(f'{path}: tier must be "small" or "paid", not {row["tier"]!r}.')
    if row.get("logprobs", "none") not in {"none", "original", "temperature_scaled"}:
        raise Misconfigured(f'{path}: logprobs is "none", "original" or "temperature_scaled", not {row["logprobs"]!r}.')
    named = {"api_key_env", "default", "endpoint", "batch_tier", *_BATCH_KEYS}
    values = {key: value for key, value in row.items() if key not in named}
    served_name = row.get("served_name", row["name"])
    check_limits(row, f"{path}: model {row['name']!r}")
    return ModelEntry(
        **{
            "served_name": served_name,
            "prompt_set": "instruct",
            "price_id": served_name if row["tier"] == "paid" else None,  # a paid model is priced by its own name
            **values,
            "tier": Tier.SMALL if row["tier"] == "small" else Tier.LARGE,
            "unsupported": frozenset(row.get("unsupported", ())),
            "batch": _batch_tier(row, f"{path}: model {row['name']!r}"),
            "api_key": key_of(row, f"{path}: model {row['name']!r}"),
            "endpoints": endpoints,
        }
    )


def _batch_tier(row: Mapping[str, Any], where: str) -> BatchTier | None:
    """What a [[model]] says of its provider's own Batch API; None unless `batch_tier = true`."""
    on = row.get("batch_tier", False)
    if not isinstance(on, bool):
        raise Misconfigured(f"{where}: batch_tier is true or false, not {on!r}.")
    given = {key: row[key] for key in _BATCH_KEYS if key in row}
    if not on:
        for key in given:
            raise Misconfigured(f"{where}: {key} says nothing without batch_tier = true.")
        return None
    if row["tier"] != "paid":
        raise Misconfigured(f'{where}: batch_tier is for tier = "paid": a small model\'s calls are free.')
    values: dict[str, Any] = {}
    for key, value in given.items():
        name, kind = _BATCH_KEYS[key]
        fits = isinstance(value, str) if kind is str else isinstance(value, int | float) and value > 0
        if not fits or isinstance(value, bool) or (kind is int and not isinstance(value, int)):
            wanted = {int: "a whole number above 0", float: "a number above 0", str: "a text"}[kind]
            raise Misconfigured(f"{where}: {key} is {wanted}, not {value!r}.")
        values[name] = kind(value)
    tier = BatchTier(**values)
    if tier.max_lines < tier.min_lines:
        raise Misconfigured(f"{where}: batch_max_lines ({tier.max_lines}) is below batch_min ({tier.min_lines}).")
    return tier


def _prices(data: Mapping[str, Any], where: str, origin: PriceOrigin) -> list[Price]:
    version = data.get("version")
    if not isinstance(version, str):
        raise Misconfigured(f'{where}: a price table has a `version`, such as "2026-11-01".')
    rows = [_price(row, version, where, origin) for row in data.get("price", [])]
    seen: set[tuple[str, str, str]] = set()
    for row in rows:
        if row.key in seen:
            raise Misconfigured(
                f"{where}: price {row.price_id!r} ({row.tier}) stands twice with version {row.version!r}: give one of "
                "them a `version` of its own."
            )
        seen.add(row.key)
    return rows


def _price(row: Mapping[str, Any], version: str, where: str, origin: PriceOrigin) -> Price:
    try:
        for key in row:
            if key not in _PRICE_KEYS:
                raise ValueError(f"unknown key {key!r}; known keys: {', '.join(sorted(_PRICE_KEYS))}")
        tier = row.get("tier", "standard")
        if tier not in TIERS:
            raise ValueError(f'tier must be "standard" or "batch", not {tier!r}')
        price_id, tier = split_price_id(str(row["id"]), tier)
        until = row.get("effective_until")
        price = Price(
            price_id=price_id,
            version=str(row.get("version", version)),
            input_per_mtok=_amount(row["input"]),
            cached_input_per_mtok=_amount(row.get("cached_input", row["input"])),
            output_per_mtok=_amount(row["output"]),
            effective_at=parse_moment(str(row["effective_at"])),
            tier=tier,
            effective_until=None if until is None else parse_moment(str(until)),
            origin=origin,
            source=str(row.get("source", "")),
            added_by=where,
        )
        if price.effective_until is not None and price.effective_until <= price.effective_at:
            raise ValueError("effective_until lies before effective_at")
    except KeyError as missing:
        raise Misconfigured(f"{where}: price {row.get('id', '?')!r} lacks {missing}.") from None
    except ValueError as wrong:
        raise Misconfigured(f"{where}: price {row.get('id', '?')!r}: {wrong}") from None
    return price


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
            shots = {Kind(kind): tuple(map(_shot, given)) for kind, given in row.pop("shots", {}).items()}
            for kind in shots:
                if kind not in kinds:
                    raise ValueError(f"there are shots for kind {kind.value!r}, and no prompts")
            sets[name] = PromptSet(name=name, kinds=kinds, shots=shots, **row)
        except (KeyError, TypeError, ValueError, AttributeError) as wrong:
            raise Misconfigured(f"{path}: prompt set {name!r}: {wrong}") from None
    return sets


def _shot(row: Mapping[str, Any]) -> Shot:
    return Shot(**{**row, "choices": tuple(row.get("choices", ()))})


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as wrong:
        raise Misconfigured(f"{path}: {wrong}") from None
