"""The service itself: health, metrics, this document."""

from cope_api.openapi.operation import op
from cope_api.openapi.shapes import (
    SECONDS,
    anything,
    array,
    closed,
    const,
    flag,
    nullable,
    number,
    one_of,
    record,
    text,
    whole,
)

_OK = record({"status": const("ok")})
_LEVEL = one_of(["ok", "warn", "fail"])
_RESTORE = record(
    {"object": const("cope.restore"), "restored": flag()},
    optional={
        "backup_at": SECONDS,
        "restored_at": SECONDS,
        "reconciled_at": nullable(SECONDS),
        "paused_projects": array(text()),
        "released": flag(),
    },
)
_KEPT = ("files", "tasks", "live", "events", "deliveries")
_DAYS = {name: nullable(number()) for name in _KEPT}
_COUNTED = (
    *("files", "stored_bytes", "shared_bytes", "freed_blobs", "due_files", "waiting_files", "due_batches"),
    *("due_tasks", "due_live", "due_deliveries", "doubted_batches"),
)
_MOMENT = text("RFC 3339.")
_RETENTION = record(
    {
        "object": const("cope.retention"),
        "at": _MOMENT,
        "keep_days": record(_DAYS, "Null is for ever."),
        **{name: whole(low=0) for name in _COUNTED},
        **{f"oldest_{kind}_at": nullable(_MOMENT) for kind in ("file", "batch", "live")},
        "partitions": array(
            record(
                {
                    "table": text(),
                    "name": text(),
                    "bytes": whole(low=0),
                    "until": nullable(_MOMENT),
                    "goes_at": nullable(_MOMENT),
                    "held": flag("Over its time, and something in it must be kept."),
                }
            )
        ),
    },
    "What is stored and what the next pass of upkeep takes away.",
)

OPERATIONS = {
    "GET /health": op("Service", _OK, by="anybody"),
    "GET /ready": op("Service", _OK, by="anybody", errors=(503,)),
    "GET /metrics": op(
        "Service", by="anybody", also={"text/plain": text("Prometheus' text form.")}, errors=(401, 403, 503)
    ),
    "GET /v1/organization/doctor": op(
        "Service",
        record(
            {
                "object": const("cope.doctor"),
                "status": _LEVEL,
                "findings": array(
                    record({"check": text(), "status": _LEVEL, "message": text(), "mend": nullable(text())})
                ),
            }
        ),
        by="admin",
    ),
    "GET /v1/organization/retention": op("Service", _RETENTION, by="admin", errors=(404,)),
    "GET /v1/organization/restore": op("Service", _RESTORE, by="admin"),
    "POST /v1/organization/restore/release": op(
        "Service",
        _RESTORE,
        by="admin",
        body=closed({}, optional={"unreconciled": flag("Although the books may lack paid calls.")}),
        body_needed=False,
        errors=(422,),
    ),
    "GET /openapi.json": op("Service", anything("OpenAPI 3.1."), by="anybody"),
    "GET /docs": op("Service", by="anybody", also={"text/html": text("The document for people.")}),
}
