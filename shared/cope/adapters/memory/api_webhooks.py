"""Webhook endpoints' settings and their messages, over the memory store, as `WebhookDesk` describes it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cope.adapters.memory.journal import note
from cope.adapters.memory.tables import DeliveryRow, Tables
from cope.adapters.memory.webhook_queue import lanes_in_trouble, under_way
from cope.core.deliveries import DeliveryFilter, DeliveryRecord, Disabled, Redelivery, WebhookBacklog
from cope.core.ids import DeliveryId, EndpointId, ProjectId
from cope.core.records import WebhookEndpoint
from cope.core.webhooks import OLD_SECRETS
from cope.ports.webhooks import EndpointChange


class ApiWebhooksMixin:
    """No method awaits."""

    _db: Tables

    async def update_endpoint(
        self, project_id: ProjectId, endpoint_id: EndpointId, change: EndpointChange
    ) -> WebhookEndpoint | None:
        """Disabling and enabling are told as events."""
        db, endpoint = self._db, self._db.endpoints.get(endpoint_id)
        if endpoint is None or endpoint.project_id != project_id:
            return None
        fresh = {
            name: value
            for name in ("name", "url", "event_types", "concurrency")
            if (value := getattr(change, name)) is not None and value != getattr(endpoint, name)
        }
        if change.disabled is not None and change.disabled is not (endpoint.disabled_at is not None):
            fresh["disabled_at"] = db.now() if change.disabled else None
            fresh["disabled_reason"] = Disabled.BY_HAND.value if change.disabled else None
            if change.disabled:
                note(db, project_id, "webhook_endpoint.disabled", id=endpoint_id, reason=Disabled.BY_HAND.value)
            else:
                note(db, project_id, "webhook_endpoint.enabled", id=endpoint_id)
        if change.disabled is False:
            db.troubles.pop(endpoint_id, None)
        return self._put(endpoint, fresh)

    async def rotate_endpoint_secret(
        self, project_id: ProjectId, endpoint_id: EndpointId, secret: str, *, keep_old_s: float | None
    ) -> WebhookEndpoint | None:
        """Of many rotations in a day, the latest secrets are kept."""
        db, endpoint = self._db, self._db.endpoints.get(endpoint_id)
        if endpoint is None or endpoint.project_id != project_id:
            return None
        if keep_old_s is None:
            db.old_secrets.pop(endpoint_id, None)
        else:
            kept = [*db.old_secrets[endpoint_id], (db.later(keep_old_s), endpoint.secret)]
            db.old_secrets[endpoint_id] = sorted(kept)[-OLD_SECRETS:]
        note(db, project_id, "webhook_endpoint.secret_rotated", id=endpoint_id, keep_old=int(keep_old_s is not None))
        return self._put(endpoint, {"secret": secret})

    async def list_deliveries(
        self, project_id: ProjectId, which: DeliveryFilter, *, after: DeliveryId | None, limit: int
    ) -> tuple[DeliveryRecord, ...]:
        """By id, which is by age."""
        found = [_record(row) for row in self._db.deliveries.values() if row.project_id == project_id]
        found = [
            one
            for one in found
            if (which.endpoint_id is None or one.endpoint_id == which.endpoint_id)
            and (which.state is None or one.state is which.state)
            and (which.since is None or one.created_at >= which.since)
            and (which.until is None or one.created_at < which.until)
            and (after is None or one.id < after)
        ]
        return tuple(sorted(found, key=lambda one: one.id, reverse=True)[:limit])

    async def get_delivery(self, project_id: ProjectId, delivery_id: DeliveryId) -> DeliveryRecord | None:
        """This project's, or None."""
        row = self._db.deliveries.get(delivery_id)
        return None if row is None or row.project_id != project_id else _record(row)

    async def redeliver(
        self, project_id: ProjectId, endpoint_id: EndpointId | None, what: Redelivery
    ) -> Sequence[DeliveryId]:
        """Each with an event."""
        db = self._db
        again: list[DeliveryId] = []
        for row in sorted(db.deliveries.values(), key=lambda row: row.id):
            own = row.project_id == project_id and endpoint_id in {None, row.endpoint_id}
            if own and len(again) < what.limit and _wanted(db, row, what):
                row.over = row.delivered = False
                row.due_at, row.attempts, row.ended_at, row.sending_until = db.now(), 0, None, None
                note(
                    db,
                    project_id,
                    "webhook_delivery.replayed",
                    id=row.id,
                    endpoint_id=row.endpoint_id,
                    event_id=row.event_id,
                )
                again.append(row.id)
        return again

    async def webhook_backlog(self) -> WebhookBacklog:
        """All of it is counted."""
        now = self._db.now()
        pending = [row for row in self._db.deliveries.values() if not row.over]
        due = [row.due_at for row in pending if row.due_at <= now]
        troubled = lanes_in_trouble(self._db)
        return WebhookBacklog(
            pending=len(pending),
            due=len(due),
            oldest_due_at=min(due, default=None),
            sending=sum(under_way(row, now) for row in pending),
            failing=troubled["failing"],
            blocked=troubled["blocked"],
            disabled=sum(endpoint.disabled_at is not None for endpoint in self._db.endpoints.values()),
        )

    def _put(self, endpoint: WebhookEndpoint, fresh: dict[str, Any]) -> WebhookEndpoint:
        if fresh:
            endpoint = replace(endpoint, updated_at=self._db.now(), **fresh)
            self._db.endpoints[endpoint.id] = endpoint
        return shown(self._db, endpoint)


def shown(db: Tables, endpoint: WebhookEndpoint) -> WebhookEndpoint:
    """With how it does at the moment."""
    old = [until for until, _ in db.old_secrets.get(endpoint.id, ()) if until > db.now()]
    return replace(endpoint, trouble=db.troubles.get(endpoint.id), old_secrets_until=max(old, default=None))


def _wanted(db: Tables, row: DeliveryRow, what: Redelivery) -> bool:
    if under_way(row, db.now()) or row.created_at is None or (what.after is not None and row.id <= what.after):
        return False
    if what.ids is not None:
        return row.id in what.ids
    if (what.since and row.created_at < what.since) or (what.until and row.created_at >= what.until):
        return False
    tried = not row.over and row.attempts > 0
    return tried or (row.over and not (what.only_failed and row.delivered))


def _record(row: DeliveryRow) -> DeliveryRecord:
    assert row.created_at is not None
    return DeliveryRecord(
        id=row.id,
        project_id=row.project_id,
        event_id=row.event_id,
        endpoint_id=row.endpoint_id,
        url=row.url,
        body=row.body,
        state=row.state,
        created_at=row.created_at,
        next_at=None if row.over else row.due_at,
        finished_at=row.ended_at,
        attempts=row.log,
    )
