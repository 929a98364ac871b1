"""The shadow audit: its settings, what it found in a month or a batch, and the pairs of answers to look at."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.bootstrap import ApiParts
from cope.core.audit import (
    Audit,
    AuditCounts,
    AuditState,
    StratumCounts,
    by_stratum,
    caveats,
    estimate,
    sentence,
    total,
)
from cope.core.audit_sampling import as_share, share_text
from cope.core.budget import AUDIT_SCOPE
from cope.core.errors import BadRequest
from cope.core.ids import BatchId, TaskId
from cope.core.money import NanoUSD, format_usd
from cope.core.records import Batch, Project
from cope.core.request_values import as_mapping, as_usd
from cope_api.context import limit_of, list_body, only_keys, project_of, project_row, seconds, text_query
from cope_api.failures import json_response
from cope_api.spend_limits import seer

router = APIRouter()
Json = dict[str, Any]
_MONTH = re.compile(r"2[0-9]{3}-(0[1-9]|1[0-2])")
_MAY_FOLLOW = "Audits never hold a batch up: they may go on after it has ended, and the figures with them."


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """What a request changes; `share` None and `sets_cap` False leave things as they are. `cap` None is no cap."""

    share: int | None = None
    cap: NanoUSD | None = None
    sets_cap: bool = False


def audit_settings(cope: Mapping[str, object], project: Project | None) -> AuditSettings:
    """Of a project's `cope` block; `project` is as it is now, None for a new one. Raises `BadRequest`: to audit needs a
    sub-budget that is said."""
    if "audit" not in cope:
        return AuditSettings()
    block = as_mapping(cope["audit"], "cope.audit")
    only_keys(block, frozenset({"share", "cap_usd"}))
    share = as_share(block["share"], "cope.audit.share") if "share" in block else None
    cap = None if block.get("cap_usd") is None else as_usd(block["cap_usd"], "cope.audit.cap_usd")
    settings = AuditSettings(share, cap, sets_cap="cap_usd" in block)
    present = NanoUSD(0) if project is None else project.audit_cap
    if share and (cap if settings.sets_cap else present) == 0:
        raise BadRequest(
            'Audits are paid from a sub-budget of their own: give `cope.audit.cap_usd`, such as "1.00" a month (null: '
            "only the project's cap bounds them).",
            param="cope.audit.cap_usd",
        )
    return settings


async def apply_settings(parts: ApiParts, project: Project, settings: AuditSettings) -> Project:
    """The project as it is then. The cap comes first: no audit is drawn without one."""
    if settings.sets_cap:
        await parts.store.set_cap(project.id, settings.cap, scope=AUDIT_SCOPE)
    if settings.share is not None:
        await parts.store.set_audit_share(project.id, settings.share)
    if settings.share is None and not settings.sets_cap:
        return project
    return await project_row(parts, project.id)


@router.get("/v1/organization/projects/{project_id}/audit")
async def project_audit(request: Request, project_id: str) -> Response:
    """What a month's audits say. `me` names the calling key's own project; without `month` it is the present one."""
    parts, wanted = await seer(request, project_id)
    month = text_query(request, "month")
    if month is not None and not _MONTH.fullmatch(month):
        raise BadRequest("`month` is written 2026-11.", param="month")
    project = await project_row(parts, wanted)
    budget = await parts.store.get_budget(wanted, month, scope=AUDIT_SCOPE)
    strata = await parts.store.audit_counts(wanted, month=budget.month)
    return json_response(
        {
            "object": "organization.project.audit",
            "project_id": wanted,
            "month": budget.month,
            "share": share_text(project.audit_share),
            "cap_usd": None if budget.cap is None else format_usd(budget.cap),
            "spent_usd": format_usd(budget.spent),
            "reserved_usd": format_usd(budget.reserved),
            "unconfirmed_usd": format_usd(budget.unconfirmed),
            **report_json(strata),
        }
    )


async def batch_audit(parts: ApiParts, batch: Batch) -> Json | None:
    """What the audits of one batch say; None where none of its answers was accepted while audits were on."""
    strata = await parts.store.audit_counts(batch.project_id, batch_id=batch.id)
    if not strata:
        return None
    report = report_json(strata)
    report["notes"].append(_MAY_FOLLOW)
    return report


@router.get("/v1/audits")
async def list_audits(request: Request) -> Response:
    """The audited answers, each beside the large model's, oldest first."""
    parts, project_id, _ = await project_of(request)
    batch, state, after = (text_query(request, name) for name in ("batch_id", "state", "after"))
    if state is not None and state not in tuple(AuditState):
        raise BadRequest(f"`state` must be one of {', '.join(AuditState)}.", param="state")
    page = await parts.store.list_audits(
        project_id,
        batch_id=None if batch is None else BatchId(batch),
        state=None if state is None else AuditState(state),
        after=None if after is None else TaskId(after),
        limit=limit_of(request, default=20, most=100),
    )
    return json_response(list_body([_audit_json(audit) for audit in page.items], page.has_more))


def report_json(strata: Sequence[StratumCounts]) -> Json:
    """Counts, estimates and what they do not say, overall and by stage and confidence."""
    counts = total(strata)
    return {
        **_counts_json(counts),
        "strata": [
            {
                "stage": stratum.stage,
                "confidence": stratum.label,
                "votes": stratum.votes,
                "n": stratum.n,
                "stopped_early": stratum.stopped_early,
                **_counts_json(part),
            }
            for stratum, part in by_stratum(strata).items()
        ],
        "summary": sentence(counts),
        "notes": list(caveats(strata)),
    }


def _counts_json(counts: AuditCounts) -> Json:
    found = estimate(counts)
    return {
        "accepted": counts.accepted,
        "audited": counts.sampled,
        "pending": counts.pending,
        "agreed": counts.agreed,
        "disagreed": counts.disagreed,
        "unparsable": counts.unparsable,
        "dropped": counts.dropped,
        "cost_usd": format_usd(counts.cost),
        "estimate": None
        if found is None
        else {
            "disagreement": round(float(found.rate), 6),
            "low": round(found.low, 6),
            "high": round(found.high, 6),
            "level": 0.95,
            "differing": {"from": found.fewest, "to": found.most, "of": counts.accepted},
        },
    }


def _audit_json(audit: Audit) -> Json:
    return {
        "id": audit.task_id,
        "object": "cope.audit",
        "task_id": audit.task_id,
        "custom_id": audit.custom_id,
        "batch_id": audit.batch_id,
        "audit_task_id": audit.audit_task_id,
        "state": audit.state.value,
        "reason": audit.reason,
        "stage": audit.stratum.stage,
        "confidence": audit.stratum.label,
        "small": {"answer": audit.small_answer, "answer_key": audit.small_key},
        "large": None if audit.large_answer is None else {"answer": audit.large_answer, "answer_key": audit.large_key},
        "cost_usd": format_usd(audit.cost),
        "month": audit.month,
        "created_at": seconds(audit.created_at),
        "finished_at": seconds(audit.finished_at),
    }
