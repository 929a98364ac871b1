"""Caps, alerts, limits, spend elsewhere."""

from cope.core.alerts import HIGHEST_PERCENT, AlertKind
from cope.core.budget import Scope
from cope_api.openapi.money_words import CENTS, MONTH, PROJECT, SUMS
from cope_api.openapi.operation import op
from cope_api.openapi.shapes import (
    DELETED,
    ID,
    SECONDS,
    USD,
    USD_IN,
    array,
    closed,
    const,
    either,
    flag,
    listed,
    named,
    nullable,
    one_of,
    record,
    text,
    whole,
)

SPEND_LIMIT = named(
    "SpendLimit",
    record(
        {
            "object": text(),
            "threshold_amount": nullable(CENTS),
            "currency": const("USD"),
            "interval": nullable(const("month")),
            "enforcement": record({"status": one_of(["inactive", "enforcing"])}),
            "cope": record(
                {
                    "scope": text(),
                    "month": nullable(MONTH),
                    "cap_usd": nullable(USD),
                    **SUMS,
                    "overrun_usd": USD,
                }
            ),
        },
        "A cap and what is spent under it; a batch's is for its whole life.",
    ),
)
_PER_MONTH = {"currency": const("USD"), "interval": const("month")}
NEW_LIMIT = either(
    closed({"threshold_amount": CENTS}, optional=_PER_MONTH),
    closed({"cope": closed({"cap_usd": USD_IN})}, optional=_PER_MONTH),
    about="Whole cents, or an exact amount.",
)
_LIMIT_GONE = record({"object": text(), "deleted": DELETED})

