"""Receipts of a project's month and of a batch: as JSON, and as text where the caller asks for it."""

from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from cope.bootstrap import ApiParts
from cope.core.budget import month_of
from cope.core.errors import NotFound
from cope.core.ids import BatchId, ProjectId
from cope.core.ledger import CostKind, CostRow, Cut, total_of
from cope.core.lifecycle import TERMINAL_BATCH_STATUSES
from cope.core.money import NanoUSD, format_usd
from cope.core.receipt import Receipt, receipt_text
from cope.ports.ledger import LedgerScope
from cope_api.context import clean_id, project_of, project_row
from cope_api.failures import json_response
from cope_api.money_scope import month_days, month_text
from cope_api.spend_limits import seer

router = APIRouter()
_CUTS = frozenset({Cut.MODEL, Cut.STAGE, Cut.PRICE_VERSION})


@router.get("/v1/organization/projects/{project_id}/receipts/{month}")
async def project_receipt(request: Request, project_id: str, month: str) -> Response:
    """A month of a project; `me` names the calling key's own."""
    parts, wanted = await seer(request, project_id)
    month = month_text(month)
    project, now = await project_row(parts, wanted), parts.clock.now()
    first, last = month_days(month)
    rows = await parts.store.costs(LedgerScope(wanted), first=first, last=last, cuts=_CUTS)
    budget = await parts.store.get_budget(wanted, month)
    over = month < month_of(now, project.time_zone)
    return await _answer(
        request,
        Receipt(
            about="project",
            project_id=wanted,
            project_name=project.name,
            period=month,
            time_zone=project.time_zone,
            made_at=now,
            final=over and not budget.reserved and not budget.unconfirmed,
            lines=tuple(rows),
            budget=budget,
        ),
    )


@router.get("/v1/batches/{batch_id}/receipt")
async def batch_receipt(request: Request, batch_id: str) -> Response:
    """A batch over its whole life."""
    parts, project_id, _ = await project_of(request)
    return await _answer(request, await _of_batch(parts, project_id, BatchId(clean_id(batch_id))))


async def _of_batch(parts: ApiParts, project_id: ProjectId, batch_id: BatchId) -> Receipt:
    batch = await parts.store.get_batch(project_id, batch_id)
    if batch is None:
        raise NotFound(f"There is no batch {batch_id!r}.")
    project = await project_row(parts, project_id)
    # Its first row can't be older; a day, because that moment was read from another clock than the ledger's.
    scope = LedgerScope(project_id, batch_id=batch_id, since=batch.created_at - timedelta(days=1))
    rows = await parts.store.costs(scope, first=None, last=None, cuts=_CUTS)
    budget = await parts.store.get_budget(project_id, scope=batch_id)
    over = batch.status in TERMINAL_BATCH_STATUSES
    return Receipt(
        about=f"batch {batch_id}",
        project_id=project_id,
        project_name=project.name,
        period=f"since {batch.created_at:%Y-%m-%d}",
        time_zone=project.time_zone,
        made_at=parts.clock.now(),
        final=over and not budget.reserved and not budget.unconfirmed,
        lines=tuple(rows),
        budget=budget,
    )


async def _answer(request: Request, receipt: Receipt) -> Response:
    if request.headers.get("accept", "").startswith("text/plain"):
        return PlainTextResponse(receipt_text(receipt))
    return json_response(receipt_json(receipt))


def receipt_json(receipt: Receipt) -> dict[str, Any]:
    """Every amount as exact dollars and as nano-dollars."""
    kinds = {kind.value: total_of(receipt.lines, kind) for kind in CostKind}
    return {
        "object": "cope.receipt",
        "about": receipt.about,
        "project_id": receipt.project_id,
        "project_name": receipt.project_name,
        "period": receipt.period,
        "time_zone": receipt.time_zone,
        "made_at": int(receipt.made_at.timestamp()),
        "final": receipt.final,
        **_money("total", receipt.total),
        **{key: value for kind, amount in kinds.items() for key, value in _money(kind, amount).items()},
        **_money("reserved", receipt.budget.reserved),
        **_money("unconfirmed", receipt.budget.unconfirmed),
        "cap_usd": None if receipt.budget.cap is None else format_usd(receipt.budget.cap),
        "ledger_difference_nanousd": receipt.difference,
        "steps": receipt.attempts,
        "calls": receipt.usage.calls,
        "prompt_tokens": receipt.usage.prompt,
        "cached_tokens": receipt.usage.cached,
        "completion_tokens": receipt.usage.completion,
        "reasoning_tokens": receipt.usage.reasoning,
        "price_versions": list(receipt.price_versions),
        "lines": [_line(line) for line in receipt.lines],
    }


def _line(line: CostRow) -> dict[str, Any]:
    return {
        "line_item": line.line_item,
        "kind": line.kind.value,
        "model": line.model,
        "stage": line.stage,
        "price_version": line.price_version or None,
        "steps": line.attempts,
        "calls": line.usage.calls,
        "prompt_tokens": line.usage.prompt,
        "cached_tokens": line.usage.cached,
        "completion_tokens": line.usage.completion,
        "reasoning_tokens": line.usage.reasoning,
        **_money("amount", line.amount),
    }


def _money(name: str, amount: NanoUSD) -> dict[str, Any]:
    return {f"{name}_usd": format_usd(amount), f"{name}_nanousd": int(amount)}
