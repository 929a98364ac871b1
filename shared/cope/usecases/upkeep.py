"""The loop of the upkeep queue: ingest and finalise, one job after another, polled each second and poked sooner."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Protocol

from cope.usecases.finalise import FinaliseParts, finalise_next
from cope.usecases.ingest import IngestParts, ingest_next

logger = logging.getLogger(__name__)

_POLL_S = 1.0
_STOP_CHECK_S = 0.25


class UpkeepParts(IngestParts, FinaliseParts, Protocol):
    """What both jobs need."""


class _Job(Protocol):
    async def __call__(self, parts: UpkeepParts, *, lease_s: float) -> bool: ...


class Upkeep:
    """Runs upkeep jobs until told to stop. A job cut by a stop is taken up again by the next worker."""

    def __init__(self, parts: UpkeepParts, *, lease_s: float) -> None:
        self._parts = parts
        self._lease_s = lease_s
        self._wake = asyncio.Event()

    def poke(self) -> None:
        """There may be work. Call from the loop's own thread."""
        self._wake.set()

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Until `stopping()` is true; the job in hand is finished first."""
        while not stopping():
            self._wake.clear()
            worked = await self._attempt(ingest_next) | await self._attempt(finalise_next)
            if not worked:
                await self._wait(stopping)

    async def _attempt(self, job: "_Job") -> bool:
        try:
            return await job(self._parts, lease_s=self._lease_s)
        except Exception:
            logger.exception("an upkeep job failed; its lease runs out and it is taken up again")
            await asyncio.sleep(_POLL_S)
            return False

    async def _wait(self, stopping: Callable[[], bool]) -> None:
        waited = 0.0
        while waited < _POLL_S and not stopping() and not self._wake.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _STOP_CHECK_S)
            waited += _STOP_CHECK_S
