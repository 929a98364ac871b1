"""A batch's last act: its output and error files, streamed from the database, then its terminal status and webhooks."""

from typing import Protocol

import orjson

from cope.core.ids import BatchId
from cope.core.records import Batch, StoredFile
from cope.ports.files import FileStore
from cope.ports.store import WorkerStore
from cope.ports.support import Clock, IdMaker, WakeUp
from cope.usecases.keep import keep_job
from cope.usecases.quote import quote_of
from cope.usecases.result_files import ResultFile


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


class LinesMissing(Exception):
    """The files would not hold every line of the batch once. It stays `finalizing` and is looked at again: the sweep
    counts its tasks anew meanwhile."""

    def __init__(self, batch_id: BatchId, found: int, total: int) -> None:
        super().__init__(f"{batch_id}: {found} lines have ended of {total}")


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
            await parts.wake.announce([batch.id])
            await parts.wake.poke("webhooks")
            return True
        output, error = await _write(parts, batch)
        if not error.lines:
            await parts.files.delete(error.id)
        status = await parts.store.finish_batch(job, output=output, error=error if error.lines else None)
        if status is None:  # the job was lost: another worker's files are the ones that count
            await parts.files.delete(output.id)
            await parts.files.delete(error.id)
        else:
            await parts.wake.announce([batch.id])
    await parts.wake.poke("webhooks")
    return True


async def _write(parts: FinaliseParts, batch: Batch) -> tuple[StoredFile, StoredFile]:
    """The output and the error file, in one walk over the lines. Raises `LinesMissing`."""
    by_input = orjson.loads(batch.defaults).get("order") == "input"
    output = await ResultFile.begin(parts, batch, "output")
    try:
        error = await ResultFile.begin(parts, batch, "error")
        try:
            async for page in parts.store.results(batch.id, by_input=by_input):
                await output.add([line for line in page if not line.failed])
                await error.add([line for line in page if line.failed])
            if output.lines + error.lines != batch.total:
                raise LinesMissing(batch.id, output.lines + error.lines, batch.total)
            return await output.end(), await error.end()
        finally:
            await error.discard()
    finally:
        await output.discard()
