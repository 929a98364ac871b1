"""What a caller does with a batch beside OpenAI's endpoints: further lines, a seal, a retry."""

from cope.core.line_retry import Retryable
from cope.core.task import OnBudget
from cope_api.openapi.batch_objects import BATCH
from cope_api.openapi.batches import IDEMPOTENCY, REQUESTS, WINDOW
from cope_api.openapi.operation import op
from cope_api.openapi.shapes import (
    ID,
    METADATA,
    USD_IN,
    array,
    closed,
    const,
    named,
    nullable,
    one_of,
    record,
    text,
    whole,
)
from cope_api.openapi.shared import POLICY_OPTIONS

_RETRY_COPE = closed(
    {},
    "What is different this time. A policy's keys need `policy` beside them.",
    optional={
        **POLICY_OPTIONS,
        "max_cost_usd": nullable(USD_IN),
        "webhook_url": nullable(text(low=1, high=2000)),
        "order": nullable(one_of(["completion", "input"])),
        "on_budget": nullable(one_of([way.value for way in OnBudget])),
    },
)
_RETRY = named(
    "BatchRetry",
    closed(
        {},
        optional={
            "lines": nullable(
                array(one_of([one.value for one in Retryable]), "How they stand. Default: ended without one.", low=1)
            ),
            "custom_ids": nullable(array(text(), "These alone.", low=1, high=100_000)),
            "completion_window": nullable(WINDOW),
            "metadata": nullable(METADATA),
            "cope": nullable(_RETRY_COPE),
        },
    ),
)
_ADDED = record(
    {
        "object": const("cope.batch_requests"),
        "batch_id": ID,
        "added": whole(low=0),
        "already_there": whole("Of these lines; they were passed over.", low=0),
        "total": whole("Of the batch.", low=0),
    }
)

OPERATIONS = {
    "POST /v1/batches/{batch_id}/requests": op(
        "Batches", _ADDED, body=closed({"requests": REQUESTS}), errors=(422, 429)
    ),
    "POST /v1/batches/{batch_id}/seal": op("Batches", BATCH),
    "POST /v1/batches/{batch_id}/retry": op("Batches", BATCH, body=_RETRY, headers=IDEMPOTENCY, errors=(410, 422)),
}
