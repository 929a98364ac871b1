"""Keeping a leased upkeep job while it is worked on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from cope.core.errors import StoreUnavailable
from cope.ports.store import BatchJob, WorkerStore


@contextlib.asynccontextmanager
async def keep_job(store: WorkerStore, job: BatchJob, *, lease_s: float) -> AsyncIterator[None]:
    """Renew the job's lease every third of it until the block ends. A lost lease is noticed by the fenced write."""
    async with keep(lambda: store.renew_batch_job(job, lease_s=lease_s), lease_s=lease_s):
        yield


@contextlib.asynccontextmanager
async def keep(renew: Callable[[], Awaitable[bool]], *, lease_s: float) -> AsyncIterator[None]:
    """Call `renew` every third of the lease until the block ends or it says that the lease is lost."""

    async def renewing() -> None:
        held = True
        while held:
            await asyncio.sleep(lease_s / 3)
            with contextlib.suppress(StoreUnavailable):
                held = await renew()

    renewer = asyncio.create_task(renewing())
    try:
        yield
    finally:
        renewer.cancel()
        await asyncio.gather(renewer, return_exceptions=True)
