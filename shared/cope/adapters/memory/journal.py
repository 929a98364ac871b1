"""Events in the order they happened, and the webhook deliveries that some of them make."""

import json
from collections.abc import Mapping
from dataclasses import replace

from cope.adapters.memory.tables import DeliveryRow, Tables
from cope.core import ids
from cope.core.ids import BatchId, DeliveryId, EndpointId, EventId, ProjectId, TaskId
from cope.core.records import Batch, Event
from cope.core.webhooks import message_body


def note(
    db: Tables,
    project_id: ProjectId,
    type_: str,
    *,
    batch_id: BatchId | None = None,
    task_id: TaskId | None = None,
    **data: str | int | None,
) -> Event:
    """Write an event; its offset follows when the sweep sequences it. An audit's own task is internal: no event."""
    event = Event(
        offset=None,
        id=EventId(db.ids.new(ids.EVENT)),
        project_id=project_id,
        batch_id=batch_id,
        task_id=task_id,
        type=type_,
        at=db.now(),
        data=json.dumps({key: value for key, value in data.items() if value is not None}),
    )
    about = None if task_id is None else db.tasks.get(task_id)
    if about is None or not about.is_audit or type_ == "budget.overrun":
        db.unsequenced.append(event)
    return event


def sequence(db: Tables) -> int:
    """Give every new event its offset: 1, 2, 3 … in its project. Returns how many there were."""
    fresh, db.unsequenced = db.unsequenced, []
    for event in fresh:
        log = db.logs[event.project_id]
        log.events.append(replace(event, offset=log.head + 1))
        log.logged.append(db.now())
    if fresh:
        grown = frozenset(event.project_id for event in fresh)
        for listener in db.listeners:
            listener.put_nowait(grown)
    return len(fresh)


def tell_delivery(db: Tables, row: DeliveryRow) -> None:
    """One attempt at a delivery and what it came to."""
    became = "delivered" if row.delivered else "dead" if row.over else "retrying"
    row.ended_at = db.now() if row.over else None
    note(
        db,
        row.project_id,
        f"webhook_delivery.{became}",
        id=row.id,
        endpoint_id=row.endpoint_id,
        event_id=row.event_id,
        attempt=row.attempts,
        status=row.last_status,
        error=row.last_error,
    )


def publish(
    db: Tables,
    project_id: ProjectId,
    type_: str,
    *,
    data: Mapping[str, str | int | None],
    batch_id: BatchId | None = None,
    task_id: TaskId | None = None,
) -> None:
    """Write an event, and a delivery of it for every endpoint of the project that asked for its type."""
    event = note(db, project_id, type_, batch_id=batch_id, task_id=task_id, **data)
    body = message_body(
        event_id=event.id,
        type_=type_,
        created_at=int(event.at.timestamp()),
        about=batch_id or project_id,
        data={"project_id": project_id, "batch_id": batch_id, **data},
    )
    for endpoint in db.endpoints.values():
        if endpoint.project_id == project_id and type_ in endpoint.event_types and endpoint.disabled_at is None:
            _deliver(db, event, body, url=endpoint.url, secret=endpoint.secret, endpoint_id=endpoint.id)


def note_and_deliver(db: Tables, batch: Batch) -> None:
    """The event of a batch's end, and one delivery per endpoint that asked for it and per the batch's own address."""
    type_ = f"batch.{batch.status.value}"
    event = note(db, batch.project_id, type_, batch_id=batch.id, id=batch.id)
    created = int(event.at.timestamp())
    body = message_body(event_id=event.id, type_=type_, created_at=created, about=batch.id, data={})
    for endpoint in db.endpoints.values():
        wanted = endpoint.project_id == batch.project_id and type_ in endpoint.event_types
        if wanted and endpoint.disabled_at is None:
            _deliver(db, event, body, url=endpoint.url, secret=endpoint.secret, endpoint_id=endpoint.id)
    if batch.webhook_url is not None:
        secret = db.projects[batch.project_id].webhook_secret
        _deliver(db, event, body, url=batch.webhook_url, secret=secret, endpoint_id=None)


def _deliver(db: Tables, event: Event, body: str, *, url: str, secret: str, endpoint_id: EndpointId | None) -> None:
    row = DeliveryRow(
        id=DeliveryId(db.ids.new(ids.DELIVERY)),
        event_id=event.id,
        project_id=event.project_id,
        endpoint_id=endpoint_id,
        url=url,
        body=body,
        secret=secret,
        due_at=db.now(),
        created_at=db.now(),
    )
    db.deliveries[row.id] = row
