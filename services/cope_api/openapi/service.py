"""The service itself: health, metrics, this document."""

from cope_api.openapi.operation import op
from cope_api.openapi.shapes import SECONDS, anything, array, closed, const, flag, nullable, one_of, record, text

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
