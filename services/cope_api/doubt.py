"""Unconfirmed money: which calls were sent and never heard of again, and settling them by a provider's records."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.bootstrap import ApiParts
from cope.core.errors import BadRequest, TooLarge
from cope.core.ids import AttemptId, ProjectId
from cope.core.ledger import AgeGroup, BookedAttempt
from cope.core.money import NanoUSD, format_usd
from cope.core.reconcile import UNSETTLED, BilledCall
from cope.usecases.count_unknown import count_unknown, is_whole, uncounted
from cope.usecases.reconcile import Entry, Orders, Reconciliation, reconcile
from cope_api.context import admin_of, clean_id, limit_of, project_row, seconds, text_query
from cope_api.failures import json_response
from cope_api.money_scope import seen_by

router = APIRouter()
_AGES = {3_600: "1h", 86_400: "1d", 604_800: "7d", 2_592_000: "30d"}


@router.get("/v1/organization/unconfirmed")
async def unconfirmed(request: Request) -> Response:
    """Attempts whose outcome nobody knows, the oldest first: until it is known their reserve counts under the caps."""
    seen = await seen_by(request)
    if seen.scope.project_ids is not None:
        raise BadRequest("List one project, with `project_id`, or all of them, without.", param="project_ids")
    after = text_query(request, "after")
    items, more = await seen.parts.store.unconfirmed(
        seen.scope.project_id,
        after=None if after is None else AttemptId(after),
        limit=limit_of(request, default=100, most=1000),
    )
    ages, now = await seen.parts.store.unconfirmed_ages(seen.scope.project_id), seen.parts.clock.now()
    total = NanoUSD(sum(group.amount for group in ages))
    return json_response(
        {
            "object": "list",
            "data": [_doubtful(item, now) for item in items],
            "first_id": items[0].id if items else None,
            "last_id": items[-1].id if items else None,
            "has_more": more,
            "cope": {
                "attempts": sum(group.attempts for group in ages),
                "unconfirmed_usd": format_usd(total),
                "unconfirmed_nanousd": int(total),
                "by_age": [_age(group) for group in ages],
            },
        }
    )


def _age(group: AgeGroup) -> dict[str, Any]:
    older, under = _AGES.get(group.from_s), None if group.until_s is None else _AGES[group.until_s]
    return {
        "age": f"under {under}" if older is None else f"over {older}" if under is None else f"{older} to {under}",
        "from_s": group.from_s,
        "until_s": group.until_s,
        "attempts": group.attempts,
        "reserved_usd": format_usd(group.amount),
        "reserved_nanousd": int(group.amount),
    }


def _doubtful(attempt: BookedAttempt, now: datetime) -> dict[str, Any]:
    sent_at = attempt.sent_at or now
    return {
        "id": attempt.id,
        "object": "cope.unconfirmed",
        "project_id": attempt.project_id,
        "api_key_id": attempt.key_id,
        "batch_id": attempt.batch_id,
        "task_id": attempt.task_id,
        "step": attempt.step,
        "model": attempt.model,
        "request_id": attempt.request_id,
        "month": attempt.month,
        "reserved_usd": format_usd(attempt.reserved),
        "reserved_nanousd": int(attempt.reserved),
        "price_version": attempt.price_version,
        "sent_at": seconds(attempt.sent_at),
        "age_s": max(0, int((now - sent_at).total_seconds())),
    }


@router.post("/v1/organization/reconcile")
async def reconcile_books(request: Request) -> Response:
    """The body is a provider's usage export as CSV. Nothing is written unless `apply=true`.

    `complete_from` and `complete_until` (Unix seconds) say that the file holds every call of that span. Calls under ids
    like ours that nobody here made are counted as spend of the project `unknown_to`, each once.
    """
    parts = await admin_of(request)
    orders = Orders(
        apply=_flag(request, "apply"), apply_differences=_flag(request, "apply_differences"), complete=_span(request)
    )
    project = await _unknown_to(request, parts, apply=orders.apply)
    if request.headers.get("content-type", "text/csv").startswith(("multipart/", "application/json")):
        raise BadRequest("Send the CSV itself as the body, with content-type text/csv.", param="file")
    spool = parts.new_spool()
    try:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > parts.settings.max_file_bytes:
                raise TooLarge(f"The file may have at most {parts.settings.max_file_bytes} bytes.")
            await spool.write(chunk)
        found = await reconcile(
            parts.store, spool, catalog=parts.catalog, prices=parts.prices, now=parts.clock.now(), orders=orders
        )
    finally:
        await spool.aclose()
    counted = uncounted(found) if project is None else await count_unknown(parts.store, parts.ids, found, project)
    if orders.apply and orders.complete is not None and is_whole(found, counted):
        await parts.store.note_reconciled(*orders.complete)
    return json_response(
        {
            **_report(found, orders),
            "unknown": {
                "counted_in": project,
                "counted_calls": counted.calls,
                "counted_usd": format_usd(counted.amount),
                "left_calls": counted.left,
            },
        }
    )


async def _unknown_to(request: Request, parts: ApiParts, *, apply: bool) -> ProjectId | None:
    """The project in which calls are counted that nobody here made."""
    told = text_query(request, "unknown_to")
    if told is None:
        return None
    if not apply:
        raise BadRequest("`unknown_to` counts spend: it needs `apply=true`.", param="unknown_to")
    return (await project_row(parts, ProjectId(clean_id(told)))).id


def _flag(request: Request, name: str) -> bool:
    told = request.query_params.get(name, "false")
    if told not in {"true", "false", "1", "0"}:
        raise BadRequest(f"`{name}` must be true or false.", param=name)
    return told in {"true", "1"}


def _span(request: Request) -> tuple[datetime, datetime] | None:
    told = [request.query_params.get(name) for name in ("complete_from", "complete_until")]
    start, until = (None if text is None else _moment(text) for text in told)
    if (start is None) != (until is None):
        raise BadRequest("Give both `complete_from` and `complete_until`, or neither.", param="complete_until")
    return None if start is None or until is None else (start, until)


def _moment(text: str) -> datetime:
    """Unix seconds, or ISO 8601 with a zone."""
    try:
        if text.isascii() and text.isdigit() and len(text) <= 11:
            return datetime.fromtimestamp(int(text), UTC)
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError(text)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        message = f"{text[:40]!r} is no moment: give Unix seconds, or 2026-11-02T00:00:00Z with its zone."
        raise BadRequest(message, param="complete_from") from None


def _report(found: Reconciliation, orders: Orders) -> dict[str, Any]:
    loaded = found.loaded
    return {
        "object": "cope.reconciliation",
        "applied": orders.apply,
        "differences_applied": orders.apply and orders.apply_differences,
        "open": bool(loaded.bad_count) or any(found.tallies[verdict].attempts for verdict in UNSETTLED),
        "file": {
            "rows": loaded.rows,
            "repeated": loaded.repeated,
            "unreadable": loaded.bad_count,
            "without_request_id": loaded.nameless,
        },
        "summary": {
            verdict.value: {
                "attempts": tally.attempts,
                "calls": tally.calls,
                "billed_usd": format_usd(NanoUSD(tally.billed)),
                "billed_nanousd": tally.billed,
                "booked_nanousd": tally.booked,
            }
            for verdict, tally in sorted(found.tallies.items())
            if tally.attempts or tally.calls
        },
        "rows": [_entry(entry) for entry in found.entries],
        "rows_left_out": found.left_out,
        "unreadable": [{"line": bad.line, "message": bad.message} for bad in loaded.bad],
        "others": {
            "calls": loaded.foreign.calls,
            "billed_usd": format_usd(loaded.foreign.cost),
            "billed_nanousd": int(loaded.foreign.cost),
            "calls_without_cost": loaded.foreign.unpriced_calls,
            "request_ids": [_foreign(call) for call in found.foreign],
        },
    }


def _entry(entry: Entry) -> dict[str, Any]:
    attempt, billed = entry.attempt, entry.billed
    return {
        "verdict": entry.verdict.value,
        "line": entry.line,
        "request_id": entry.request_id,
        "calls": entry.calls,
        "billed_usd": None if billed is None else format_usd(billed),
        "billed_nanousd": None if billed is None else int(billed),
        "booked_nanousd": None if attempt is None else int(attempt.booked),
        "reserved_nanousd": None if attempt is None else int(attempt.reserved),
        "attempt_id": None if attempt is None else attempt.id,
        "project_id": None if attempt is None else attempt.project_id,
        "batch_id": None if attempt is None else attempt.batch_id,
        "task_id": None if attempt is None else attempt.task_id,
        "model": None if attempt is None else attempt.model,
    }


def _foreign(call: BilledCall) -> dict[str, Any]:
    return {
        "request_id": call.request_id or None,
        "line": call.line,
        "calls": call.calls,
        "billed_usd": format_usd(call.cost),
        "billed_nanousd": int(call.cost),
    }