ALERT = named(
    "SpendAlert",
    record(
        {
            "id": ID,
            "object": const("project.spend_alert"),
            "threshold_amount": CENTS,
            "currency": const("USD"),
            "interval": const("month"),
            "notification_channel": record(
                {"type": const("email"), "recipients": array(text()), "subject_prefix": nullable(text())}
            ),
            "cope": record(
                {
                    "kind": one_of([kind.value for kind in AlertKind]),
                    "percent": nullable(whole(low=1, high=HIGHEST_PERCENT)),
                    "threshold_usd": nullable(USD),
                    "state": one_of(["fired", "armed"]),
                    "fired_at": nullable(SECONDS),
                    "delivered_as": array(text()),
                    "note": text(),
                }
            ),
        }
    ),
)
_CHANNEL = closed(
    {"type": const("email")},
    optional={
        "recipients": array(text("An e-mail address.", low=1, high=320), high=100),
        "subject_prefix": nullable(text(low=1, high=200)),
    },
)
_ALERT_REST = {**_PER_MONTH, "notification_channel": nullable(_CHANNEL)}
_OWN_THRESHOLD = either(
    closed({"percent": whole("Of the cap.", low=1, high=HIGHEST_PERCENT)}),
    closed({"projected": const(True)}),
    closed({"threshold_usd": USD_IN}),
)
NEW_ALERT = either(
    closed({"threshold_amount": whole("Cents.", low=1, high=9 * 10**11)}, optional={**_ALERT_REST, "cope": closed({})}),
    closed({"cope": _OWN_THRESHOLD}, optional={**_ALERT_REST, "threshold_amount": const(0)}),
)
USAGE = named(
    "ExternalSpend",
    record(
        {
            "id": ID,
            "object": const("cope.usage"),
            "project_id": ID,
            "key_id": nullable(ID),
            "amount_usd": USD,
            "month": MONTH,
            "occurred_at": nullable(SECONDS),
            "reported_at": SECONDS,
            "model": nullable(text()),
            "description": nullable(text()),
            "reference": nullable(text("The caller's own id.")),
        },
        "Spend measured elsewhere, counted in the month of its report.",
    ),
)
NEW_USAGE = closed(
    {"amount_usd": USD_IN},
    optional={
        "occurred_at": nullable(SECONDS),
        "model": nullable(text(low=1, high=200)),
        "description": nullable(text(low=1, high=1000)),
        "id": nullable(text("The caller's own: the same report is counted once.", low=1, high=255)),
        "project_id": nullable(text("The admin key's to give.", low=1, high=64)),
    },
)
LIMITS = named(
    "Limits",
    record(
        {
            "object": const("cope.limits"),
            "project_id": ID,
            "paused": flag(),
            "month": MONTH,
            "time_zone": text(),
            "resets_at": SECONDS,
            "budgets": array(
                record(
                    {
                        "scope": one_of([scope.value for scope in Scope]),
                        "id": text(),
                        "interval": nullable(const("month")),
                        "resets_at": nullable(SECONDS),
                        "cap_usd": nullable(USD),
                        "used_usd": USD,
                        "reserved_usd": USD,
                        "unconfirmed_usd": USD,
                        "overrun_usd": USD,
                        "headroom_usd": nullable(USD),
                    }
                )
            ),
            "alerts": array(ALERT),
            "storage": record(
                {
                    "files": whole(low=0),
                    "bytes": whole("Equal files count once.", low=0),
                    "max_bytes": nullable(whole(low=0)),
                    "max_file_bytes": whole(low=0),
                    "keep_days": record(
                        {kind: nullable(whole(low=1)) for kind in ("files", "batches", "live", "events", "deliveries")},
                        "How long they are kept; null is for ever.",
                    ),
                }
            ),
            "provider": array(
                record(
                    {
                        "model": text(),
                        "requests_per_minute": nullable(whole()),
                        "tokens_per_minute": nullable(whole()),
                        "concurrent_requests": nullable(whole()),
                        "remaining": nullable(
                            record(
                                {
                                    "requests": nullable(whole()),
                                    "tokens": nullable(whole()),
                                    "concurrent_requests": nullable(whole()),
                                    "blocked_until": nullable(SECONDS),
                                    "as_of": SECONDS,
                                }
                            )
                        ),
                    }
                )
            ),
        }
    ),
)
OPERATIONS = {
    f"GET {PROJECT}/spend_limit": op("Caps and alerts", SPEND_LIMIT, by="either"),
    f"POST {PROJECT}/spend_limit": op("Caps and alerts", SPEND_LIMIT, by="admin", body=NEW_LIMIT),
    f"DELETE {PROJECT}/spend_limit": op("Caps and alerts", _LIMIT_GONE, by="admin"),
    f"GET {PROJECT}/api_keys/{{key_id}}/spend_limit": op("Caps and alerts", SPEND_LIMIT, by="either"),
    f"POST {PROJECT}/api_keys/{{key_id}}/spend_limit": op("Caps and alerts", SPEND_LIMIT, by="admin", body=NEW_LIMIT),
    f"DELETE {PROJECT}/api_keys/{{key_id}}/spend_limit": op("Caps and alerts", _LIMIT_GONE, by="admin"),
    f"POST {PROJECT}/spend_alerts": op("Caps and alerts", ALERT, by="admin", body=NEW_ALERT),
    f"GET {PROJECT}/spend_alerts": op(
        "Caps and alerts",
        listed(ALERT),
        by="either",
        query={
            "order": one_of(["asc", "desc"]),
            "after": text(high=512),
            "before": text(high=512),
            "limit": whole(low=1, high=100),
        },
    ),
    f"GET {PROJECT}/spend_alerts/{{alert_id}}": op("Caps and alerts", ALERT, by="either"),
    f"POST {PROJECT}/spend_alerts/{{alert_id}}": op("Caps and alerts", ALERT, by="admin", body=NEW_ALERT),
    f"DELETE {PROJECT}/spend_alerts/{{alert_id}}": op(
        "Caps and alerts",
        record({"id": ID, "object": const("project.spend_alert.deleted"), "deleted": DELETED}),
        by="admin",
    ),
    "GET /v1/limits": op("Caps and alerts", LIMITS),
    "POST /v1/usage": op(
        "Caps and alerts",
        USAGE,
        by="either",
        body=NEW_USAGE,
        headers={"idempotency-key": text("In the place of `id`.", low=1, high=255)},
        errors=(404, 422),
    ),
    "GET /v1/usage": op(
        "Caps and alerts", listed(USAGE), query={"limit": whole(low=1, high=100), "after": text(high=512)}
    ),
}
