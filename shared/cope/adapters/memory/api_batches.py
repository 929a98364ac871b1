"""Batches, tasks, live calls, webhook endpoints and events over the memory store, as `ApiStore` describes them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from cope.adapters.memory.api_projects import ApiProjectsMixin, page_of
from cope.adapters.memory.api_webhooks import ApiWebhooksMixin, shown
from cope.adapters.memory.endings import close_batch, end_or_wait
from cope.adapters.memory.journal import note
from cope.adapters.memory.open_batches import OpenBatchesMixin, begin_open
from cope.adapters.memory.reading import workload
from cope.adapters.memory.standstill import refresh
from cope.adapters.memory.tables import BatchRow, TaskRow, is_open
from cope.core.codec import blank_payload, decode_task, prune_step
from cope.core.errors import Conflict
from cope.core.ids import BatchId, EndpointId, ProjectId, TaskId
from cope.core.lifecycle import BatchStatus, HoldReason, TaskState
from cope.core.parse_watch import ParseWatch
from cope.core.records import Batch, ProviderBatchView, TaskDetail, WebhookEndpoint
from cope.core.responses.result import ERASED
from cope.core.result import error_body
from cope.core.task import StoreLevel
from cope.ports.provider_batches import ProviderState
from cope.ports.store import LiveResult, NewBatch, NewLiveTask, Page

_RETRY_WINDOW = timedelta(minutes=15)
_KEY_WINDOW = timedelta(hours=24)
_CLIENT_CLOSED = 499


class ApiBatchesMixin(OpenBatchesMixin, ApiWebhooksMixin, ApiProjectsMixin):
    """What a project's key may do."""

    async def create_batch(self, new: NewBatch) -> Batch:
        """An explicit key is remembered for 24 hours."""
        first = self._first_of(new)
        if first is not None:
            return self._shown(first)
        reads = not new.batch.open and new.batch.retry_of is None
        if reads and new.batch.input_file_id not in self._db.files:
            raise Conflict(f"File {new.batch.input_file_id!r} was deleted.", code="file_not_found")
        owner = BatchRow(new.batch, new.body_hash, new.idempotency_key)
        if new.batch.dry_run is not None:
            owner.watch = ParseWatch.PASSED  # it makes no paid call that could wait
        self._db.batches[new.batch.id] = owner
        note(self._db, new.batch.project_id, "batch.created", batch_id=new.batch.id, id=new.batch.id)
        if new.batch.open:
            begin_open(self._db, owner, new.open_for)
        return self._shown(owner)

    async def get_batch(self, project_id: ProjectId, batch_id: BatchId) -> Batch | None:
        """This project's batch, or None."""
        owner = self._batch(project_id, batch_id)
        return None if owner is None else self._shown(owner)

    async def list_batches(self, project_id: ProjectId, *, after: BatchId | None, limit: int) -> Page[Batch]:
        """Newest first."""
        mine = (self._shown(o) for o in self._db.batches.values() if o.batch.project_id == project_id)
        return page_of(mine, after=after, limit=limit, ascending=False, id_of=lambda batch: batch.id)

    async def cancel_batch(self, project_id: ProjectId, batch_id: BatchId) -> Batch | None:
        """A batch that is already finalizing is returned as it is: its work is done."""
        owner = self._batch(project_id, batch_id)
        if owner is None:
            return None
        if is_open(owner.batch.status):
            owner.batch = replace(owner.batch, status=BatchStatus.CANCELLING, cancelling_at=self._db.now())
            owner.job_until = None
            note(self._db, project_id, "batch.cancelling", batch_id=batch_id, id=batch_id)
            close_batch(self._db, owner, TaskState.CANCELLED)
        return self._shown(owner)

    async def hold_batch(self, project_id: ProjectId, batch_id: BatchId) -> Batch | None:
        """A batch that has ended, or is ending, is returned as it is."""
        owner = self._batch(project_id, batch_id)
        if owner is None:
            return None
        if is_open(owner.batch.status) and not owner.batch.paused:
            owner.batch = replace(owner.batch, paused=True)
            refresh(self._db, owner)
            why = HoldReason.PAUSED.value
            note(self._db, project_id, "batch.paused", batch_id=batch_id, id=batch_id, reason=why)
        return self._shown(owner)

    async def resume_batch(self, project_id: ProjectId, batch_id: BatchId) -> Batch | None:
        """The sweep makes its held tasks ready again."""
        owner = self._batch(project_id, batch_id)
        if owner is None:
            return None
        if owner.watch is ParseWatch.PAUSED or owner.batch.paused:
            owner.watch = ParseWatch.PASSED if owner.watch is ParseWatch.PAUSED else owner.watch
            owner.batch = replace(owner.batch, paused=False)
            refresh(self._db, owner)
            note(self._db, project_id, "batch.resumed", batch_id=batch_id, id=batch_id)
        return self._shown(owner)

    async def get_task(self, project_id: ProjectId, task_id: TaskId) -> TaskDetail | None:
        """This project's task, or None."""
        row = self._task(project_id, task_id)
        return None if row is None else self._detail(row)

    async def list_tasks(
        self, project_id: ProjectId, batch_id: BatchId, *, state: str | None, after: TaskId | None, limit: int
    ) -> Page[TaskDetail]:
        """By id, which is by line."""
        if self._batch(project_id, batch_id) is None:
            return Page((), has_more=False)
        rows = (row for row in self._db.batch_tasks.get(batch_id, ()) if state is None or row.state.value == state)
        page = page_of(rows, after=after, limit=limit, ascending=True, id_of=lambda row: row.id)
        return Page(tuple(self._detail(row) for row in page.items), page.has_more)

    async def create_live_task(self, new: NewLiveTask) -> TaskId:
        """The new task's id, or that of the one it joins."""
        if new.is_retry:
            for row in reversed(self._db.tasks.values()):
                if row.project_id == new.project_id and row.body_hash == new.body_hash and self._joinable(row):
                    return row.id
        row = self._db.add_task(
            new.task, project_id=new.project_id, batch_id=None, key_id=new.key_id, body_hash=new.body_hash
        )
        note(self._db, new.project_id, "task.created", task_id=row.id)
        return row.id

    async def live_results(self, task_ids: Sequence[TaskId]) -> list[LiveResult]:
        """In the order asked for."""
        rows = (self._db.tasks.get(task_id) for task_id in task_ids)
        return [_live_result(row) for row in rows if row is not None and row.ended]

    async def cancel_live_task(self, project_id: ProjectId, task_id: TaskId) -> None:
        """A task that has ended, or is part of a batch, stays as it is."""
        row = self._task(project_id, task_id)
        if row is not None and row.batch_id is None and not row.ended:
            end_or_wait(self._db, row, TaskState.CANCELLED)

    async def erase_live_task(self, project_id: ProjectId, task_id: TaskId) -> bool:
        """An audit's own task is not one."""
        row = self._task(project_id, task_id)
        if row is None or row.batch_id is not None or row.is_audit or not row.ended:
            return False
        new = row.new = row.new._replace(payload=blank_payload(row.new.payload), pool=None)
        row.spec = decode_task(
            row.id, payload=new.payload, policy=new.policy, seed=new.seed, on_budget=new.on_budget.value
        )
        row.history = tuple(prune_step(step, StoreLevel.NONE, frozenset()) for step in row.history)
        row.body, row.status, row.body_hash = json.dumps(error_body(ERASED)), 404, None
        for attempt in self._db.task_attempts.get(row.id, ()):
            attempt.answer = None
        return True

    async def create_endpoint(self, endpoint: WebhookEndpoint) -> WebhookEndpoint:
        """The row as stored."""
        self._db.endpoints[endpoint.id] = endpoint
        note(self._db, endpoint.project_id, "webhook_endpoint.created", id=endpoint.id, url=endpoint.url)
        return endpoint

    async def list_endpoints(
        self, project_id: ProjectId, *, after: EndpointId | None, limit: int
    ) -> Page[WebhookEndpoint]:
        """Oldest first."""
        mine = (endpoint for endpoint in self._db.endpoints.values() if endpoint.project_id == project_id)
        page = page_of(mine, after=after, limit=limit, ascending=True, id_of=lambda endpoint: endpoint.id)
        return Page(tuple(shown(self._db, endpoint) for endpoint in page.items), page.has_more)

    async def get_endpoint(self, project_id: ProjectId, endpoint_id: EndpointId) -> WebhookEndpoint | None:
        """This project's endpoint, or None."""
        endpoint = self._db.endpoints.get(endpoint_id)
        return shown(self._db, endpoint) if endpoint is not None and endpoint.project_id == project_id else None

    async def delete_endpoint(self, project_id: ProjectId, endpoint_id: EndpointId) -> bool:
        """Deliveries still due to it are dropped with it."""
        if await self.get_endpoint(project_id, endpoint_id) is None:
            return False
        del self._db.endpoints[endpoint_id]
        self._db.troubles.pop(endpoint_id, None)
        self._db.old_secrets.pop(endpoint_id, None)
        for delivery in self._db.deliveries.values():
            delivery.over = delivery.over or delivery.endpoint_id == endpoint_id
        note(self._db, project_id, "webhook_endpoint.deleted", id=endpoint_id)
        return True

    async def ping(self) -> None:
        """Memory always answers."""

    async def aclose(self) -> None:
        """Nothing to close."""

    def _first_of(self, new: NewBatch) -> BatchRow | None:
        now = self._db.now()
        latest: BatchRow | None = None
        for owner in self._db.batches.values():
            if owner.batch.project_id != new.batch.project_id:
                continue
            age = now - owner.batch.created_at
            if new.idempotency_key is not None:
                if owner.idempotency_key != new.idempotency_key or age > _KEY_WINDOW:
                    continue
                if owner.body_hash != new.body_hash:
                    raise Conflict("This idempotency key was used for another body.", code="idempotency_key_reused")
                return owner
            if owner.retries < new.retry and owner.body_hash == new.body_hash and age <= _RETRY_WINDOW:
                latest = owner
        if latest is not None:
            latest.retries = new.retry
        return latest

    def _joinable(self, row: TaskRow) -> bool:
        if row.batch_id is not None or row.ending is not None or row.state is TaskState.CANCELLED:
            return False
        return row.finished_at is None or row.finished_at >= self._db.now() - _RETRY_WINDOW

    def _batch(self, project_id: ProjectId, batch_id: BatchId) -> BatchRow | None:
        owner = self._db.batches.get(batch_id)
        return owner if owner is not None and owner.batch.project_id == project_id else None

    def _shown(self, owner: BatchRow) -> Batch:
        tasks = self._db.batch_tasks.get(owner.batch.id, ())
        submitted = sum(1 for row in tasks if row.state is TaskState.SUBMITTED)
        retries = tuple(sorted(r.batch.id for r in self._db.batches.values() if r.batch.retry_of == owner.batch.id))
        return replace(owner.batch, submitted=submitted, workload=workload(self._db, owner), retried_by=retries)

    def _provider_batch(self, row: TaskRow) -> ProviderBatchView | None:
        if row.state is not TaskState.SUBMITTED:
            return None
        for line in self._db.provider_lines.values():
            if line.task_id == row.id and line.fence == row.fence and line.provider_batch is not None:
                found = self._db.provider_batches[line.provider_batch]
                if found.state is not ProviderState.FORMING:
                    return ProviderBatchView(found.provider_id, found.status or found.state.value)
        return ProviderBatchView(None, "gathering")

    def _task(self, project_id: ProjectId, task_id: TaskId) -> TaskRow | None:
        row = self._db.tasks.get(task_id)
        return row if row is not None and row.project_id == project_id else None

    def _detail(self, row: TaskRow) -> TaskDetail:
        return TaskDetail(
            id=row.id,
            project_id=row.project_id,
            batch_id=row.batch_id,
            custom_id=row.new.custom_id if row.batch_id is not None else None,
            state=row.state,
            hold=row.hold,
            queue=row.queue,
            policy=row.new.policy,
            created_at=row.created_at,
            finished_at=row.finished_at,
            tries=row.tries,
            crashes=row.crashes,
            payload=row.new.payload,
            history=row.history,
            result=row.body,
            error=row.error,
            attempts=tuple(attempt.record() for attempt in self._db.task_attempts.get(row.id, ())),
            provider_batch=self._provider_batch(row),
        )


def _live_result(row: TaskRow) -> LiveResult:
    if row.body is not None and row.status is not None:
        return LiveResult(row.id, row.status, row.body)
    assert row.error is not None
    return LiveResult(row.id, _CLIENT_CLOSED, json.dumps(error_body(row.error)))
