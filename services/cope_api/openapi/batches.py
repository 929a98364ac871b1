"""Batches and their tasks."""

from cope.core.lifecycle import TaskState
from cope_api.openapi.batch_objects import BATCH, TASK
from cope_api.openapi.costs import RECEIPT
from cope_api.openapi.money import SPEND_LIMIT
from cope_api.openapi.operation import op
from cope_api.openapi.shapes import (
    DELETED,
    METADATA,
    USD_IN,
    anything,
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
    whole,
)
from cope_api.openapi.shared import BATCH_COPE

PAGE = {"limit": whole("Default 20.", low=1, high=100), "after": text("The last id of the page before.", high=512)}
WINDOW = text("From 1h to 7d, or none.", like=r"^([0-9]{1,3}[hd]|none)$")
REQUESTS = array(
    closed(
        {"custom_id": text(low=1, high=512), "body": anything("As its endpoint takes it.")},
        optional={"method": const("POST"), "url": text("The batch's `endpoint`.")},
    ),
    "Lines as in an input file.",
    low=1,
)
IDEMPOTENCY = {"idempotency-key": text("The same key and body return the same batch for 24 hours.", low=1, high=255)}
NEW_BATCH = named(
    "NewBatch",
    closed(
        {
            "endpoint": one_of(["/v1/chat/completions", "/v1/responses"]),
            "completion_window": WINDOW,
        },
        optional={
            "input_file_id": nullable(text("Or `requests`, or `cope.open`.", low=1, high=64)),
            "requests": nullable(REQUESTS),
            "metadata": nullable(METADATA),
            "output_expires_after": nullable(
                record({"anchor": const("created_at"), "seconds": whole(low=3600, high=2_592_000)})
            ),
            "cope": nullable(BATCH_COPE),
        },
    ),
)
_EXAMPLE = {
    "input_file_id": "file-01kb0000000000000000000000",
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
    "cope": {"policy": "cope", "max_cost_usd": "2.50"},
}

OPERATIONS = {
    "POST /v1/batches": op(
        "Batches",
        BATCH,
        body=example(NEW_BATCH, _EXAMPLE),
        headers=IDEMPOTENCY,
        errors=(422,),
    ),
    "GET /v1/batches": op("Batches", listed(BATCH), query=PAGE),
    "GET /v1/batches/{batch_id}": op("Batches", BATCH),
    "GET /v1/batches/{batch_id}/results": op(
        "Batches",
        query={
            "after": whole("The X-Last-Line of an earlier answer. Default 0.", low=0, high=2**31 - 2),
            "limit": whole("Default and most: a million lines.", low=1, high=1_000_000),
            "order": one_of(["completion", "input"]),
        },
        also={"application/x-ndjson": text("Output and error lines, as in the batch's files.")},
        errors=(410, 422),
        about="The headers X-Last-Line and X-Incomplete say where to go on, and whether there is more to come.",
    ),
    "GET /v1/batches/{batch_id}/wait": op(
        "Batches", BATCH, query={"timeout": whole("Seconds. Default 30.", low=0, high=300)}
    ),
    "POST /v1/batches/{batch_id}/cancel": op("Batches", BATCH, errors=(422,)),
    "POST /v1/batches/{batch_id}/hold": op("Batches", BATCH, errors=(422,)),
    "POST /v1/batches/{batch_id}/pause": op("Batches", BATCH, errors=(422,)),
    "POST /v1/batches/{batch_id}/resume": op("Batches", BATCH),
    "GET /v1/batches/{batch_id}/tasks": op(
        "Batches", listed(TASK), query={**PAGE, "status": one_of([state.value for state in TaskState])}, errors=(410,)
    ),
    "GET /v1/tasks/{task_id}": op("Batches", TASK),
    "GET /v1/batches/{batch_id}/receipt": op("Batches", RECEIPT, also={"text/plain": text("The same to read.")}),
    "GET /v1/batches/{batch_id}/spend_limit": op("Batches", SPEND_LIMIT),
    "POST /v1/batches/{batch_id}/spend_limit": op("Batches", SPEND_LIMIT, body=closed({"max_cost_usd": USD_IN})),
    "DELETE /v1/batches/{batch_id}/spend_limit": op(
        "Batches", record({"object": const("batch.spend_limit.deleted"), "deleted": DELETED})
    ),
}
