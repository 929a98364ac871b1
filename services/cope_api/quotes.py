"""What a dry run's reply says beyond its quote: how to submit the same file for real."""

from typing import Any

import orjson

from cope.core.audit_sampling import share_text
from cope.core.records import Batch

Json = dict[str, Any]


def quote_json(batch: Batch) -> Json | None:
    """The quote with two bodies for `POST /v1/batches`; None for a real batch and until the pilot has ended."""
    if batch.quote is None:
        return None
    quote: Json = orjson.loads(batch.quote)
    quote["submit"] = {
        "at_max": _body(batch, quote["max_usd"]),
        "at_p90": _body(batch, quote["p90_usd"]),
    }
    return quote


def _body(batch: Batch, most_usd: str) -> Json:
    """The batch as it was given, without `dry_run` and under a cap of its own."""
    cope: Json = orjson.loads(batch.defaults)
    if batch.webhook_url is not None:
        cope["webhook_url"] = batch.webhook_url
    if batch.audit_share is not None:
        cope["audit_share"] = share_text(batch.audit_share)
    body: Json = {
        "input_file_id": batch.input_file_id,
        "endpoint": batch.endpoint,
        "completion_window": batch.completion_window,
        "cope": {**cope, "max_cost_usd": most_usd},
    }
    if batch.metadata is not None:
        body["metadata"] = dict(batch.metadata)
    if batch.output_expires_after_s is not None:
        body["output_expires_after"] = {"anchor": "created_at", "seconds": batch.output_expires_after_s}
    return body
