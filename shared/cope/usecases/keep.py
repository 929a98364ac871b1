"""Keeping a leased upkeep job while it is worked on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from cope.core.errors import StoreUnavailable
from cope.ports.store import BatchJob, WorkerStore


@contextlib.asynccontextmanager
async def keep_job(store: WorkerStore, job: BatchJob, *, lease_s: float) -> AsyncIterator[None]:
    """Renew the job's lease every third of it until the block ends. A lost lease is noticed by the fenced write."""

    async def renew() -> None:
        held = True
        while held:
            await asyncio.sleep(lease_s / 3)
            with contextlib.suppress(StoreUnavailable):
                held = await store.renew_batch_job(job, lease_s=lease_s)

    renewer = asyncio.create_task(renew())
    try:
        yield
    finally:
        renewer.cancel()
        await asyncio.gather(renewer, return_exceptions=True)
