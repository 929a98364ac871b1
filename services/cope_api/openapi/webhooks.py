"""Webhook endpoints."""

from cope_api.openapi.batches import PAGE
from cope_api.openapi.operation import op
from cope_api.openapi.shapes import (
    DELETED,
    ID,
    SECONDS,
    Schema,
    array,
    closed,
    const,
    example,
    listed,
    named,
    nullable,
    one_of,
    record,
    text,
)
from cope_api.webhooks import EVENT_TYPES

_FIELDS: dict[str, Schema] = {
    "id": ID,
    "object": const("webhook_endpoint"),
    "created_at": SECONDS,
    "updated_at": SECONDS,
    "name": text(),
    "url": text(),
    "event_types": array(text()),
    "signing_secret_hint": nullable(text("Its last four characters.")),
    "cope": record({"disabled_at": nullable(SECONDS)}),
}
ENDPOINT = named("WebhookEndpoint", record(_FIELDS))
NEW_ENDPOINT = closed(
    {"url": text(low=1, high=2000)},
    optional={
        "name": text(low=1, high=200),
        "event_types": array(one_of(EVENT_TYPES), "Default: the ends of batches.", low=1, high=32),
    },
)
_WITH_SECRET = record({**_FIELDS, "signing_secret": text("Shown here and never again.", like="^whsec_")})

OPERATIONS = {
    "POST /v1/webhook_endpoints": op(
        "Webhooks",
        _WITH_SECRET,
        body=example(NEW_ENDPOINT, {"url": "https://example.com/hook", "event_types": ["batch.completed"]}),
    ),
    "GET /v1/webhook_endpoints": op("Webhooks", listed(ENDPOINT), query=PAGE),
    "GET /v1/webhook_endpoints/{endpoint_id}": op("Webhooks", ENDPOINT),
    "DELETE /v1/webhook_endpoints/{endpoint_id}": op(
        "Webhooks", record({"id": ID, "object": const("webhook_endpoint.deleted"), "deleted": DELETED})
    ),
    "GET /v1/webhook_event_types": op(
        "Webhooks", record({"object": const("list"), "data": array(one_of(EVENT_TYPES))})
    ),
}
