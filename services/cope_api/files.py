"""Files: uploads streamed to the file store while their limits are checked, lists, contents."""

import contextlib
import hashlib
import re
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from cope.bootstrap import ApiParts
from cope.core.errors import BadRequest, CopeError, StorageFull, StorageUnavailable, TooLarge
from cope.core.ids import FILE, FileId, ProjectId
from cope.core.records import StoredFile
from cope.core.redaction import one_line
from cope.ports.files import FileWriter
from cope.settings import Settings
from cope_api.context import clean_id, declared_length, limit_of, list_body, project_of, text_query
from cope_api.failures import json_response
from cope_api.file_content import content, not_there
from cope_api.present import file_json

router = APIRouter()
_FIELD_BYTES = 4096
_MOST_PARTS = 32
_FORM_BYTES = 65_536  # what a form may hold beside its file
_PURPOSES = frozenset({"batch", "user_data", "evals", "fine-tune", "assistants", "vision"})


class _Lines:
    """Counts lines and holds their limits over chunks of any size."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.count = 0
        self.size = 0
        self._open = 0

    def feed(self, data: bytes) -> None:
        """Raises `TooLarge`."""
        s = self._settings
        self.size += len(data)
        if self.size > s.max_file_bytes:
            raise TooLarge(f"A file may have at most {s.max_file_bytes} bytes.")
        ends = data.count(b"\n")
        if ends == 0:
            self._open += len(data)
            longest = self._open
        else:
            first = data.index(b"\n")
            last = len(data) - data.rindex(b"\n") - 1
            longest = max(self._open + first, last)
            if len(data) > s.max_line_bytes:
                longest = max(longest, *(len(line) for line in data.split(b"\n")[1:-1] or [b""]))
            self._open = last
        self.count += ends
        if longest > s.max_line_bytes:
            raise TooLarge(f"Line {self.count + 1 - (ends > 0)} has over {s.max_line_bytes} bytes.")
        if self.lines > s.max_file_lines:
            raise TooLarge(f"A file may have at most {s.max_file_lines} lines.")

    @property
    def lines(self) -> int:
        """Lines so far, a last one without its end included."""
        return self.count + (1 if self._open else 0)


class _Upload:
    """A push parser's callbacks: small fields into `fields`, the file's bytes into `pending`."""

    def __init__(self) -> None:
        self.fields: dict[str, bytes] = {}
        self.pending: list[bytes] = []
        self.filename: str | None = None
        self.seen_file = False
        self.ended = False
        self._name = ""
        self._header = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._parts = 0

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers,
            "on_part_data": self._on_data,
            "on_end": self._on_end,
        }

    def _begin(self) -> None:
        self._headers = {}
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise BadRequest(f"The form has over {_MOST_PARTS} parts.")

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]
        if len(self._header) > _FIELD_BYTES or len(self._headers) > _MOST_PARTS:
            raise BadRequest("A part's header is too long.")

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        if len(self._value) > _FIELD_BYTES:
            raise BadRequest("A part's header is too long.")

    def _on_header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name in self.fields:
            raise BadRequest("The form has a field twice.", param=one_line(self._name, longest=64))
        if self._name == "file":
            if self.seen_file:
                raise BadRequest("Send one file at a time.", param="file")
            self.seen_file = True
            self.filename = options.get(b"filename", b"upload.jsonl").decode("utf-8", "replace")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self.pending.append(data[start:end])
            return
        held = self.fields.get(self._name, b"") + data[start:end]
        if len(held) > _FIELD_BYTES or len(self.fields) > 32:
            raise BadRequest(f"The form field `{one_line(self._name, longest=64)}` is too long.")
        self.fields[self._name] = held

    def _on_end(self) -> None:
        self.ended = True


@router.post("/v1/files")
async def upload(request: Request) -> Response:
    """Store a file. Limits on bytes, lines and line length hold while it streams; a refused one leaves nothing."""
    parts, project_id, _ = await project_of(request)
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise BadRequest("Send `multipart/form-data` with the fields `file` and `purpose`.", param="file")
    if declared_length(request) > parts.settings.max_file_bytes + _FORM_BYTES:
        raise TooLarge(f"A file may have at most {parts.settings.max_file_bytes} bytes.")
    form = _Upload()
    try:
        parser = MultipartParser(options[b"boundary"], form.callbacks())  # type: ignore[arg-type]
    except FormParserError:
        raise BadRequest("The form's boundary is too long.", param="file") from None
    file_id = FileId(parts.ids.new(FILE))
    writer = await parts.files.create(file_id)
    try:
        digest, lines = await _receive(request, parser, form, writer, parts.settings)
        file = _row(parts, form, project_id, file_id, lines, digest)
        await writer.commit()
        stored = await keep_file(parts, file)
    except BaseException as failed:
        await writer.discard()
        if isinstance(failed, StorageFull):
            await _hear_out(request, parts.settings)
        raise
    return json_response(file_json(stored, parts.settings.keeping.files))


async def keep_file(parts: ApiParts, file: StoredFile) -> StoredFile:
    """The file's row; its own bytes go where they are not needed. Cut off in between, upkeep finds them."""
    try:
        stored = await parts.store.create_file(file, most_bytes=parts.settings.max_project_bytes)
    except CopeError as refused:
        if not refused.retryable:  # whether a commit came through is not known of the others
            await parts.files.delete(file.id)
        raise
    if stored.bytes_id != file.id:
        await parts.files.delete(file.id)
    return stored


