"""What a caller can do with a batch beside OpenAI's endpoints: add lines and seal it, and retry some of its lines."""

from collections.abc import Mapping
from dataclasses import replace

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.bootstrap import ApiParts
from cope.core.codec import encode_policy
from cope.core.errors import BadRequest, NotFound
from cope.core.ids import BATCH, BatchId
from cope.core.lifecycle import TERMINAL_BATCH_STATUSES, BatchStatus
from cope.core.line_retry import ENDED_WITHOUT_ANSWER, LineRetry, Retryable, policy_of
from cope.core.money import NanoUSD
from cope.core.problem import Kind
from cope.core.records import Batch
from cope.core.request_policy import COPE_POLICY_KEYS
from cope.core.request_values import as_choice, as_mapping, as_text, as_text_list, as_usd
from cope.core.task import OnBudget
from cope.usecases.ingest import batch_window
from cope.usecases.inline_lines import read_lines, whole_lines
from cope_api.batches import check_webhook, find_batch, metadata_of, new_batch, show, window_of
from cope_api.context import json_object, only_keys, project_of, project_row, raw_body
from cope_api.failures import json_response
from cope_api.prices import check_priced
from cope_api.retention import refuse_pruned

router = APIRouter()
_RETRY_KEYS = frozenset({"lines", "custom_ids", "completion_window", "metadata", "cope"})
_RETRY_COPE = frozenset({"max_cost_usd", "webhook_url", "order", "on_budget"}) | COPE_POLICY_KEYS
_MOST_NAMED = 100_000


@router.post("/v1/batches/{batch_id}/requests")
async def append(request: Request, batch_id: str) -> Response:
    """Add lines to an open batch: all of them or none, each once. They begin as soon as a worker is free."""
    parts, batch = await find_batch(request, batch_id)
    body = json_object(await raw_body(request))
    only_keys(body, frozenset({"requests"}))
    settings, window = parts.settings, batch_window(batch)
    project = await project_row(parts, batch.project_id)
    lines = whole_lines(body.get("requests"), batch.endpoint, longest=settings.max_line_bytes)
    read = read_lines(parts, batch, Kind(project.default_kind), lines)
    appended = await parts.store.append_lines(
        batch.project_id, batch.id, read, window=window, most=settings.max_file_lines
    )
    if appended is None:
        raise NotFound(f"There is no batch {batch_id!r}.")
    for queue in {line.task.queue for line in read}:
        await parts.wake.poke(queue)
    return json_response(
        {
            "object": "cope.batch_requests",
            "batch_id": batch.id,
            "added": appended.added,
            "already_there": len(lines) - appended.added,
            "total": appended.batch.total,
        }
    )


@router.post("/v1/batches/{batch_id}/seal")
async def seal(request: Request, batch_id: str) -> Response:
    """No further lines: the batch ends once those it has do. One that is sealed already stays as it is."""
    parts, batch = await find_batch(request, batch_id)
    sealed = await parts.store.seal_batch(batch.project_id, batch.id)
    await parts.wake.poke("upkeep")
    return await show(parts, sealed or batch)


