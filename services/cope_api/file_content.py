"""A file's bytes on their way out, whole or a range of them, and what is said of files that are no longer there."""

import re
from collections.abc import AsyncIterator

from starlette.responses import Response, StreamingResponse

from cope.bootstrap import ApiParts
from cope.core.errors import CopeError, Gone, NotFound
from cope.core.ids import FileId, ProjectId
from cope.core.records import StoredFile
from cope_api.failures import body_of, json_response

_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")


async def not_there(parts: ApiParts, project_id: ProjectId, file_id: str) -> CopeError:
    """`Gone` for a batch's results whose time has come, else `NotFound`."""
    batch_id = await parts.store.expired_results(project_id, FileId(file_id))
    if batch_id is None:
        return NotFound(f"There is no file {file_id!r}.")
    return Gone(
        f"The results of batch {batch_id!r} in file {file_id!r} are no longer kept: the file was deleted, by hand or "
        "when its `expires_at` had come.",
        code="file_expired",
    )


def content(parts: ApiParts, file: StoredFile, wanted: str | None, headers: dict[str, str]) -> Response:
    """The bytes, streamed. `wanted` is the Range header: one range is served, anything else is answered in whole, as
    RFC 9110 has it; a range outside the file is 416."""
    asked = None if wanted is None else _RANGE.fullmatch(wanted.strip())
    if asked is None or not (asked[1] or asked[2]):
        return _stream(parts, file, 0, file.bytes, 200, headers)
    start, end = _bounds(asked[1], asked[2], file.bytes)
    if start >= end:
        body = body_of(f"The file has {file.bytes} bytes.", status=416, param="Range", code="invalid_range")
        return json_response(body, 416, {"content-range": f"bytes */{file.bytes}"})
    told = {"content-range": f"bytes {start}-{end - 1}/{file.bytes}"}
    return _stream(parts, file, start, end - start, 206, headers | told)


def _bounds(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        return max(0, size - int(last)), size
    start = int(first)
    end = size if not last else min(size, int(last) + 1)
    return start, end


def _stream(
    parts: ApiParts, file: StoredFile, start: int, length: int, status: int, headers: dict[str, str]
) -> Response:
    async def stream() -> AsyncIterator[bytes]:
        async for chunk in parts.files.read(file.bytes_id, start=start, length=length):
            yield chunk

    told = {"content-length": str(length), "accept-ranges": "bytes"}
    return StreamingResponse(stream(), status, headers | told, media_type="application/octet-stream")
