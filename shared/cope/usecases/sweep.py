"""The sweep: one elected process repairs, resumes, expires and sequences, and wakes the queues that have work."""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from cope.core.limits.breaker import Cause
from cope.ports.limiter import Limiter
from cope.ports.store import WorkerStore
from cope.ports.support import WakeUp

logger = logging.getLogger(__name__)

SEQUENCED_EVERY_S = 0.1


class SweepParts(Protocol):
    """What sweeping needs."""

    @property
    def store(self) -> WorkerStore: ...
    @property
    def wake(self) -> WakeUp: ...
    @property
    def limiter(self) -> Limiter: ...


class Sweeper:
    """Sweeps every `every_s` seconds while this process is the elected one; any number may stand for election.

    In between it gives events their offsets every `SEQUENCED_EVERY_S`: readers of the log wait for these.
    """

    def __init__(self, parts: SweepParts, *, lease_s: float, every_s: float) -> None:
        self._parts = parts
        self._lease_s = lease_s
        self._every_s = every_s
        self._without_quota: set[str] | None = None
        """The models that no endpoint served at the last look; None: nobody has looked yet."""

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Until `stopping()` is true."""
        while not stopping():
            leads = False
            try:
                leads = await self._parts.store.try_lead()
                if leads:
                    await self._sweep()
            except Exception:
                logger.warning("the sweep failed; trying again", exc_info=True)
            await self._rest(stopping, leads=leads)

    async def _rest(self, stopping: Callable[[], bool], *, leads: bool) -> None:
        rested = 0.0
        while rested < self._every_s and not stopping():
            nap = min(SEQUENCED_EVERY_S, self._every_s - rested)
            await asyncio.sleep(nap)
            rested += nap
            if leads:
                try:
                    await self._parts.store.sequence_events()
                except Exception:
                    logger.debug("events could not be sequenced; the next sweep tries again", exc_info=True)
                    leads = False

    async def _quota_is_back(self) -> bool:
        """Whether holds for a quota may end now: no model lacks an endpoint with money and a good key, or one that did
        has one again. Then all are let go, once: who still finds none is held again without a call."""
        try:
            stand = await self._parts.limiter.headroom()
        except Exception:
            logger.warning("the limiter could not be asked; quota holds wait for their time", exc_info=True)
            return False
        lacking = {one.model for one in stand if one.cause in {Cause.QUOTA, Cause.KEY}}
        well = {one.model for one in stand if one.cause not in {Cause.QUOTA, Cause.KEY}}
        before = lacking if self._without_quota is None else self._without_quota
        self._without_quota = lacking - well
        return not self._without_quota or bool(before - self._without_quota)

    async def _sweep(self) -> None:
        report = await self._parts.store.sweep(lease_s=self._lease_s, quota_is_back=await self._quota_is_back())
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
