"""From rows to the frozen records of `cope.core.records`."""

from collections.abc import Mapping

import orjson

from cope.adapters.postgres.counters import HELD_COLUMNS
from cope.adapters.postgres.database import Row
from cope.adapters.postgres.sealing import Sealer
from cope.adapters.postgres.taskrows import decode_error
from cope.core.codec import decode_step
from cope.core.deliveries import EndpointTrouble
from cope.core.eta import Workload
from cope.core.ids import (
    AttemptId,
    BatchId,
    EndpointId,
    EventId,
    FileId,
    KeyId,
    ProjectId,
    TaskId,
)
from cope.core.key_scopes import stored_scopes
from cope.core.lifecycle import AttemptState, BatchStatus, HoldReason, TaskState
from cope.core.money import NanoUSD
from cope.core.records import (
    ApiKey,
    Attempt,
    Batch,
    Budget,
    Event,
    LineError,
    Project,
    ProviderBatchView,
    StoredFile,
    TaskDetail,
    WebhookEndpoint,
)

# What a batch shows beyond its own row. Open money is summed from the few open attempts, so that reserving need not
# touch the batch's row; the least need is that of the first thousand held, the ones that are looked at next.
BATCH = """
SELECT b.*,
  (SELECT coalesce(sum(a.reserved) FILTER (WHERE a.state <> 'unconfirmed'), 0) FROM attempts a
   WHERE a.batch_id = b.id AND a.state IN ('reserved', 'sent', 'unconfirmed')) AS reserved,
  (SELECT coalesce(sum(a.reserved) FILTER (WHERE a.state = 'unconfirmed'), 0) FROM attempts a
   WHERE a.batch_id = b.id AND a.state IN ('reserved', 'sent', 'unconfirmed')) AS unconfirmed,
  CASE WHEN b.held_budget > 0 THEN (SELECT min(h.needed) FROM (
    SELECT t.needed FROM tasks t WHERE t.project_id = b.project_id AND t.batch_id = b.id AND t.state = 'held'
      AND t.hold = 'budget' ORDER BY t.priority, t.turn, t.id LIMIT 1000) h) END AS needed,
  CASE WHEN b.failed > 0 THEN (SELECT json_agg(json_build_array(e.code, e.message, e.count) ORDER BY e.count DESC,
    e.code)::text FROM batch_errors e WHERE e.batch_id = b.id) END AS error_counts,
  (SELECT count(*) FROM tasks t WHERE t.batch_id = b.id AND t.state = 'submitted') AS submitted,
  q.pilot_lines AS dry_run, q.quote, r.parent_id AS retry_of,
  ARRAY(SELECT c.batch_id FROM batch_retries c WHERE c.parent_id = b.id ORDER BY c.batch_id) AS retried_by
FROM batches b LEFT JOIN quotes q ON q.batch_id = b.id LEFT JOIN batch_retries r ON r.batch_id = b.id
"""


def project_of(row: Row) -> Project:
    """From `projects`."""
    return Project(
        id=ProjectId(row["id"]),
        name=row["name"],
        created_at=row["created_at"],
        time_zone=row["time_zone"],
        cap=_money(row["cap"]),
        default_kind=row["default_kind"],
        paused=row["paused"],
        pause_unparsable=row["pause_unparsable"],
        archived_at=row["archived_at"],
        audit_share=row["audit_share"],
        audit_cap=_money(row["audit_cap"]),
        keep_days=row["keep_days"],
    )


def key_of(row: Row) -> ApiKey:
    """From `api_keys`."""
    return ApiKey(
        id=KeyId(row["id"]),
        project_id=ProjectId(row["project_id"]),
        name=row["name"],
        hash=bytes(row["hash"]),
        hint=row["hint"],
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
        cap=_money(row["cap"]),
        scopes=stored_scopes(row["scopes"]),
        expires_at=row["expires_at"],
        rotated_at=row["rotated_at"],
        previous_hash=None if row["previous_hash"] is None else bytes(row["previous_hash"]),
        previous_until=row["previous_until"],
    )


