"""The price table for the operator: what is in force, every version, adding rows, and what a row would change."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.bootstrap import ApiParts
from cope.core.errors import BadRequest
from cope.core.money import NANO_PER_USD, NanoUSD, Price, PriceTier, parse_usd
from cope.core.policies.spec import PolicySpec
from cope.core.price_changes import (
    in_force,
    next_version,
    objections,
)
from cope.core.priced import refuse_unpriced
from cope.core.prices import TIERS, PriceTable, parse_moment, split_price_id
from cope.core.request_values import as_choice, as_int, as_mapping, as_text
from cope.usecases.watch_prices import reread, reread_or_go_on
from cope_api.context import admin_of, json_object, list_body, only_keys, raw_body, text_query
from cope_api.failures import json_response
from cope_api.price_json import Change, diff_json, price_json

router = APIRouter()

_ROW_KEYS = frozenset(
    {
        "price_id", "tier", "version", "input", "cached_input", "output", "effective_at", "effective_until", "source",
    }
)  # fmt: skip
_BODY_KEYS = frozenset({"prices", "dry_run", "force", "reason", "added_by", "days"}) | _ROW_KEYS
_MOST_ROWS = 100
_MOST_PER_MTOK = NanoUSD(1_000_000 * NANO_PER_USD)  # beyond it a worst case might not fit a BIGINT
_DAYS, _MOST_DAYS = 30, 366
_LATEST = 253_402_300_799  # the last second of the year 9999


async def check_priced(parts: ApiParts, policy: PolicySpec) -> None:
    """Raises `BadRequest` (`model_not_priced`) unless all that this policy may call has a price in force. Looks at the
    store again before it refuses: the price may have been added through another process a moment ago."""
    try:
        refuse_unpriced(policy, parts.catalog, parts.prices, parts.clock.now())
    except BadRequest:
        await reread_or_go_on(parts.store, parts.prices)
        refuse_unpriced(policy, parts.catalog, parts.prices, parts.clock.now())


@router.get("/v1/organization/prices")
async def list_prices(request: Request) -> Response:
    """The rows in force at `at` (now); with `versions=all` every row, newest first. `price_id` and `tier` filter."""
    parts = await admin_of(request)
    await reread(parts.store, parts.prices)
    now = parts.clock.now()
    told = text_query(request, "at")
    at = now if told is None else _moment(int(told) if told.isascii() and told.isdigit() else told, "at")
    versions = as_choice(request.query_params.get("versions", "in_force"), "versions", ("in_force", "all"))
    price_id, tier = text_query(request, "price_id"), text_query(request, "tier")
    if price_id is not None:
        price_id, split = split_price_id(price_id)
        tier = split if split != "standard" else tier
    if tier is not None:
        as_choice(tier, "tier", TIERS)
    rows = [
        row
        for row in parts.prices.history
        if (price_id is None or row.price_id == price_id)
        and (tier is None or row.tier == tier)
        and (versions == "all" or parts.prices.status(row, at) == "in_force")
    ]
    rows.sort(key=lambda row: (row.effective_at, row.added_at or row.effective_at), reverse=True)
    rows.sort(key=lambda row: (row.price_id, TIERS.index(row.tier)))
    return json_response(list_body([price_json(row, parts.prices, at) for row in rows], has_more=False))


@router.post("/v1/organization/prices")
async def add_prices(request: Request) -> Response:
    """Add rows, all or none; with `dry_run` only say what they would change. What looks like a slip is refused unless
    `force` and a `reason` come with it."""
    parts = await admin_of(request)
    body = json_object(await raw_body(request))
    only_keys(body, _BODY_KEYS)
    dry_run, force = _flag(body, "dry_run"), _flag(body, "force")
    days = as_int(body.get("days", _DAYS), "days", low=1, high=_MOST_DAYS)
    reason = as_text(body.get("reason", ""), "reason", longest=1000, allow_empty=True)
    await reread(parts.store, parts.prices)
    changes = _changes(parts, body, reason=reason)
    if dry_run:
        return json_response(list_body([await diff_json(parts, change, days) for change in changes], has_more=False))
    _refuse(changes, force=force, reason=reason)
    added = await parts.store.add_prices([change.row for change in changes])
    parts.prices.learn(added)
    now = parts.clock.now()
    return json_response(list_body([price_json(row, parts.prices, now) for row in added], has_more=False))


def _flag(body: Mapping[str, object], key: str) -> bool:
    value = body.get(key, False)
    if not isinstance(value, bool):
        raise BadRequest(f"`{key}` must be true or false.", param=key)
    return value


def _changes(parts: ApiParts, body: Mapping[str, object], *, reason: str) -> list[Change]:
    """The proposed rows in order, each looked at as if those before it were added already."""
    added_by = as_text(body.get("added_by", "the admin key"), "added_by", longest=200)
    now, table = parts.clock.now(), parts.prices
    found = []
    for given, where in _rows(body):
        row = _parse(given, where, table, now)
        found_against = objections(row, table, now)
        row = replace(row, added_by=added_by, added_at=now, reason=reason)
        found.append(Change(row, in_force(table, row, max(now, row.effective_at)), found_against))
        table = table.plus(row)
    return found


def _rows(body: Mapping[str, object]) -> list[tuple[Mapping[str, object], str]]:
    if "prices" not in body:
        return [({key: value for key, value in body.items() if key in _ROW_KEYS}, "")]
    several = body["prices"]
    if not isinstance(several, list) or not 1 <= len(several) <= _MOST_ROWS:
        raise BadRequest(f"`prices` must be a list of 1 to {_MOST_ROWS} rows.", param="prices")
    for key in sorted(_ROW_KEYS & body.keys()):
        raise BadRequest(f"`{key}` belongs to a row of `prices`.", param=key)
    rows = []
    for place, item in enumerate(several):
        row = as_mapping(item, f"prices[{place}]")
        only_keys(row, _ROW_KEYS)
        rows.append((row, f"prices[{place}]."))
    return rows


def _parse(given: Mapping[str, object], where: str, table: PriceTable, now: datetime) -> Price:
    tier: PriceTier = (
        "batch" if as_choice(given.get("tier", "standard"), f"{where}tier", TIERS) == "batch" else "standard"
    )
    price_id, tier = split_price_id(as_text(given.get("price_id"), f"{where}price_id", longest=256), tier)
    effective_at = now.replace(microsecond=0)
    if given.get("effective_at") is not None:
        effective_at = _moment(given["effective_at"], f"{where}effective_at")
    until = None
    if given.get("effective_until") is not None:
        until = _moment(given["effective_until"], f"{where}effective_until")
        if until <= effective_at:
            raise BadRequest("`effective_until` must be later than `effective_at`.", param=f"{where}effective_until")
    version = next_version(table, price_id, tier, now)
    if given.get("version") is not None:
        version = as_text(given["version"], f"{where}version", longest=64)
    return Price(
        price_id=price_id,
        version=version,
        input_per_mtok=_amount(given.get("input"), f"{where}input"),
        cached_input_per_mtok=_amount(given.get("cached_input", given.get("input")), f"{where}cached_input"),
        output_per_mtok=_amount(given.get("output"), f"{where}output"),
        effective_at=effective_at,
        tier=tier,
        effective_until=until,
        origin="operator",
        source=as_text(given.get("source"), f"{where}source", longest=2000),
    )


def _amount(value: object, param: str) -> NanoUSD:
    if not isinstance(value, str):
        raise BadRequest(
            f'`{param}` must be an amount of USD per million tokens, as text: "2.50", never a float.', param=param
        )
    try:
        amount = parse_usd(value)
    except ValueError as wrong:
        raise BadRequest(f"`{param}`: {wrong}.", param=param) from None
    if amount > _MOST_PER_MTOK:
        raise BadRequest(f"`{param}` is over a million dollars per million tokens.", param=param)
    return amount


def _moment(value: object, param: str) -> datetime:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LATEST:
        return datetime.fromtimestamp(value, UTC)
    if isinstance(value, str):
        try:
            return parse_moment(value)
        except (ValueError, OverflowError):
            pass
    raise BadRequest(
        f"`{param}` must be unix seconds or a moment such as 2026-12-01T00:00:00Z (UTC where no zone is given).",
        param=param,
    )


def _refuse(changes: list[Change], *, force: bool, reason: str) -> None:
    against = [(change.row, objection) for change in changes for objection in change.objections]
    if not against or (force and reason):
        return
    if force:
        raise BadRequest("`force` needs a `reason`: it is stored with the row.", param="reason", code="reason_missing")
    lines = " ".join(f"{row.price_id} ({row.tier}): {objection.message}" for row, objection in against)
    raise BadRequest(
        f"{lines} If that is meant: repeat with `force` and a `reason` (cope prices add … --force --reason TEXT).",
        param="force",
        code=against[0][1].code,
    )
