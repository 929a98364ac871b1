"""Records as the JSON that OpenAI's client reads, with our `cope` blocks beside it."""

from collections import Counter
from datetime import timedelta
from typing import Any

import orjson

from cope.core.audit_sampling import share_text
from cope.core.budget import Scope, scope_kind
from cope.core.codec import encode_usage
from cope.core.eta import Eta
from cope.core.history import FinishedStep
from cope.core.lifecycle import TERMINAL_BATCH_STATUSES, BatchStatus
from cope.core.money import format_usd
from cope.core.records import Batch, Budget, Project, StoredFile, TaskDetail, WebhookEndpoint
from cope_api.context import seconds
from cope_api.quotes import quote_json

Json = dict[str, Any]


def file_json(file: StoredFile, keep: timedelta | None = None) -> Json:
    """OpenAI's FileObject. `keep` is how long a file stays that says nothing itself."""
    expires_at = file.created_at + keep if file.expires_at is None and keep is not None else file.expires_at
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": seconds(file.created_at),
        "expires_at": seconds(expires_at),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def batch_json(batch: Batch, hold: Json | None, eta: Eta | None) -> Json:
    """OpenAI's Batch; a held batch stays `in_progress` and says so in `cope.hold` (see `cope_api.holds`)."""
    errors = [{"code": e.code, "message": e.message, "param": e.param, "line": e.line} for e in batch.errors]
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": {"object": "list", "data": errors} if errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status.value,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": seconds(batch.created_at),
        "in_progress_at": seconds(batch.in_progress_at),
        "expires_at": seconds(batch.expires_at),
        "finalizing_at": seconds(batch.finalizing_at),
        "completed_at": seconds(batch.completed_at),
        "failed_at": seconds(batch.failed_at),
        "expired_at": seconds(batch.expired_at),
        "cancelling_at": seconds(batch.cancelling_at),
        "cancelled_at": seconds(batch.cancelled_at),
        "request_counts": {
            "total": batch.total,
            "completed": batch.done,
            "failed": batch.failed,
            "held": sum(batch.held.values()),
        },
        "usage": {
            "input_tokens": batch.prompt_tokens,
            "input_tokens_details": {"cached_tokens": batch.cached_tokens},
            "output_tokens": batch.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": batch.reasoning_tokens},
            "total_tokens": batch.prompt_tokens + batch.completion_tokens,
        },
        "metadata": dict(batch.metadata) if batch.metadata is not None else None,
        "cope": {
            "outcome": _outcome(batch),
            "open": batch.open,
            "retry_of": batch.retry_of,
            "retried_by": list(batch.retried_by),
            "hold": hold,
            "submitted": batch.submitted,
            "max_cost_usd": None if batch.cap is None else format_usd(batch.cap),
            "dry_run": None if batch.dry_run is None else {"pilot_lines": batch.dry_run},
            "quote": quote_json(batch),
            "by_stage": dict(batch.by_stage) if batch.dry_run is None else {},
            "pruned_at": seconds(batch.pruned_at),
            "spent_usd": format_usd(batch.spent),
            "reserved_usd": format_usd(batch.reserved),
            "unconfirmed_usd": format_usd(batch.unconfirmed),
            "eta": None if eta is None else {"p50": eta.p50, "p90": eta.p90, "limited_by": eta.limited_by},
            "errors": _errors(batch),
        },
    }


def _outcome(batch: Batch) -> str | None:
    if batch.status not in TERMINAL_BATCH_STATUSES:
        return None
    if batch.status is not BatchStatus.COMPLETED:
        return batch.status.value
    if batch.dry_run is not None:
        return "quoted"
    if not batch.failed:
        return "all_succeeded"
    return "partly_failed" if batch.done else "all_failed"


def _errors(batch: Batch) -> list[Json]:
    """How many lines ended with which code, the most frequent first, and what the first of each said. Of a file that
    was refused: its lines' errors, of which at most the first 1,000 were kept."""
    counts: Counter[str] = Counter(batch.error_counts)
    messages = dict(batch.error_messages)
    for error in batch.errors:
        counts[error.code] += 1
        messages.setdefault(error.code, error.message)
    return [{"code": code, "message": messages.get(code), "count": count} for code, count in counts.most_common()]


