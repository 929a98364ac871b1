"""Events as CloudEvents 1.0 envelopes (structured JSON), over HTTP and in Kafka alike."""

from typing import Any

from cope.core.records import Event

ONE, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"


def envelope(event: Event, data: object) -> dict[str, Any]:
    """The envelope; `data` is the event's, decoded or as a fragment.

    `id` is the message id that webhooks carry too, constant for ever; `offset` and `partitionkey` (what order is
    promised within: the batch, else the project) are extension attributes.
    """
    parts = [part for part in (event.batch_id, event.task_id) if part is not None]
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": f"/projects/{event.project_id}",
        "type": event.type,
        "subject": "/".join(parts) or event.project_id,
        "time": event.at.isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "offset": None if event.offset is None else str(event.offset),
        "partitionkey": partition_key(event),
        "data": data,
    }


def partition_key(event: Event) -> str:
    """Events with the same key are in order."""
    return event.batch_id or event.project_id
