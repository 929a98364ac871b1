"""Batches and their tasks."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, assert_never

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.bootstrap import ApiParts
from cope.core.errors import BadRequest, Conflict, NotFound
from cope.core.ids import BATCH, BatchId, FileId, ProjectId, TaskId
from cope.core.lifecycle import TERMINAL_BATCH_STATUSES, BatchStatus, TaskState
from cope.core.problem import Kind
from cope.core.records import Batch
from cope.core.request import BatchCope, parse_cope_defaults
from cope.core.request_values import as_int, as_mapping, as_metadata, as_text
from cope.ports.store import NewBatch
from cope.usecases.ingest import RESPONSES, batch_window, window_seconds
from cope_api.audits import batch_audit
from cope_api.context import (
    clean_id,
    json_object,
    limit_of,
    list_body,
    only_keys,
    project_of,
    project_row,
    raw_body,
    retry_count,
    text_query,
)
from cope_api.failures import json_response
from cope_api.holds import shown
from cope_api.inline import NO_FILE, Source, create_inline, source
from cope_api.present import task_json
from cope_api.retention import refuse_pruned

router = APIRouter()
_KEYS = frozenset(
    {"input_file_id", "requests", "endpoint", "completion_window", "metadata", "output_expires_after", "cope"}
)
_SERVED = ("/v1/chat/completions", RESPONSES)
_LONGEST_KEY = 255


@router.post("/v1/batches")
async def create(request: Request) -> Response:
    """Accept a batch: it is `validating` until upkeep has read its file, which may come as `requests` in the body; an
    open one begins at once. A repetition returns the first one."""
    parts, project_id, principal = await project_of(request)
    raw = await raw_body(request)
    body = json_object(raw)
    only_keys(body, _KEYS)
    project = await project_row(parts, project_id)
    cope = parse_cope_defaults(body.get("cope"), catalog=parts.catalog, kind=Kind(project.default_kind))
    check_webhook(parts, cope.webhook_url)
    came = source(body, cope)
    input_file = NO_FILE if came is not Source.FILE else await _input_file(parts, project_id, body)
    window = window_of(body.get("completion_window"))
    batch = Batch(
        id=BatchId(parts.ids.new(BATCH)),
        project_id=project_id,
        key_id=principal.key_id,
        endpoint=_endpoint(body.get("endpoint")),
        input_file_id=input_file,
        completion_window=window,
        status=BatchStatus.VALIDATING,
        created_at=parts.clock.now(),
        defaults=_defaults(cope),
        metadata=metadata_of(body.get("metadata")),
        webhook_url=cope.webhook_url,
        output_expires_after_s=_output_expiry(body.get("output_expires_after")),
        cap=cope.max_cost,
        dry_run=cope.dry_run,
        audit_share=cope.audit_share,
        open=cope.open,
    )
    new = new_batch(request, batch, raw)
    match came:
        case Source.FILE:
            made = await parts.store.create_batch(new)
        case Source.INLINE:
            made = await create_inline(parts, new, body["requests"], Kind(project.default_kind))
        case Source.OPEN:
            made = await parts.store.create_batch(replace(new, open_for=batch_window(batch)))
        case _:
            assert_never(came)
    await parts.wake.poke("upkeep")
    return await show(parts, made)


def new_batch(request: Request, batch: Batch, raw: bytes) -> NewBatch:
    """With what makes a request for a batch a repetition of an earlier one. Raises `BadRequest`."""
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= _LONGEST_KEY:
        raise BadRequest(f"`Idempotency-Key` must have 1 to {_LONGEST_KEY} characters.", param="Idempotency-Key")
    return NewBatch(batch, hashlib.sha256(raw).digest(), key, retry=retry_count(request))


def check_webhook(parts: ApiParts, url: str | None) -> None:
    """Raises `BadRequest` for an address that nothing may be sent to."""
    reason = None if url is None else parts.webhooks.refuse_reason(url)
    if reason is not None:
        raise BadRequest(f"`cope.webhook_url` can't be used: {reason}.", param="cope.webhook_url")


async def _input_file(parts: ApiParts, project_id: ProjectId, body: Mapping[str, object]) -> FileId:
    input_file = FileId(as_text(body.get("input_file_id"), "input_file_id", longest=64))
    file = await parts.store.get_file(project_id, input_file)
    if file is None:
        raise BadRequest(f"There is no file {input_file!r}.", param="input_file_id", code="file_not_found")
    if file.purpose != "batch":
        raise BadRequest("The input file's purpose must be `batch`.", param="input_file_id")
    return input_file


def window_of(value: object) -> str:
    """A completion window that can be kept. Raises `BadRequest`."""
    window = as_text(value, "completion_window", longest=8)
    window_seconds(window)
    return window


def _defaults(cope: BatchCope) -> str:
    order = {"order": "input"} if cope.by_input else {}
    return orjson.dumps({**cope.line_defaults, **order}).decode()


def _endpoint(value: object) -> str:
    endpoint = as_text(value, "endpoint", longest=64)
    if endpoint not in _SERVED:
        raise BadRequest(f"`endpoint` must be one of {', '.join(_SERVED)}.", param="endpoint")
    return endpoint


def metadata_of(value: object) -> Mapping[str, str] | None:
    """OpenAI's `metadata`. Raises `BadRequest`."""
    pairs = as_metadata(value, "metadata")
    return None if pairs is None else dict(pairs)


