"""A batch's lines as they end, while it runs and afterwards: NDJSON, streamed from the database page by page."""

from collections.abc import AsyncIterator, Sequence

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from cope.bootstrap import ApiParts
from cope.core.errors import BadRequest, Conflict, NotFound
from cope.core.records import Batch
from cope.ports.store import ResultLine
from cope.usecases.result_lines import encode_line
from cope_api.batches import find_batch
from cope_api.context import limit_of
from cope_api.retention import refuse_pruned

router = APIRouter()
_MOST_LINES = 1_000_000
_LARGEST_OFFSET = 2**31 - 2


@router.get("/v1/batches/{batch_id}/results")
async def results(request: Request, batch_id: str) -> Response:
    """Lines that have ended, output and error lines alike, behind the offset `after` (0: from the first).

    `X-Last-Line` is the offset to go on from, `X-Incomplete` whether there is, or will be, anything behind it. A
    response that broke off is asked for again with the same `after`: it begins with the same lines.
    """
    parts, batch = await find_batch(request, batch_id)
    if batch.dry_run is not None:
        raise Conflict("A dry run has no results: its drafts are its tasks, and `cope.quote` what it found out.")
    refuse_pruned(batch)
    by_input, after = _by_input(request, batch), _offset(request)
    limit = limit_of(request, default=_MOST_LINES, most=_MOST_LINES)
    window = await parts.store.result_window(batch.project_id, batch.id, after=after, limit=limit, by_input=by_input)
    if window is None:
        raise NotFound(f"There is no batch {batch_id!r}.")
    if after > window.known:
        raise BadRequest(
            f"`after` is {after}, and only {window.known} lines of this batch have ended: an offset comes from this "
            "batch's own X-Last-Line, of the same `order`.",
            param="after",
        )
    # Asked for before the headers go: what fails now is still told as an error.
    first = await _page(parts, batch, after, window.last, by_input=by_input)
    if not first and window.last > after:
        raise Conflict("This batch's results are not kept any longer: see its files.", code="results_pruned")
    return StreamingResponse(
        _lines(parts, batch, first, window.last, by_input=by_input),
        media_type="application/x-ndjson",
        headers={
            "X-Incomplete": "true" if window.incomplete else "false",
            "X-Last-Line": str(window.last),
            "cache-control": "no-store",
            "x-accel-buffering": "no",
        },
    )


async def _lines(
    parts: ApiParts, batch: Batch, page: Sequence[ResultLine], last: int, *, by_input: bool
) -> AsyncIterator[bytes]:
    while page:
        yield b"".join(map(encode_line, page))
        page = await _page(parts, batch, page[-1].place, last, by_input=by_input)


async def _page(parts: ApiParts, batch: Batch, after: int, last: int, *, by_input: bool) -> Sequence[ResultLine]:
    if after >= last:
        return ()
    return await parts.store.result_page(batch.project_id, batch.id, after=after, last=last, by_input=by_input)


def _by_input(request: Request, batch: Batch) -> bool:
    order = request.query_params.get("order")
    if order is None:
        return bool(orjson.loads(batch.defaults).get("order") == "input")
    if order not in {"completion", "input"}:
        raise BadRequest("`order` must be `completion` or `input`.", param="order")
    return order == "input"


def _offset(request: Request) -> int:
    told = request.query_params.get("after", "0")
    if not told.isascii() or not told.isdigit() or int(told[:11]) > _LARGEST_OFFSET:
        raise BadRequest("`after` must be a whole number: the X-Last-Line of an earlier answer, or 0.", param="after")
    return int(told)