async def _hear_out(request: Request, settings: Settings) -> None:
    """Read what the client still sends: one that is cut off while sending may never see the answer, and sends again."""
    heard = 0
    with contextlib.suppress(ClientDisconnect, RuntimeError):  # RuntimeError: all of it was read already
        async for chunk in request.stream():
            heard += len(chunk)
            if heard > settings.max_file_bytes:
                return


async def _receive(
    request: Request, parser: MultipartParser, form: _Upload, writer: FileWriter, settings: Settings
) -> tuple[str, _Lines]:
    digest, lines, received = hashlib.sha256(), _Lines(settings), 0
    try:
        async for chunk in request.stream():
            if not chunk:
                continue
            received += len(chunk)
            if received > settings.max_file_bytes + _FORM_BYTES:
                raise TooLarge(f"A file may have at most {settings.max_file_bytes} bytes.")
            parser.write(chunk)
            if form.pending:
                data = b"".join(form.pending)
                form.pending.clear()
                digest.update(data)
                lines.feed(data)
                await writer.write(data)
        parser.finalize()
    except MultipartParseError as wrong:
        raise BadRequest(f"The form can't be read: {one_line(str(wrong), longest=300)}.") from None
    if not form.ended or not form.seen_file:
        raise BadRequest("The upload ended before the form did, or has no `file`.", param="file")
    return digest.hexdigest(), lines


def _row(
    parts: ApiParts, form: _Upload, project_id: ProjectId, file_id: FileId, lines: _Lines, digest: str
) -> StoredFile:
    purpose = form.fields.get("purpose", b"").decode("utf-8", "replace")
    if purpose not in _PURPOSES:
        raise BadRequest(f"`purpose` must be one of {', '.join(sorted(_PURPOSES))}.", param="purpose")
    now = parts.clock.now()
    expires = None
    if b"created_at" in form.fields.get("expires_after[anchor]", b"") or "expires_after[seconds]" in form.fields:
        told = form.fields.get("expires_after[seconds]", b"").decode("ascii", "replace")
        if not told.isdigit() or len(told) > 9 or not 3600 <= int(told) <= 2_592_000:
            raise BadRequest("`expires_after[seconds]` is a number from 3600 to 2592000.", param="expires_after")
        expires = now + timedelta(seconds=int(told))
    filename = _plain_name(form.filename or "")
    return StoredFile(file_id, project_id, filename, purpose, lines.size, lines.lines, digest, now, expires)


def _plain_name(told: str) -> str:
    """A file's name as it is kept: no folders, no characters that a header, log or terminal would obey."""
    return one_line(re.split(r"[/\\]", told)[-1].replace("\x00", ""))[:255] or "upload.jsonl"


@router.get("/v1/files")
async def list_files(request: Request) -> Response:
    """The project's files, newest first."""
    parts, project_id, _ = await project_of(request)
    order = request.query_params.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise BadRequest("`order` must be asc or desc.", param="order")
    after = text_query(request, "after")
    page = await parts.store.list_files(
        project_id,
        after=None if after is None else FileId(after),
        limit=limit_of(request, default=10_000, most=10_000),
        ascending=order == "asc",
        purpose=text_query(request, "purpose"),
    )
    keep = parts.settings.keeping.files
    return json_response(list_body([file_json(file, keep) for file in page.items], page.has_more))


async def _file(request: Request, file_id: str) -> tuple[ApiParts, StoredFile]:
    parts, project_id, _ = await project_of(request)
    file = await parts.store.get_file(project_id, FileId(clean_id(file_id)))
    if file is None:
        raise await not_there(parts, project_id, file_id)
    return parts, file


@router.get("/v1/files/{file_id}")
async def get_file(request: Request, file_id: str) -> Response:
    """One file's object."""
    parts, file = await _file(request, file_id)
    return json_response(file_json(file, parts.settings.keeping.files))


@router.get("/v1/files/{file_id}/content")
async def get_content(request: Request, file_id: str) -> Response:
    """The bytes, streamed; of a `Range` only that."""
    parts, file = await _file(request, file_id)
    name = quote(file.filename, safe="", errors="replace")
    headers = {"content-disposition": f"attachment; filename*=UTF-8''{name}"}
    return content(parts, file, request.headers.get("range"), headers)


@router.delete("/v1/files/{file_id}")
async def delete_file(request: Request, file_id: str) -> Response:
    """Forget a file; refused while a batch that runs reads it."""
    parts, project_id, _ = await project_of(request)
    deleted = await parts.store.delete_file(project_id, FileId(clean_id(file_id)))
    if deleted is None:
        raise await not_there(parts, project_id, file_id)
    if deleted.freed is not None:
        with contextlib.suppress(StorageUnavailable):  # upkeep deletes them as soon as the place answers
            await parts.files.delete(deleted.freed)
    return json_response({"id": file_id, "object": "file", "deleted": True})