def _output_expiry(value: object) -> int | None:
    if value is None:
        return None
    given = as_mapping(value, "output_expires_after")
    if given.get("anchor") != "created_at":
        raise BadRequest("`anchor` must be created_at.", param="output_expires_after.anchor")
    return as_int(given.get("seconds"), "output_expires_after.seconds", low=3600, high=2_592_000)


@router.get("/v1/batches")
async def list_batches(request: Request) -> Response:
    """The project's batches, newest first."""
    parts, project_id, _ = await project_of(request)
    after = text_query(request, "after")
    page = await parts.store.list_batches(
        project_id,
        after=None if after is None else BatchId(after),
        limit=limit_of(request, default=20, most=100),
    )
    return json_response(list_body(await shown(parts, page.items), page.has_more))


async def find_batch(request: Request, batch_id: str) -> tuple[ApiParts, Batch]:
    """The parts, and the caller's batch. Raises `NotFound`."""
    parts, project_id, _ = await project_of(request)
    batch = await parts.store.get_batch(project_id, BatchId(clean_id(batch_id)))
    if batch is None:
        raise NotFound(f"There is no batch {batch_id!r}.")
    return parts, batch


@router.get("/v1/batches/{batch_id}")
async def retrieve(request: Request, batch_id: str) -> Response:
    """One batch, with what its audits say."""
    parts, batch = await find_batch(request, batch_id)
    return await show(parts, batch, audited=True)


@router.post("/v1/batches/{batch_id}/cancel")
async def cancel(request: Request, batch_id: str) -> Response:
    """Begin no further step; finished lines are kept, and a paid call under way commits first."""
    parts, batch = await find_batch(request, batch_id)
    if batch.status in TERMINAL_BATCH_STATUSES:
        raise Conflict(f"The batch is {batch.status.value} already.", code="batch_not_cancellable")
    cancelled = await parts.store.cancel_batch(batch.project_id, batch.id)
    await parts.wake.poke("upkeep")
    return await show(parts, cancelled or batch)


@router.post("/v1/batches/{batch_id}/pause")
async def pause(request: Request, batch_id: str) -> Response:
    """Hold a batch by hand: another name for `hold`."""
    return await hold(request, batch_id)


@router.post("/v1/batches/{batch_id}/hold")
async def hold(request: Request, batch_id: str) -> Response:
    """Hold a batch by hand: nothing of it is begun until it is resumed, and its completion window stands still. What is
    under way ends and counts."""
    parts, batch = await find_batch(request, batch_id)
    held = await parts.store.hold_batch(batch.project_id, batch.id) or batch
    if not held.paused:
        raise Conflict(
            f"The batch is {held.status.value}: only one that is validating or in_progress can be held.",
            code="batch_not_holdable",
        )
    return await show(parts, held)


@router.post("/v1/batches/{batch_id}/resume")
async def resume(request: Request, batch_id: str) -> Response:
    """Go on with a batch that was held by hand, or waits because its first answers could not be read. Any other stays
    as it is."""
    parts, batch = await find_batch(request, batch_id)
    resumed = await parts.store.resume_batch(batch.project_id, batch.id)
    return await show(parts, resumed or batch)


async def show(parts: ApiParts, batch: Batch, *, audited: bool = False) -> Response:
    """A batch as JSON; `audited` adds what its audits say."""
    (body,) = await shown(parts, [batch])
    if audited:
        body["cope"]["audit"] = await batch_audit(parts, batch)
    return json_response(body)


@router.get("/v1/batches/{batch_id}/tasks")
async def list_tasks(request: Request, batch_id: str) -> Response:
    """The batch's tasks with their histories, a page at a time."""
    parts, batch = await find_batch(request, batch_id)
    refuse_pruned(batch)
    state = text_query(request, "status")
    if state is not None and state not in tuple(TaskState):
        raise BadRequest(f"`status` must be one of {', '.join(TaskState)}.", param="status")
    after = text_query(request, "after")
    page = await parts.store.list_tasks(
        batch.project_id,
        batch.id,
        state=state,
        after=None if after is None else TaskId(after),
        limit=limit_of(request, default=20, most=100),
    )
    items: list[dict[str, Any]] = [task_json(task) for task in page.items]
    return json_response(list_body(items, page.has_more))


@router.get("/v1/tasks/{task_id}")
async def get_task(request: Request, task_id: str) -> Response:
    """One task with its whole history."""
    parts, project_id, _ = await project_of(request)
    task = await parts.store.get_task(project_id, TaskId(clean_id(task_id)))
    if task is None:
        raise NotFound(f"There is no task {task_id!r}.")
    return json_response(task_json(task))
