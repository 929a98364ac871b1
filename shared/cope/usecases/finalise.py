"""A batch's last act: its output and error files, streamed from the database, then its terminal status and webhooks."""

import hashlib
from datetime import datetime, timedelta
from typing import Protocol

import orjson

from cope.core.ids import FILE, FileId
from cope.core.records import Batch, StoredFile
from cope.ports.files import FileStore
from cope.ports.store import ResultLine, WorkerStore
from cope.ports.support import Clock, IdMaker, WakeUp
from cope.usecases.keep import keep_job
from cope.usecases.quote import quote_of


class FinaliseParts(Protocol):
    """What finalising needs."""

    @property
    def store(self) -> WorkerStore: ...
    @property
    def files(self) -> FileStore: ...
    @property
    def wake(self) -> WakeUp: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def ids(self) -> IdMaker: ...


async def finalise_next(parts: FinaliseParts, *, lease_s: float) -> bool:
    """Take one batch whose tasks have all ended, write its files and close it; False if there is none.

    Killed half-way it runs again: unfinished files are invisible, and the second run's rows name its own files.
    """
    job = await parts.store.claim_finalisation(lease_s=lease_s)
    if job is None:
        return False
    batch = job.batch
    async with keep_job(parts.store, job, lease_s=lease_s):
        if batch.dry_run is not None:
            # No result files: a pilot's drafts must not be taken for answers. They stay visible as the batch's tasks.
            quote = await quote_of(parts, batch)
            await parts.store.finish_batch(job, output=None, error=None, quote=quote)
            await parts.wake.poke("webhooks")
            return True
        output = await _write(parts, batch, failed=False)
        error = await _write(parts, batch, failed=True)
        if not error.lines:
            await parts.files.delete(error.id)
        status = await parts.store.finish_batch(job, output=output, error=error if error.lines else None)
        if status is None:  # the job was lost: another worker's files are the ones that count
            await parts.files.delete(output.id)
            await parts.files.delete(error.id)
    await parts.wake.poke("webhooks")
    return True


async def _write(parts: FinaliseParts, batch: Batch, *, failed: bool) -> StoredFile:
    file_id = FileId(parts.ids.new(FILE))
    digest, size, lines = hashlib.sha256(), 0, 0
    by_input = orjson.loads(batch.defaults).get("order") == "input"
    writer = await parts.files.create(file_id)
    try:
        async for page in parts.store.results(batch.id, failed=failed, by_input=by_input):
            data = b"".join(map(_error_line if failed else _output_line, page))
            digest.update(data)
            size += len(data)
            lines += len(page)
            await writer.write(data)
        await writer.commit()
    finally:
        await writer.discard()
    now = parts.clock.now()
    return StoredFile(
        id=file_id,
        project_id=batch.project_id,
        filename=f"{batch.id}_{'error' if failed else 'output'}.jsonl",
        purpose="batch_output",
        bytes=size,
        lines=lines,
        sha256=digest.hexdigest(),
        created_at=now,
        expires_at=_expiry(batch, now),
    )


def _expiry(batch: Batch, now: datetime) -> datetime | None:
    return None if batch.output_expires_after_s is None else now + timedelta(seconds=batch.output_expires_after_s)


def _output_line(line: ResultLine) -> bytes:
    return _line(line, status=200)


def _error_line(line: ResultLine) -> bytes:
    if line.status is not None:
        return _line(line, status=line.status)
    error = line.error
    return (
        orjson.dumps(
            {
                "id": _request_id(line),
                "custom_id": line.custom_id,
                "response": None,
                "error": None if error is None else {"code": error.code, "message": error.message},
            }
        )
        + b"\n"
    )


def _line(line: ResultLine, *, status: int) -> bytes:
    # The body is JSON text already: it is put in as it is, not parsed and written again.
    response = {
        "status_code": status,
        "request_id": _request_id(line),
        "body": orjson.Fragment(line.body or "null"),
    }
    return (
        orjson.dumps({"id": _request_id(line), "custom_id": line.custom_id, "response": response, "error": None})
        + b"\n"
    )


def _request_id(line: ResultLine) -> str:
    return f"batch_req_{line.task_id.removeprefix('task_')}"
