"""The service itself: health, metrics, this document."""

from cope_api.openapi.operation import op
from cope_api.openapi.shapes import anything, const, record, text

_OK = record({"status": const("ok")})

OPERATIONS = {
    "GET /health": op("Service", _OK, by="anybody"),
    "GET /ready": op("Service", _OK, by="anybody", errors=(503,)),
    "GET /metrics": op(
        "Service", by="anybody", also={"text/plain": text("Prometheus' text form.")}, errors=(401, 403, 503)
    ),
    "GET /openapi.json": op("Service", anything("OpenAPI 3.1."), by="anybody"),
    "GET /docs": op("Service", by="anybody", also={"text/html": text("The document for people.")}),
}
