"""Webhook endpoints."""

from cope.core.deliveries import MOST_CONCURRENCY
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
    mapping,
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
            "disabled_reason": nullable(one_of(["gone", "failing", "by_hand"])),
            "concurrency": whole("Messages under way to it at once, at most.", low=1, high=MOST_CONCURRENCY),
            "old_secret_active_until": nullable(SECONDS),
            "failing": nullable(
                record(
                    {
                        "since": SECONDS,
                        "failures": whole(low=1),
                        "last_failed_at": SECONDS,
                        "last_status_code": nullable(whole()),
                        "last_error": nullable(text()),
                        "left_alone_until": nullable(SECONDS),
                    },
                    "None unless its last attempt failed.",
                )
            ),
        }
    ),
}
ENDPOINT = named("WebhookEndpoint", record(_FIELDS))
_CONCURRENCY = whole("Messages under way to it at once.", low=1, high=MOST_CONCURRENCY)
_OWN = closed({}, optional={"concurrency": _CONCURRENCY, "disabled": flag()})
NEW_ENDPOINT = closed(
    {"url": text(low=1, high=2000)},
    optional={
        "name": text(low=1, high=200),
        "event_types": array(one_of(EVENT_TYPES), "Default: the ends of batches.", low=1, high=32),
        "cope": _OWN,
    },
)
_WITH_SECRET = record({**_FIELDS, "signing_secret": text("Shown here and never again.", like="^whsec_")})

_TYPES = array(one_of(EVENT_TYPES), low=1, high=32)
_STATUS = one_of(["pending", "delivered", "dead"])
_DELIVERY: dict[str, Schema] = {
    "id": ID,
    "object": const("webhook_delivery"),
    "webhook_endpoint_id": nullable(ID),
    "event_id": ID,
    "event_type": text(),
    "url": text(),
    "status": _STATUS,
    "attempts": whole("Attempts in the log.", low=0),
    "created_at": SECONDS,
    "finished_at": nullable(SECONDS),
    "next_attempt_at": nullable(SECONDS),
    "last_attempt": nullable(
        record(
            {
                "at": SECONDS,
                "status_code": nullable(whole()),
                "error": nullable(text()),
                "latency_ms": whole(low=0),
            }
        )
    ),
}
DELIVERY = named("WebhookDelivery", record(_DELIVERY))
_WHOLE = named(
    "WholeWebhookDelivery",
    record(
        {
            **_DELIVERY,
            "request": record({"method": const("POST"), "headers": mapping(text()), "body": text()}),
            "attempt_log": array(
                record(
                    {
                        "attempt": whole(low=1),
                        "at": SECONDS,
                        "latency_ms": whole(low=0),
                        "status_code": nullable(whole()),
                        "error": nullable(text()),
                        "response_excerpt": nullable(text("The beginning of the answer.")),
                    }
                )
            ),
        }
    ),
)
_MOMENT = whole("Unix seconds.", low=0, high=253_402_300_799)
_LISTED = {**PAGE, "status": _STATUS, "since": _MOMENT, "until": _MOMENT}
_ONE = "/v1/webhook_endpoints/{endpoint_id}"

OPERATIONS = {
    f"POST {_ONE}": op(
        "Webhooks",
        ENDPOINT,
        body=closed(
            {},
            optional={
                "url": text(low=1, high=2000),
                "name": text(low=1, high=200),
                "event_types": _TYPES,
                "cope": _OWN,
            },
        ),
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
                "status_code": whole(),
                "success": const(True),
                "cope": record({"took_ms": whole(low=0), "response_excerpt": text()}),
            }
        ),
        body=closed({"event_type": one_of(EVENT_TYPES)}),
    ),
    f"GET {_ONE}/deliveries": op("Webhooks", listed(DELIVERY), query=_LISTED),
    f"POST {_ONE}/redeliver": op(
        "Webhooks",
        record(
            {
                "object": const("webhook_endpoint.redelivery"),
                "webhook_endpoint_id": ID,
                "count": whole(low=0),
                "delivery_ids": array(ID),
                "last_id": nullable(ID),
                "has_more": flag(),
            },
        ),
        body=either(
            closed({"delivery_ids": array(text(low=1), low=1, high=1000)}),
            closed({"since": _MOMENT}, optional={"until": _MOMENT, "only_failed": flag(), "after": text(low=1)}),
        ),
        errors=(422,),
    ),
    "GET /v1/webhook_deliveries": op("Webhooks", listed(DELIVERY), query=_LISTED),
    "GET /v1/webhook_deliveries/{delivery_id}": op("Webhooks", _WHOLE),
    "POST /v1/webhook_deliveries/{delivery_id}/redeliver": op(
        "Webhooks", _WHOLE, body=closed({}), body_needed=False, errors=(422,)
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
