"""The ledger as it is: a CSV of every row, streamed, and the check that the budgets are what it adds up to."""

import csv
import io
from collections.abc import AsyncIterator
from datetime import UTC
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from cope.core.errors import BadRequest
from cope.core.ledger import BudgetDifference, LedgerLine, stage_of
from cope.core.money import format_usd
from cope.core.redaction import inert_cell
from cope_api.failures import json_response
from cope_api.money_scope import Seen, month_query, seen_by

router = APIRouter()

COLUMNS = (
    "booked_at", "day", "month", "project_id", "api_key_id", "batch_id", "task_id", "attempt_id", "kind", "nth",
    "amount_usd", "amount_nanousd", "freed_usd", "freed_nanousd", "price_version", "model", "stage", "step",
    "request_id", "provider_id", "calls", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens",
    "flag",
)  # fmt: skip


@router.get("/v1/organization/ledger.csv")
async def ledger_csv(request: Request) -> Response:
    """Every row of a month (`month=all`: of all): RFC 4180, a header, amounts exact. What each kind means is in
    ops/guide/money.md; the costs of a month are its rows of kind settled, late, external and overrun, less refunded."""
    seen = await seen_by(request)
    told = request.query_params.get("month")
    month = None if told == "all" else month_query(request) or f"{seen.parts.clock.now():%Y-%m}"
    headers = {"content-disposition": f'attachment; filename="ledger-{month or "all"}.csv"'}
    return StreamingResponse(_rows(seen, month), media_type="text/csv; charset=utf-8; header=present", headers=headers)


async def _rows(seen: Seen, month: str | None) -> AsyncIterator[bytes]:
    yield _csv([COLUMNS])
    async for page in seen.parts.store.ledger_lines(seen.scope, month=month):
        yield _csv([_fields(line) for line in page])


def _csv(rows: list[tuple[object, ...]]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()


def _fields(line: LedgerLine) -> tuple[object, ...]:
    usage = line.usage
    return (
        line.at.astimezone(UTC).isoformat(),
        line.day.isoformat(),
        line.month,
        line.project_id,
        line.key_id or "",
        line.batch_id or "",
        line.task_id or "",
        _inert(line.attempt_id),
        line.kind,
        line.nth,
        format_usd(line.amount),
        int(line.amount),
        format_usd(line.freed),
        int(line.freed),
        _inert(line.price_version),
        _inert(line.model),
        _inert(stage_of(line.step) if line.step is not None else ""),
        _inert(line.step),
        _inert(line.request_id),
        _inert(line.provider_id),
        *(
            ("", "", "", "", "")
            if usage is None
            else (usage.calls, usage.prompt, usage.cached, usage.completion, usage.reasoning)
        ),
        _inert(line.flag),
    )


def _inert(text: str | None) -> str:
    """A provider's or user's text must not be a formula to a spreadsheet."""
    return inert_cell(text or "")


@router.get("/v1/organization/ledger_check")
async def ledger_check(request: Request) -> Response:
    """Whether every budget is what the ledger adds up to. `difference_nanousd` must be 0; `rows` name those that are
    not right. A project's key checks its own project."""
    seen = await seen_by(request)
    if seen.scope.project_ids is not None or seen.scope.batch_id is not None or seen.scope.key_ids is not None:
        raise BadRequest("Check one project, with `project_id`, or all of them, without.", param="project_id")
    rows = await seen.parts.store.ledger_difference(seen.scope.project_id)
    return json_response(
        {
            "object": "cope.ledger_check",
            "project_id": seen.scope.project_id,
            "checked_at": int(seen.parts.clock.now().timestamp()),
            "difference_nanousd": sum(row.size for row in rows),
            "rows": [difference_json(row) for row in rows],
        }
    )


def difference_json(row: BudgetDifference) -> dict[str, Any]:
    """Budget minus ledger, by sum."""
    return {
        "project_id": row.project_id,
        "scope": row.scope,
        "month": row.month or None,
        "spent_nanousd": row.spent,
        "reserved_nanousd": row.reserved,
        "unconfirmed_nanousd": row.unconfirmed,
        "overrun_nanousd": row.overrun,
    }
