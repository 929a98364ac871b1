"""Webhook endpoints and their deliveries over the memory store: as `adapters/postgres/{webhooks,api_webhooks}.py`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from cope.adapters.memory.journal import note, tell_delivery
from cope.adapters.memory.tables import DeliveryRow, Tables
from cope.core.deliveries import (
    AT_ONCE_EACH,
    AT_ONCE_FAILING,
    DISABLED_AFTER,
    MOST_AGAIN,
    OVERLAP,
    Again,
    DeliveryAttempt,
    DeliveryRecord,
    DeliveryState,
    disabled,
)
from cope.core.ids import DeliveryId, EndpointId, ProjectId
from cope.core.records import Delivery, WebhookEndpoint
from cope.ports.store import WebhookOutcome


class HooksMixin:
    """Both sides' part of `MemoryStore` about webhooks."""

    _db: Tables

    async def claim_deliveries(self, *, limit: int, lease_s: float) -> list[Delivery]:
        """The longest due first, a bounded number to each address; `attempt` counts from 1."""
        now = self._db.now()
        open_ = sorted(
            (row for row in self._db.deliveries.values() if not row.over), key=lambda row: (row.due_at, row.id)
        )
        busy = Counter(_target(row) for row in open_ if row.sending_until is not None and row.sending_until > now)
        taken: list[DeliveryRow] = []
        for row in open_:
            if len(taken) < limit and row.due_at <= now and busy[_target(row)] < self._most(row):
                busy[_target(row)] += 1
                taken.append(row)
        for row in taken:
            row.attempts += 1
            row.due_at = row.sending_until = self._db.later(lease_s)
        return [self._order(row) for row in taken]

    def _most(self, row: DeliveryRow) -> int:
        endpoint = None if row.endpoint_id is None else self._db.endpoints.get(row.endpoint_id)
        return AT_ONCE_EACH if endpoint is None or endpoint.failing_since is None else AT_ONCE_FAILING

    def _order(self, row: DeliveryRow) -> Delivery:
        endpoint = None if row.endpoint_id is None else self._db.endpoints.get(row.endpoint_id)
        until, older = None if endpoint is None else endpoint.previous_until, None
        if endpoint is not None and until is not None and until > self._db.now():
            older = self._db.older_secrets.get(endpoint.id)
        return Delivery(
            id=row.id,
            message_id=row.event_id,
            url=row.url,
            body=row.body,
            attempt=row.attempts,
            secret=row.secret if endpoint is None else endpoint.secret,
            older_secret=older,
            endpoint_id=row.endpoint_id,
        )

    async def finish_deliveries(self, outcomes: Sequence[WebhookOutcome]) -> None:
        """Unknown and finished deliveries are passed over."""
        told: list[tuple[EndpointId, WebhookOutcome]] = []
        for outcome in outcomes:
            row = self._db.deliveries.get(outcome.delivery_id)
            if row is None or row.over:
                continue
            row.last_status, row.last_error, row.excerpt = outcome.status, outcome.error, outcome.excerpt
            row.delivered, row.sending_until = outcome.delivered, None
            row.over = outcome.delivered or outcome.retry_in_s is None
            if outcome.retry_in_s is not None:
                row.due_at = self._db.later(outcome.retry_in_s)
            row.log.append(
                DeliveryAttempt(
                    row.attempts, self._db.now(), outcome.took_ms, outcome.status, outcome.error, outcome.excerpt
                )
            )
            tell_delivery(self._db, row)
            if row.endpoint_id in self._db.endpoints and row.endpoint_id is not None:
                told.append((row.endpoint_id, outcome))
        for endpoint_id in dict.fromkeys(id_ for id_, _ in told):
            self._judge(endpoint_id, [outcome for id_, outcome in told if id_ == endpoint_id])

    def _judge(self, endpoint_id: EndpointId, outcomes: Sequence[WebhookOutcome]) -> None:
        endpoint, now = self._db.endpoints[endpoint_id], self._db.now()
        since = None if any(outcome.delivered for outcome in outcomes) else endpoint.failing_since or now
        endpoint = self._db.endpoints[endpoint_id] = replace(endpoint, failing_since=since)
        gone = any(outcome.disable_endpoint for outcome in outcomes)
        failing = since is not None and since <= now - DISABLED_AFTER
        if endpoint.disabled_at is not None or not (gone or failing):
            return
        reason = "gone" if gone else "failing"
        self._db.endpoints[endpoint_id] = replace(endpoint, disabled_at=now, disabled_reason=reason)
        for row in self._db.deliveries.values():
            if row.endpoint_id == endpoint_id and not row.over:
                row.over, row.ended_at, row.sending_until = True, now, None
                row.last_error = row.last_error or "the endpoint is disabled"
        note(self._db, endpoint.project_id, "webhook_endpoint.disabled", id=endpoint_id, reason=reason)

    # ---- the API's side --------------------------------------------------------------------------------------------

    async def update_endpoint(
        self,
        project_id: ProjectId,
        endpoint_id: EndpointId,
        *,
        name: str | None = None,
        url: str | None = None,
        event_types: tuple[str, ...] | None = None,
    ) -> WebhookEndpoint | None:
        """Messages that wait for it go to the new address."""
        endpoint = self._endpoint(project_id, endpoint_id)
        if endpoint is None:
            return None
        changed = replace(
            endpoint,
            name=endpoint.name if name is None else name,
            url=endpoint.url if url is None else url,
            event_types=endpoint.event_types if event_types is None else event_types,
            updated_at=self._db.now(),
            disabled_at=None,
            disabled_reason=None,
            failing_since=None,
        )
        self._db.endpoints[endpoint_id] = changed
        for row in self._db.deliveries.values():
            if row.endpoint_id == endpoint_id and not row.over:
                row.url = changed.url
        note(self._db, project_id, "webhook_endpoint.updated", id=endpoint_id)
        return changed

    async def rotate_secret(
        self, project_id: ProjectId, endpoint_id: EndpointId, secret: str, *, keep_old: bool
    ) -> WebhookEndpoint | None:
        """Deliveries that wait are signed with the new one."""
        endpoint = self._endpoint(project_id, endpoint_id)
        if endpoint is None:
            return None
        self._db.older_secrets[endpoint_id] = endpoint.secret
        until = self._db.now() + OVERLAP if keep_old else None
        changed = replace(endpoint, secret=secret, previous_until=until, updated_at=self._db.now())
        self._db.endpoints[endpoint_id] = changed
        note(self._db, project_id, "webhook_endpoint.updated", id=endpoint_id)
        return changed

    async def list_deliveries(
        self,
        project_id: ProjectId,
        *,
        endpoint_id: EndpointId | None,
        state: DeliveryState | None,
        after: DeliveryId | None,
        limit: int,
    ) -> tuple[DeliveryRecord, ...]:
        """Newest first."""
        mine = [
            _record(row, ())
            for row in self._db.deliveries.values()
            if row.project_id == project_id
            and (endpoint_id is None or row.endpoint_id == endpoint_id)
            and (after is None or row.id < after)
        ]
        found = sorted((one for one in mine if state in (None, one.state)), key=lambda one: one.id, reverse=True)
        return tuple(found[:limit])

    async def get_delivery(self, project_id: ProjectId, delivery_id: DeliveryId) -> DeliveryRecord | None:
        """With its attempts."""
        row = self._db.deliveries.get(delivery_id)
        return None if row is None or row.project_id != project_id else _record(row, tuple(row.log))

    async def send_again(self, project_id: ProjectId, endpoint_id: EndpointId, which: Again) -> int:
        """The oldest first."""
        endpoint = self._endpoint(project_id, endpoint_id)
        if endpoint is None:
            return 0
        if endpoint.disabled_at is not None:
            raise disabled()
        rows = sorted(self._db.deliveries.values(), key=lambda row: row.id)
        chosen = [row for row in rows if row.endpoint_id == endpoint_id and _wanted(row, which)][:MOST_AGAIN]
        for row in chosen:
            row.over = row.delivered = False
            row.attempts, row.due_at, row.ended_at, row.url = 0, self._db.now(), None, endpoint.url
            note(
                self._db,
                project_id,
                "webhook_delivery.replayed",
                id=row.id,
                endpoint_id=row.endpoint_id,
                event_id=row.event_id,
            )
        return len(chosen)

    def _endpoint(self, project_id: ProjectId, endpoint_id: EndpointId) -> WebhookEndpoint | None:
        endpoint = self._db.endpoints.get(endpoint_id)
        return endpoint if endpoint is not None and endpoint.project_id == project_id else None


def _wanted(row: DeliveryRow, which: Again) -> bool:
    made = row.created_at
    return (
        row.over
        and not (which.only_failed and row.delivered)
        and (which.ids is None or row.id in which.ids)
        and (which.since is None or made is None or made >= which.since)
        and (which.until is None or made is None or made < which.until)
    )


def _target(row: DeliveryRow) -> str:
    return f"{row.project_id} {row.endpoint_id or row.url}"


def _record(row: DeliveryRow, log: tuple[DeliveryAttempt, ...]) -> DeliveryRecord:
    state = DeliveryState.DELIVERED if row.delivered else DeliveryState.DEAD if row.over else DeliveryState.PENDING
    return DeliveryRecord(
        id=row.id,
        event_id=row.event_id,
        endpoint_id=row.endpoint_id,
        url=row.url,
        body=row.body,
        state=state,
        attempts=row.attempts,
        due_at=row.due_at if state is DeliveryState.PENDING else None,
        created_at=row.created_at or row.due_at,
        finished_at=row.ended_at,
        status=row.last_status,
        error=row.last_error,
        log=log,
    )
