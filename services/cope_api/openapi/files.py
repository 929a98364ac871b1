"""Files."""

from cope_api.openapi.operation import op
from cope_api.openapi.shapes import DELETED, ID, SECONDS, const, listed, named, nullable, one_of, record, text, whole

PURPOSES = ["batch", "user_data", "evals", "fine-tune", "assistants", "vision"]
FILE = named(
    "File",
    record(
        {
            "id": ID,
            "object": const("file"),
            "bytes": whole(low=0),
            "created_at": SECONDS,
            "expires_at": nullable(SECONDS),
            "filename": text(),
            "purpose": one_of([*PURPOSES, "batch_output"]),
            "status": const("processed"),
            "status_details": {"type": "null"},
        }
    ),
)
_UPLOAD = record(
    {"file": {"type": "string", "format": "binary"}, "purpose": one_of(PURPOSES)},
    "For a batch, NDJSON: one request a line.",
    optional={
        "expires_after[anchor]": text("created_at."),
        "expires_after[seconds]": whole(low=3600, high=2_592_000),
    },
)
_LINES = text('Lines such as {"custom_id":"a","response":{"status_code":200,"body":{…}},"error":null}.')

OPERATIONS = {
    "POST /v1/files": op("Files", FILE, bodies={"multipart/form-data": _UPLOAD}, errors=(422, 507)),
    "GET /v1/files": op(
        "Files",
        listed(FILE),
        query={
            "purpose": text(high=512),
            "limit": whole(low=1, high=10_000),
            "after": text(high=512),
            "order": one_of(["asc", "desc"]),
        },
    ),
    "GET /v1/files/{file_id}": op("Files", FILE, errors=(410,)),
    "DELETE /v1/files/{file_id}": op(
        "Files", record({"id": ID, "object": const("file"), "deleted": DELETED}), errors=(422,)
    ),
    "GET /v1/files/{file_id}/content": op(
        "Files",
        also={"application/octet-stream": {"type": "string", "format": "binary", "examples": [_LINES["description"]]}},
        errors=(410, 416),
        about="A batch's output and error files are NDJSON. With one range in the header `Range` (bytes=0-1023) the "
        "answer is 206 and has these bytes alone; anything else there is answered in whole.",
    ),
}
