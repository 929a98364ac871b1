"""A finished task as one line of an output or error file, and of the results while the batch runs: the same bytes."""

import orjson

from cope.ports.store import ResultLine

_NOT_KEPT = {
    "code": "result_not_kept",
    "message": "This answer is not kept here any longer (`store: none`, or its time is over): see the output file.",
}


def encode_line(line: ResultLine) -> bytes:
    """JSON and a line feed. A line that was never executed has no response, one that was has no `error`: what its model
    or we refused stands in the response's body."""
    request_id = f"batch_req_{line.task_id.removeprefix('task_')}"
    response = error = None
    if line.status is not None and line.body is not None:
        # The body is JSON text already: it is put in as it is, not parsed and written again.
        response = {"status_code": line.status, "request_id": request_id, "body": orjson.Fragment(line.body)}
    elif line.error is not None:
        error = {"code": line.error.code, "message": line.error.message}
    else:
        error = _NOT_KEPT
    return orjson.dumps(
        {"id": request_id, "custom_id": line.custom_id, "response": response, "error": error},
        option=orjson.OPT_APPEND_NEWLINE,
    )
