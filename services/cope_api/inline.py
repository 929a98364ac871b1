"""Where a batch's lines come from: an uploaded file, the request's own body, or later, while it is open."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum

import orjson

from cope.bootstrap import ApiParts
from cope.core.errors import BadRequest, Conflict
from cope.core.ids import FILE, FileId
from cope.core.problem import Kind
from cope.core.records import Batch, StoredFile
from cope.core.request import BatchCope
from cope.ports.store import NewBatch
from cope.usecases.inline_lines import read_lines, whole_lines
from cope_api.files import keep_file

NO_FILE = FileId("")
"""What an open batch shows as its input file: OpenAI's clients need text there, and it never has one."""


class Source(Enum):
    """Of a batch's lines."""

    FILE = "input_file_id"
    INLINE = "requests"
    OPEN = "open"


def source(body: Mapping[str, object], cope: BatchCope) -> Source:
    """Which it is. Raises `BadRequest` where a request says two of them."""
    given = [key for key in ("input_file_id", "requests") if body.get(key) is not None]
    if cope.open:
        for key in given:
            raise BadRequest(
                f"An open batch begins without lines: leave out `{key}`, and add them with POST "
                "/v1/batches/{id}/requests.",
                param=key,
            )
        if cope.dry_run is not None:
            raise BadRequest("An open batch can't be a dry run: its lines are not known yet.", param="cope.dry_run")
        return Source.OPEN
    if len(given) == 2:
        raise BadRequest("Give `input_file_id` or `requests`, not both.", param="requests")
    return Source.INLINE if given == ["requests"] else Source.FILE


async def create_inline(parts: ApiParts, new: NewBatch, requests: object, kind: Kind) -> Batch:
    """A batch whose lines came with it: they are checked at once, and kept as its input file like any other's."""
    lines = whole_lines(requests, new.batch.endpoint, longest=parts.settings.max_line_bytes)
    count = len(read_lines(parts, new.batch, kind, lines))
    if count != len(lines):
        raise BadRequest("Two of the `requests` have the same `custom_id`.", param="requests", code="duplicate")
    file = await _store(parts, new.batch, b"".join(orjson.dumps(line) + b"\n" for line in lines), count)
    try:
        made = await parts.store.create_batch(replace(new, batch=replace(new.batch, input_file_id=file.id)))
    except Conflict:
        await _forget(parts, file)
        raise
    if made.id != new.batch.id:  # a repetition: the first batch has its own
        await _forget(parts, file)
    return made


async def _forget(parts: ApiParts, file: StoredFile) -> None:
    deleted = await parts.store.delete_file(file.project_id, file.id)
    if deleted is not None and deleted.freed is not None:
        await parts.files.delete(deleted.freed)


async def _store(parts: ApiParts, batch: Batch, data: bytes, lines: int) -> StoredFile:
    file_id = FileId(parts.ids.new(FILE))
    writer = await parts.files.create(file_id)
    try:
        await writer.write(data)
        await writer.commit()
    finally:
        await writer.discard()
    return await keep_file(
        parts,
        StoredFile(
            id=file_id,
            project_id=batch.project_id,
            filename=f"{batch.id}_requests.jsonl",
            purpose="batch",
            bytes=len(data),
            lines=lines,
            sha256=hashlib.sha256(data).hexdigest(),
            created_at=parts.clock.now(),
        ),
    )