def file_of(row: Row) -> StoredFile:
    """From `files`."""
    return StoredFile(
        id=FileId(row["id"]),
        project_id=ProjectId(row["project_id"]),
        filename=row["filename"],
        purpose=row["purpose"],
        bytes=row["bytes"],
        lines=row["lines"],
        sha256=row["sha256"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        blob=None if row["blob_id"] is None else FileId(row["blob_id"]),
    )


def budget_of(row: Row) -> Budget:
    """From `budgets`."""
    return Budget(
        project_id=ProjectId(row["project_id"]),
        scope=row["scope"],
        month=row["month"],
        cap=_money(row["cap"]),
        spent=NanoUSD(row["spent"]),
        reserved=NanoUSD(row["reserved"]),
        unconfirmed=NanoUSD(row["unconfirmed"]),
        overrun=NanoUSD(row["overrun"]),
    )


def batch_of(row: Row) -> Batch:
    """From a row of `BATCH`."""
    errors: list[tuple[str, str | None, int]] = orjson.loads(row["error_counts"]) if row["error_counts"] else []
    return Batch(
        id=BatchId(row["id"]),
        project_id=ProjectId(row["project_id"]),
        key_id=None if row["key_id"] is None else KeyId(row["key_id"]),
        endpoint=row["endpoint"],
        input_file_id=FileId(row["input_file_id"]),
        completion_window=row["completion_window"],
        status=BatchStatus(row["status"]),
        created_at=row["created_at"],
        defaults=row["defaults"],
        metadata=None if row["metadata"] is None else orjson.loads(row["metadata"]),
        webhook_url=row["webhook_url"],
        model=row["model"],
        output_file_id=None if row["output_file_id"] is None else FileId(row["output_file_id"]),
        error_file_id=None if row["error_file_id"] is None else FileId(row["error_file_id"]),
        output_expires_after_s=row["output_expires_after_s"],
        errors=tuple(LineError(**error) for error in orjson.loads(row["errors"])),
        in_progress_at=row["in_progress_at"],
        expires_at=row["expires_at"],
        finalizing_at=row["finalizing_at"],
        completed_at=row["completed_at"],
        failed_at=row["failed_at"],
        expired_at=row["expired_at"],
        cancelling_at=row["cancelling_at"],
        cancelled_at=row["cancelled_at"],
        total=row["total"],
        done=row["done"],
        failed=row["failed"],
        by_stage=_by_stage(row),
        held={reason: row[column] for reason, column in HELD_COLUMNS.items() if row[column]},
        held_since=row["held_since"],
        paused=row["paused"],
        submitted=row["submitted"],
        needed=_money(row["needed"]),
        cap=_money(row["cap"]),
        spent=NanoUSD(row["spent"]),
        reserved=NanoUSD(int(row["reserved"])),
        unconfirmed=NanoUSD(int(row["unconfirmed"])),
        prompt_tokens=row["prompt_tokens"],
        cached_tokens=row["cached_tokens"],
        completion_tokens=row["completion_tokens"],
        reasoning_tokens=row["reasoning_tokens"],
        error_counts={code: count for code, _, count in errors},
        error_messages={code: message for code, message, _ in errors if message},
        workload=_workload(row),
        dry_run=row["dry_run"],
        quote=row["quote"],
        audit_share=row["audit_share"],
        open=row["open"],
        retry_of=None if row["retry_of"] is None else BatchId(row["retry_of"]),
        retried_by=tuple(BatchId(one) for one in row["retried_by"]),
        pruned_at=row["pruned_at"],
    )


def _workload(row: Row) -> Workload:
    return Workload(
        total=row["total"],
        ended=row["done"] + row["failed"],
        at_large=row["at_large"],
        first_large=row["first_large"],
        small_steps=row["small_steps"],
        large_steps=row["large_steps"],
    )


def _by_stage(row: Row) -> Mapping[str, int]:
    counts = {"1": row["stage1"], "2": row["stage2"], "3": row["stage3"], "failed": row["failed"]}
    return {stage: number for stage, number in counts.items() if number}


def attempt_of(row: Row) -> Attempt:
    """From `attempts`."""
    return Attempt(
        id=AttemptId(row["id"]),
        task_id=TaskId(row["task_id"]),
        step=row["step"],
        model=row["model"],
        state=AttemptState(row["state"]),
        month=row["month"],
        reserved=NanoUSD(row["reserved"]),
        cost=_money(row["cost"]),
        price_version=row["price_version"],
        price_id=row["price_id"],
        price_tier=row["price_tier"],
        created_at=row["created_at"],
        sent_at=row["sent_at"],
        settled_at=row["settled_at"],
        flag=row["flag"],
    )


def task_of(row: Row, attempts: tuple[Attempt, ...]) -> TaskDetail:
    """From a row of `tasks` with its policy's text as `spec` and its steps' data as `steps`."""
    batch_id = None if row["batch_id"] is None else BatchId(row["batch_id"])
    return TaskDetail(
        id=TaskId(row["id"]),
        project_id=ProjectId(row["project_id"]),
        batch_id=batch_id,
        custom_id=None if batch_id is None else row["custom_id"],
        state=TaskState(row["state"]),
        hold=None if row["hold"] is None else HoldReason(row["hold"]),
        queue=row["queue"],
        policy=row["spec"],
        created_at=row["created_at"],
        finished_at=row["finished_at"],
        tries=row["tries"],
        crashes=row["crashes"],
        payload=row["payload"],
        history=tuple(decode_step(step) for step in row["steps"]),
        result=row["result"],
        error=decode_error(row["error"]),
        attempts=attempts,
        provider_batch=_provider_batch(row),
    )


def _provider_batch(row: Row) -> ProviderBatchView | None:
    if row["state"] != "submitted":
        return None
    state = row["provider_state"]
    if state in {None, "forming"}:
        return ProviderBatchView(None, "gathering")
    return ProviderBatchView(row["provider_id"], row["provider_status"] or str(state))


def endpoint_of(row: Row, sealer: Sealer) -> WebhookEndpoint:
    """From `ENDPOINT` (`api_webhooks`), with the secret opened."""
    return WebhookEndpoint(
        id=EndpointId(row["id"]),
        project_id=ProjectId(row["project_id"]),
        name=row["name"],
        url=row["url"],
        event_types=tuple(row["event_types"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        secret=sealer.open(row["secret"]),
        disabled_at=row["disabled_at"],
        disabled_reason=row["disabled_reason"],
        concurrency=row["concurrency"],
        old_secrets_until=row["old_secrets_until"],
        trouble=None
        if row["failures"] is None
        else EndpointTrouble(
            failures=row["failures"],
            failing_since=row["failing_since"],
            failed_at=row["failed_at"],
            blocked_until=row["blocked_until"],
            status=row["status"],
            error=row["error"],
        ),
    )


def event_of(row: Row) -> Event:
    """From `events`."""
    return Event(
        offset=row["offset"],
        id=EventId(row["id"]),
        project_id=ProjectId(row["project_id"]),
        batch_id=None if row["batch_id"] is None else BatchId(row["batch_id"]),
        task_id=None if row["task_id"] is None else TaskId(row["task_id"]),
        type=row["type"],
        at=row["at"],
        data=row["data"],
    )


def _money(amount: int | None) -> NanoUSD | None:
    return None if amount is None else NanoUSD(amount)