@router.post("/v1/batches/{batch_id}/retry")
async def retry(request: Request, batch_id: str) -> Response:
    """A batch of those of this one's lines that ended without an answer, or as `lines` and `custom_ids` say; finished
    steps that their policy would repeat are taken over. A repetition returns the first one."""
    parts, parent = await find_batch(request, batch_id)
    refuse_pruned(parent)
    _, _, principal = await project_of(request)
    raw = await raw_body(request)
    body = json_object(raw)
    only_keys(body, _RETRY_KEYS)
    cope = {} if body.get("cope") is None else as_mapping(body["cope"], "cope")
    _only_cope_keys(cope)
    webhook_url = cope.get("webhook_url", parent.webhook_url)
    if webhook_url is not None:
        webhook_url = as_text(webhook_url, "cope.webhook_url", longest=2000)
        check_webhook(parts, webhook_url)
    window, named = body.get("completion_window"), body.get("metadata")
    batch = replace(
        Batch(
            id=BatchId(parts.ids.new(BATCH)),
            project_id=parent.project_id,
            key_id=principal.key_id,
            endpoint=parent.endpoint,
            input_file_id=parent.input_file_id,
            completion_window=parent.completion_window if window is None else window_of(window),
            status=BatchStatus.VALIDATING,
            created_at=parts.clock.now(),
        ),
        defaults=_defaults(parent, cope),
        metadata=parent.metadata if named is None else metadata_of(named),
        webhook_url=webhook_url,
        model=parent.model,
        output_expires_after_s=parent.output_expires_after_s,
        cap=_cap(parent, cope),
        audit_share=parent.audit_share,
        retry_of=parent.id,
    )
    wanted = await _line_retry(parts, parent, body, cope)
    # The address is part of what is repeated: the same body for another batch is another retry.
    made = await parts.store.retry_batch(new_batch(request, batch, f"retry {parent.id}\n".encode() + raw), wanted)
    await parts.wake.poke("upkeep")
    return await show(parts, made)


async def _line_retry(
    parts: ApiParts, parent: Batch, body: Mapping[str, object], cope: Mapping[str, object]
) -> LineRetry:
    custom_ids = None
    if body.get("custom_ids") is not None:
        custom_ids = tuple(dict.fromkeys(as_text_list(body["custom_ids"], "custom_ids", fewest=1, most=_MOST_NAMED)))
    policy = policy_of(cope, parts.catalog)
    if policy is not None:
        await check_priced(parts, policy)
    on_budget = None
    if cope.get("on_budget") is not None:
        on_budget = OnBudget(as_choice(cope["on_budget"], "cope.on_budget", tuple(OnBudget)))
    return LineRetry(
        parent=parent.id,
        lines=_lines(body.get("lines"), frozenset(Retryable) if custom_ids else ENDED_WITHOUT_ANSWER),
        custom_ids=custom_ids,
        policy=None if policy is None else encode_policy(policy),
        on_budget=on_budget,
    )


def _lines(value: object, otherwise: frozenset[Retryable]) -> frozenset[Retryable]:
    if value is None:
        return otherwise
    if not isinstance(value, list) or not value:
        raise BadRequest(f"`lines` must be a list of some of {', '.join(Retryable)}.", param="lines")
    return frozenset(Retryable(as_choice(one, f"lines[{place}]", tuple(Retryable))) for place, one in enumerate(value))


def _only_cope_keys(cope: Mapping[str, object]) -> None:
    for key in cope:
        if key not in _RETRY_COPE:
            raise BadRequest(
                f"`cope.{key}` can't be changed by a retry. What can: {', '.join(sorted(_RETRY_COPE))}.",
                param=f"cope.{key}",
                code="unknown_parameter",
            )


def _defaults(parent: Batch, cope: Mapping[str, object]) -> str:
    if cope.get("order") is None:
        return parent.defaults
    order = as_choice(cope["order"], "cope.order", ("completion", "input"))
    return orjson.dumps({**orjson.loads(parent.defaults), "order": order}).decode()


def _cap(parent: Batch, cope: Mapping[str, object]) -> NanoUSD | None:
    """What the caller says, else what the parent's own cap has left: a retry is no way around it."""
    if "max_cost_usd" in cope:
        return None if cope["max_cost_usd"] is None else as_usd(cope["max_cost_usd"], "cope.max_cost_usd")
    if parent.cap is None:
        return None
    if parent.status not in TERMINAL_BATCH_STATUSES:
        raise BadRequest(
            "The batch still spends under its own `max_cost_usd`: say what the retry may cost, or null for no cap of "
            "its own.",
            param="cope.max_cost_usd",
        )
    return NanoUSD(max(0, parent.cap - parent.spent - parent.reserved - parent.unconfirmed))
