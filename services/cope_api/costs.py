"""Costs, in the shape of OpenAI's admin client, with exact amounts beside the client's numbers."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.core.errors import BadRequest
from cope.core.ledger import CostKind, CostRow, Cut, merged
from cope.core.money import NANO_PER_USD, NanoUSD, format_usd
from cope_api.context import limit_of
from cope_api.failures import json_response
from cope_api.money_scope import (
    Seen,
    days_of,
    moment_query,
    month_days,
    month_query,
    months_between,
    seen_by,
    span_s,
    texts,
)

router = APIRouter()

_LINE_ITEM = "line_item"
_GROUPS: Mapping[str, Cut | str] = {
    "project": Cut.PROJECT,
    "project_id": Cut.PROJECT,
    "key": Cut.KEY,
    "api_key_id": Cut.KEY,
    "batch": Cut.BATCH,
    "batch_id": Cut.BATCH,
    "model": Cut.MODEL,
    "stage": Cut.STAGE,
    "step": Cut.STEP,
    "price_version": Cut.PRICE_VERSION,
    "day": Cut.DAY,
    _LINE_ITEM: _LINE_ITEM,
}
_MOST_DAYS = 366 * 20


@dataclass(frozen=True, slots=True)
class _Query:
    first: date
    last: date
    monthly: bool
    cuts: frozenset[Cut]
    by_item: bool
    items: tuple[str, ...]


@router.get("/v1/organization/costs")
async def costs(request: Request) -> Response:
    """What was spent, in buckets of a day (or, as an extension, a month) of the project's own time zone.

    Whole days are told: the ones that the span touches. A call counts on the day of its reservation.
    """
    seen = await seen_by(request)
    query = _query(request, seen)
    limit = limit_of(request, default=7 if not query.monthly else 12, most=180)
    starts = _starts(query)
    place = _place(request, starts)
    shown = starts[place : place + limit]
    buckets: dict[date, list[CostRow]] = defaultdict(list)
    if shown:
        for row in await _rows(seen, query, shown[0], _end_of(shown[-1], query)):
            bucket = row.day if not query.monthly else date.fromisoformat(f"{row.month}-01")
            buckets[bucket or query.first].append(replace(row, day=None, month=None))
    more = place + limit < len(starts)
    return json_response(
        {
            "object": "page",
            "data": [_bucket(start, buckets[start], query, seen) for start in shown],
            "has_more": more,
            "next_page": f"page_{starts[place + limit].isoformat()}" if more else None,
            "cope": await _apart(seen, query),
        }
    )


def _query(request: Request, seen: Seen) -> _Query:
    width = request.query_params.get("bucket_width", "1d")
    if width not in {"1d", "1mo"}:
        raise BadRequest("`bucket_width` must be 1d or 1mo.", param="bucket_width")
    groups = texts(request, "group_by")
    for group in groups:
        if group not in _GROUPS:
            known = ", ".join(_GROUPS)
            raise BadRequest(f"`group_by` can't be {group!r} here. It may be: {known}.", param="group_by")
    cuts = frozenset(cut for cut in map(_GROUPS.__getitem__, groups) if isinstance(cut, Cut))
    first, last = _days(request, seen)
    return _Query(first, last, width == "1mo", cuts - {Cut.DAY}, _LINE_ITEM in groups, _items(request))


def _items(request: Request) -> tuple[str, ...]:
    """Names of line items hold commas, so these come one by one."""
    return tuple(request.query_params.getlist("line_items[]") or request.query_params.getlist("line_items"))


def _days(request: Request, seen: Seen) -> tuple[date, date]:
    month, start, until = (
        month_query(request),
        moment_query(request, "start_time"),
        moment_query(request, "end_time"),
    )
    if month is not None:
        if start is not None or until is not None:
            raise BadRequest("Give `month`, or `start_time` and `end_time`.", param="month")
        return month_days(month)
    if start is None:
        raise BadRequest("`start_time` is missing: Unix seconds; or give `month`, such as 2026-11.", param="start_time")
    until = until or max(seen.parts.clock.now(), start + timedelta(seconds=1))
    first, last = days_of(start, until, seen.time_zone)
    if last < first or (last - first).days > _MOST_DAYS:
        raise BadRequest("`end_time` must be after `start_time`, by at most 20 years.", param="end_time")
    return first, last


def _starts(query: _Query) -> list[date]:
    if query.monthly:
        return list(months_between(query.first, query.last))
    return [query.first + timedelta(days=number) for number in range((query.last - query.first).days + 1)]


def _end_of(start: date, query: _Query) -> date:
    return min(query.last, month_days(f"{start:%Y-%m}")[1]) if query.monthly else start


def _place(request: Request, starts: list[date]) -> int:
    page = request.query_params.get("page")
    if page is None:
        return 0
    found = {f"page_{start.isoformat()}": place for place, start in enumerate(starts)}
    if page not in found:
        raise BadRequest("`page` must be the `next_page` of an answer to the same question.", param="page")
    return found[page]


async def _rows(seen: Seen, query: _Query, first: date, last: date) -> list[CostRow]:
    cuts = query.cuts | {Cut.MONTH if query.monthly else Cut.DAY}
    if query.by_item or query.items:
        cuts |= {Cut.MODEL}
    first = max(first, query.first)
    rows = await seen.parts.store.costs(seen.scope, first=first, last=last, cuts=frozenset(cuts))
    if query.items:
        rows = [row for row in rows if row.line_item in query.items]
    if query.items and not query.by_item and Cut.MODEL not in query.cuts:
        rows = merged(replace(row, model=None) for row in rows)
    return rows


def _bucket(start: date, rows: list[CostRow], query: _Query, seen: Seen) -> dict[str, Any]:
    end = _end_of(start, query)
    begins, ends = span_s(max(start, query.first), end, seen.time_zone)
    return {
        "object": "bucket",
        "start_time": begins,
        "end_time": ends,
        "results": [_result(row, query) for row in rows],
        "cope": {"day": None if query.monthly else start.isoformat(), "month": f"{start:%Y-%m}"},
    }


def _result(row: CostRow, query: _Query) -> dict[str, Any]:
    """Spend of another kind than calls is never mixed with them: it is a result of its own, and named as one."""
    own_name = None if row.kind is CostKind.CALLS else row.kind.value
    return {
        "object": "organization.costs.result",
        "amount": {"value": _number(row.amount), "currency": "usd"},
        "line_item": row.line_item if query.by_item else own_name,
        "project_id": row.project_id,
        "api_key_id": row.key_id,
        "user_id": None,
        "quantity": None,
        "cope": {
            "kind": row.kind.value,
            "amount_usd": format_usd(row.amount),
            "amount_nanousd": int(row.amount),
            "batch_id": row.batch_id,
            "model": row.model,
            "stage": row.stage,
            "step": row.step,
            "price_version": row.price_version,
            "steps": row.attempts,
            "calls": row.usage.calls,
            "prompt_tokens": row.usage.prompt,
            "cached_tokens": row.usage.cached,
            "completion_tokens": row.usage.completion,
            "reasoning_tokens": row.usage.reasoning,
        },
    }


def _number(amount: NanoUSD) -> orjson.Fragment:
    """A JSON number with every digit: what a client makes of it is the client's."""
    whole, nano = divmod(abs(amount), NANO_PER_USD)
    return orjson.Fragment(f"{'-' if amount < 0 else ''}{whole}.{nano:09d}")


async def _apart(seen: Seen, query: _Query) -> dict[str, Any]:
    """What is no cost yet, of the months that the span touches."""
    months = {"first": f"{query.first:%Y-%m}", "last": f"{query.last:%Y-%m}"}
    budgets = await seen.parts.store.month_budgets(seen.scope, **months)
    reserved, unconfirmed = (
        NanoUSD(sum(getattr(budget, name) for budget in budgets)) for name in ("reserved", "unconfirmed")
    )
    note = "Days are those of each project's own zone." if seen.mixed_zones else None
    return {
        "time_zone": seen.time_zone,
        "note": note,
        "months": [months["first"], months["last"]],
        "reserved_usd": format_usd(reserved),
        "reserved_nanousd": int(reserved),
        "unconfirmed_usd": format_usd(unconfirmed),
        "unconfirmed_nanousd": int(unconfirmed),
    }
