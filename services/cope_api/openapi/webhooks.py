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
    either,
    example,
    flag,
    listed,
    named,
    nullable,
    one_of,
    record,
    text,
    whole,
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
    "cope": record(
        {
            "disabled_at": nullable(SECONDS),
            "disabled_reason": nullable(one_of(["gone", "failing"])),
            "failing_since": nullable(SECONDS),
            "old_secret_until": nullable(SECONDS),
        }
    ),
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

_TYPES = array(one_of(EVENT_TYPES), low=1, high=32)
_DELIVERY: dict[str, Schema] = {
    "id": ID,
    "object": const("webhook_delivery"),
    "event_id": ID,
    "webhook_endpoint_id": nullable(ID),
    "url": text(),
    "status": one_of(["pending", "delivered", "dead"]),
    "attempt_count": whole(low=0),
    "next_attempt_at": nullable(SECONDS),
    "created_at": SECONDS,
    "finished_at": nullable(SECONDS),
    "last_status_code": nullable(whole()),
    "last_error": nullable(text()),
}
DELIVERY = named("WebhookDelivery", record(_DELIVERY))
_ATTEMPT = record(
    {
        "attempt": whole(low=1),
        "at": SECONDS,
        "took_ms": whole(low=0),
        "status_code": nullable(whole()),
        "error": nullable(text()),
        "response_excerpt": text("At most 1 KiB of the answer."),
    }
)
_LISTED = {**PAGE, "status": one_of(["pending", "delivered", "dead"])}
_ONE = "/v1/webhook_endpoints/{endpoint_id}"

OPERATIONS = {
    f"POST {_ONE}": op(
        "Webhooks",
        ENDPOINT,
        body=closed({}, optional={"url": text(low=1, high=2000), "name": text(low=1, high=200), "event_types": _TYPES}),
    ),
    f"POST {_ONE}/rotate_secret": op(
        "Webhooks",
        _WITH_SECRET,
        body=closed({}, optional={"keep_old_secret_active_for_24_hours": flag("Both sign for a day.")}),
        body_needed=False,
    ),
    f"POST {_ONE}/test": op(
        "Webhooks",
        record(
            {
                "object": const("webhook_endpoint.test"),
                "webhook_endpoint_id": ID,
                "event_type": one_of(EVENT_TYPES),
                "status_code": nullable(whole()),
                "success": flag(),
                "cope": record({"error": nullable(text()), "response_excerpt": text()}),
            }
        ),
        body=closed({"event_type": one_of(EVENT_TYPES)}),
    ),
    f"GET {_ONE}/deliveries": op("Webhooks", listed(DELIVERY), query=_LISTED),
    f"POST {_ONE}/redeliver": op(
        "Webhooks",
        record(
            {"object": const("webhook_endpoint.redelivery"), "webhook_endpoint_id": ID, "count": whole(low=0)},
        ),
        body=either(
            closed({"delivery_ids": array(text(low=1), low=1, high=1000)}, optional={"only_failed": flag()}),
            closed(
                {"since": whole(low=0, high=253_402_300_799)},
                optional={"until": whole(low=1, high=253_402_300_799), "only_failed": flag()},
            ),
        ),
        errors=(422,),
    ),
    "GET /v1/webhook_deliveries": op("Webhooks", listed(DELIVERY), query=_LISTED),
    "GET /v1/webhook_deliveries/{delivery_id}": op(
        "Webhooks", record({**_DELIVERY, "request_body": text(), "attempts": array(_ATTEMPT)})
    ),
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
