"""`GET /v1/limits`: what a project's key may still spend, when that begins again, and what the providers allow."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.core.budget import Scope, next_month_start, scope_kind
from cope.core.money import format_usd
from cope.core.records import Budget
from cope.ports.quota import ProviderQuota
from cope_api.context import project_of, project_row, seconds
from cope_api.failures import json_response
from cope_api.retention import storage_json
from cope_api.spend_alerts import alert_json

router = APIRouter()


@router.get("/v1/limits")
async def limits(request: Request) -> Response:
    """The project's month, this key's month and the batches with caps; the alerts' state; each paid model's limits."""
    parts, project_id, principal = await project_of(request)
    project = await project_row(parts, project_id)
    budgets = await parts.store.list_budgets(project_id)
    alerts = await parts.store.list_alerts(project_id)
    whole = next(budget for budget in budgets if scope_kind(budget.scope) is Scope.PROJECT)
    resets_at = seconds(next_month_start(parts.clock.now(), project.time_zone))
    seen = [
        budget for budget in budgets if scope_kind(budget.scope) is not Scope.KEY or budget.scope == principal.key_id
    ]
    return json_response(
        {
            "object": "cope.limits",
            "project_id": project_id,
            "paused": project.paused,
            "month": whole.month,
            "time_zone": project.time_zone,
            "resets_at": resets_at,
            "budgets": [_budget_json(budget, resets_at) for budget in seen],
            "alerts": [alert_json(alert, whole) for alert in alerts],
            "storage": await storage_json(parts, project),
            "provider": [_quota_json(quota) for quota in await parts.quotas.quotas()],
        }
    )


def _budget_json(budget: Budget, resets_at: int | None) -> dict[str, Any]:
    kind = scope_kind(budget.scope)
    return {
        "scope": kind.value,
        "id": budget.project_id if kind is Scope.PROJECT else budget.scope,
        "interval": None if kind is Scope.BATCH else "month",
        "resets_at": None if kind is Scope.BATCH else resets_at,
        "cap_usd": None if budget.cap is None else format_usd(budget.cap),
        "used_usd": format_usd(budget.spent),
        "reserved_usd": format_usd(budget.reserved),
        "unconfirmed_usd": format_usd(budget.unconfirmed),
        "overrun_usd": format_usd(budget.overrun),
        "headroom_usd": None if budget.headroom is None else format_usd(budget.headroom),
    }


def _quota_json(quota: ProviderQuota) -> dict[str, Any]:
    return {
        "model": quota.model,
        "requests_per_minute": quota.rpm,
        "tokens_per_minute": quota.tpm,
        "concurrent_requests": quota.concurrency,
        "remaining": None
        if quota.as_of is None
        else {
            "requests": quota.rpm_left,
            "tokens": quota.tpm_left,
            "concurrent_requests": quota.concurrency_left,
            "blocked_until": seconds(quota.blocked_until),
            "as_of": seconds(quota.as_of),
        },
    }