def task_json(task: TaskDetail) -> Json:
    """A task with its whole history: every plan, sample, answer and vote that its store level keeps."""
    return {
        "id": task.id,
        "object": "cope.task",
        "batch_id": task.batch_id,
        "custom_id": task.custom_id,
        "state": task.state.value,
        "hold": None if task.hold is None else task.hold.value,
        "queue": task.queue,
        "provider_batch": None
        if task.provider_batch is None
        else {"id": task.provider_batch.id, "status": task.provider_batch.status},
        "created_at": seconds(task.created_at),
        "finished_at": seconds(task.finished_at),
        "tries": task.tries,
        "crashes": task.crashes,
        "policy": orjson.Fragment(task.policy),
        "request": orjson.Fragment(task.payload),
        "steps": [_step(step) for step in task.history],
        "result": None if task.result is None else orjson.Fragment(task.result),
        "error": None if task.error is None else {"code": task.error.code, "message": task.error.message},
        "attempts": [
            {
                "id": a.id,
                "step": a.step,
                "model": a.model,
                "state": a.state.value,
                "month": a.month,
                "reserved_usd": format_usd(a.reserved),
                "cost_usd": None if a.cost is None else format_usd(a.cost),
                "price_id": a.price_id,
                "price_tier": a.price_tier,
                "price_version": a.price_version,
                "flag": a.flag,
            }
            for a in task.attempts
        ],
    }


def _step(step: FinishedStep) -> Json:
    return {
        "name": step.name,
        "stage": int(step.stage),
        "tier": step.tier.value,
        "model": step.model,
        "n": step.n,
        "reason": step.reason,
        "stopped_early": step.stopped_early,
        "prompt_version": step.prompt_version,
        "reused_from": step.reused_from,
        **({} if step.scoring is None else {"scoring": step.scoring}),
        "cost_nanousd": int(step.cost),
        "usage": dict(
            zip(("prompt", "cached", "completion", "reasoning", "calls"), encode_usage(step.usage), strict=True)
        ),
        "started_at": step.started_at.isoformat(),
        "finished_at": step.finished_at.isoformat(),
        "samples": [
            {
                "index": s.index,
                "status": s.status.value,
                "plan": s.plan,
                "solution": s.solution,
                "answer": s.answer,
                "answer_key": s.key,
                "tests_passed": s.tests_passed,
                "finish_reason": s.finish_reason,
                "error": s.error,
                **({} if s.mean_logprob is None else {"mean_logprob": s.mean_logprob}),
            }
            for s in step.samples
        ],
    }


def project_json(project: Project) -> Json:
    """OpenAI's Project, with ours beside it."""
    return {
        "id": project.id,
        "object": "organization.project",
        "name": project.name,
        "created_at": seconds(project.created_at),
        "archived_at": seconds(project.archived_at),
        "status": "archived" if project.archived_at else "active",
        "cope": {
            "time_zone": project.time_zone,
            "default_kind": project.default_kind,
            "paused": project.paused,
            "pause_unparsable": project.pause_unparsable,
            "keep_days": project.keep_days,
            "cap_usd": None if project.cap is None else format_usd(project.cap),
            "audit": {
                "share": share_text(project.audit_share),
                "cap_usd": None if project.audit_cap is None else format_usd(project.audit_cap),
            },
        },
    }


_LIMIT_OF = {Scope.PROJECT: "project", Scope.AUDIT: "project.audit", Scope.KEY: "project.api_key", Scope.BATCH: "batch"}


def spend_limit_json(budget: Budget) -> Json:
    """OpenAI's project spend limit in whole cents, and the exact amounts beside it. A batch's is for its whole life."""
    cap, kind = budget.cap, scope_kind(budget.scope)
    return {
        "object": f"{_LIMIT_OF[kind]}.spend_limit",
        "threshold_amount": None if cap is None else cap // 10_000_000,
        "currency": "USD",
        "interval": None if kind is Scope.BATCH else "month",
        "enforcement": {"status": "inactive" if cap is None else "enforcing"},
        "cope": {
            "scope": budget.scope,
            "month": budget.month or None,
            "cap_usd": None if cap is None else format_usd(cap),
            "spent_usd": format_usd(budget.spent),
            "reserved_usd": format_usd(budget.reserved),
            "unconfirmed_usd": format_usd(budget.unconfirmed),
            "overrun_usd": format_usd(budget.overrun),
        },
    }


def endpoint_json(endpoint: WebhookEndpoint, *, with_secret: bool = False) -> Json:
    """OpenAI's webhook endpoint; the secret only where it was just made."""
    body: Json = {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "created_at": seconds(endpoint.created_at),
        "updated_at": seconds(endpoint.updated_at),
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": list(endpoint.event_types),
        "signing_secret_hint": endpoint.secret[-4:] if endpoint.secret else None,
        "cope": {
            "disabled_at": seconds(endpoint.disabled_at),
            "disabled_reason": endpoint.disabled_reason,
            "concurrency": endpoint.concurrency,
            "old_secret_active_until": seconds(endpoint.old_secrets_until),
            "failing": None
            if endpoint.trouble is None
            else {
                "since": seconds(endpoint.trouble.failing_since),
                "failures": endpoint.trouble.failures,
                "last_failed_at": seconds(endpoint.trouble.failed_at),
                "last_status_code": endpoint.trouble.status,
                "last_error": endpoint.trouble.error,
                "left_alone_until": seconds(endpoint.trouble.blocked_until),
            },
        },
    }
    if with_secret:
        body["signing_secret"] = endpoint.secret
    return body
