"""Spend measured elsewhere, on the same budget: reported, listed, never changed.

A record is append-only, like the ledger it is booked in. One that was too high is corrected by raising the cap by the
difference, or by reporting that much less next time; one that was too low by reporting the rest.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.core.errors import BadRequest
from cope.core.ids import USAGE, KeyId, ProjectId, UsageId
from cope.core.money import NANO_PER_USD, NanoUSD, format_usd
from cope.core.records import UsageRecord
from cope.core.request_values import as_int, as_text, as_usd
from cope.ports.spend import NewUsage
from cope.ports.store import Principal
from cope_api.context import (
    Gate,
    clean_id,
    json_object,
    limit_of,
    list_body,
    only_keys,
    parts_of,
    project_of,
    project_row,
    raw_body,
    seconds,
    text_query,
)
from cope_api.failures import json_response

router = APIRouter()
_KEYS = frozenset({"amount_usd", "occurred_at", "model", "description", "id", "project_id"})
_MOST = NanoUSD(1_000_000 * NANO_PER_USD)
_LONGEST_REFERENCE = 255
_LATEST = timedelta(minutes=5)


@router.post("/v1/usage")
async def report(request: Request) -> Response:
    """Count what was spent elsewhere in this month's budget of the project, and of the key that reports it. It was
    spent already, so it counts over the cap too; then nothing more is granted until the cap covers it."""
    parts, gate = parts_of(request), cast("Gate", request.app.state.gate)
    principal = await gate.principal(request)
    body = json_object(await raw_body(request))
    only_keys(body, _KEYS)
    project_id, key_id = await _whose(request, principal, body)
    amount = _amount(body.get("amount_usd"))
    occurred_at = _occurred(body.get("occurred_at"), parts.clock.now())
    model, description = (
        None if body.get(name) is None else as_text(body[name], name, longest=longest)
        for name, longest in (("model", 200), ("description", 1000))
    )
    same = [int(amount), seconds(occurred_at), model, description]
    record = await parts.store.record_usage(
        NewUsage(
            id=UsageId(parts.ids.new(USAGE)),
            project_id=project_id,
            key_id=key_id,
            amount=amount,
            occurred_at=occurred_at,
            model=model,
            description=description,
            reference=_reference(request, body),
            body_hash=hashlib.sha256(orjson.dumps(same)).digest(),
        )
    )
    return json_response(usage_json(record))


@router.get("/v1/usage")
async def list_usage(request: Request) -> Response:
    """The project's reports, newest first."""
    parts, project_id, _ = await project_of(request)
    after, limit = text_query(request, "after"), limit_of(request, default=20, most=100)
    records = await parts.store.list_usage(project_id, after=None if after is None else UsageId(after), limit=limit + 1)
    return json_response(list_body([usage_json(record) for record in records[:limit]], has_more=len(records) > limit))


def usage_json(record: UsageRecord) -> dict[str, Any]:
    """As it was recorded; `month` is the one whose budget it counts in, `reference` the caller's own id."""
    return {
        "id": record.id,
        "object": "cope.usage",
        "project_id": record.project_id,
        "key_id": record.key_id,
        "amount_usd": format_usd(record.amount),
        "month": record.month,
        "occurred_at": seconds(record.occurred_at),
        "reported_at": seconds(record.reported_at),
        "model": record.model,
        "description": record.description,
        "reference": record.reference,
    }


async def _whose(request: Request, principal: Principal, body: dict[str, Any]) -> tuple[ProjectId, KeyId | None]:
    """A key reports for its project and itself; the operator names the project."""
    named = body.get("project_id")
    if principal.project_id is not None:
        if named is not None and named != principal.project_id:
            raise BadRequest("`project_id` names another project than this key's: leave it out.", param="project_id")
        return principal.project_id, principal.key_id
    if named is None:
        raise BadRequest("`project_id` is missing: the admin key belongs to no project.", param="project_id")
    wanted = ProjectId(clean_id(as_text(named, "project_id", longest=64)))
    return (await project_row(parts_of(request), wanted)).id, None


def _amount(value: object) -> NanoUSD:
    if isinstance(value, (str, int)) and str(value).lstrip().startswith("-"):
        raise BadRequest(
            "`amount_usd` must be above 0: what was recorded is never taken back. If a report was too high, raise the "
            "cap by the difference, or report that much less next time.",
            param="amount_usd",
        )
    if value is None:
        raise BadRequest('`amount_usd` is missing: an amount of dollars as text, such as "0.25".', param="amount_usd")
    amount = as_usd(value, "amount_usd")
    if not 0 < amount <= _MOST:
        raise BadRequest("`amount_usd` must be above 0 and at most 1000000.", param="amount_usd")
    return amount


def _occurred(value: object, now: datetime) -> datetime | None:
    """Unix seconds, not in the future; kept for looking at: what counts is the month of the report."""
    if value is None:
        return None
    latest = int((now + _LATEST).timestamp())
    return datetime.fromtimestamp(as_int(value, "occurred_at", low=0, high=latest), UTC)


def _reference(request: Request, body: dict[str, Any]) -> str | None:
    header = request.headers.get("idempotency-key")
    own = None if body.get("id") is None else as_text(body["id"], "id", longest=_LONGEST_REFERENCE)
    if header is not None and not 0 < len(header) <= _LONGEST_REFERENCE:
        raise BadRequest(f"`Idempotency-Key` must have 1 to {_LONGEST_REFERENCE} characters.", param="Idempotency-Key")
    if header is not None and own is not None and header != own:
        raise BadRequest("`id` and `Idempotency-Key` differ: give one of them, or the same in both.", param="id")
    if header is None and own is None and request.headers.get("x-stainless-retry-count", "0") != "0":
        raise BadRequest(
            "This is a client's own retry of a report without an `id`: whether the first one was counted can't be "
            "told, so it is not counted again. See GET /v1/usage, and give reports an `id`.",
            param="id",
        )
    return own if own is not None else header
