"""The sweep: one elected process repairs, resumes, expires and sequences, and wakes the queues that have work."""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from cope.ports.store import WorkerStore
from cope.ports.support import WakeUp

logger = logging.getLogger(__name__)


class SweepParts(Protocol):
    """What sweeping needs."""

    @property
    def store(self) -> WorkerStore: ...
    @property
    def wake(self) -> WakeUp: ...


class Sweeper:
    """Sweeps every `every_s` seconds while this process is the elected one; any number may stand for election."""

    def __init__(self, parts: SweepParts, *, lease_s: float, every_s: float) -> None:
        self._parts = parts
        self._lease_s = lease_s
        self._every_s = every_s

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Until `stopping()` is true."""
        while not stopping():
            try:
                if await self._parts.store.try_lead():
                    await self._sweep()
            except Exception:
                logger.warning("the sweep failed; trying again", exc_info=True)
            await asyncio.sleep(self._every_s)

    async def _sweep(self) -> None:
        report = await self._parts.store.sweep(lease_s=self._lease_s)
        if report.reclaimed or report.unconfirmed or report.repaired:
            logger.warning(
                "sweep: %d leases reclaimed, %d attempts unconfirmed, %d counters repaired",
                report.reclaimed,
                report.unconfirmed,
                report.repaired,
            )
        for queue, due in report.due.items():
            if due:
                await self._parts.wake.poke(queue)
