"""Waiting for a batch's end: a long poll, for which all that wait in this process cost one query."""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field

from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.bootstrap import ApiParts
from cope.core.errors import BadRequest
from cope.core.ids import BatchId
from cope.core.lifecycle import TERMINAL_BATCH_STATUSES
from cope_api.batches import find_batch, show

logger = logging.getLogger(__name__)
router = APIRouter()

_POLL_S = 1.0
_DISCONNECT_CHECK_S = 0.5
_SHORTEST_LOOK_S = 0.05
_DEFAULT_S, _LONGEST_S = 30, 300


@dataclass(slots=True)
class _Waited:
    over: asyncio.Event = field(default_factory=asyncio.Event)
    waiters: int = 0


class BatchWaiter:
    """Who waits for which batch. Told over Redis like the live calls; one batched query a second in any case."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self._waiting: dict[BatchId, _Waited] = {}
        self._look = asyncio.Event()

    def hear(self, name: str) -> None:
        """Something of this name has ended."""
        if BatchId(name) in self._waiting:
            self._look.set()

    async def wait(self, request: Request, batch_id: BatchId, timeout_s: float) -> None:
        """Until the batch is over, the time is, or the caller has gone."""
        waited = self._waiting.get(batch_id)
        if waited is None:
            waited = self._waiting[batch_id] = _Waited()
            self._look.set()  # it may have ended since the caller looked
        waited.waiters += 1
        until = time.monotonic() + timeout_s
        try:
            while (left := until - time.monotonic()) > 0 and not waited.over.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(waited.over.wait(), min(left, _DISCONNECT_CHECK_S))
                    return
                if await request.is_disconnected():
                    return
        finally:
            waited.waiters -= 1
            if not waited.waiters and self._waiting.get(batch_id) is waited:
                del self._waiting[batch_id]

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), _POLL_S)
                await asyncio.sleep(_SHORTEST_LOOK_S)  # batches that end together are asked for together
            self._look.clear()
            await self._poll()

    async def _poll(self) -> None:
        if not self._waiting:
            return
        try:
            ended = await self._parts.store.ended_batches(list(self._waiting))
        except Exception:
            logger.warning("awaited batches could not be looked up; trying again", exc_info=True)
            return
        for batch_id in ended:
            if batch_id in self._waiting:
                self._waiting.pop(batch_id).over.set()


@router.get("/v1/batches/{batch_id}/wait")
async def wait(request: Request, batch_id: str) -> Response:
    """The batch as soon as it is over, or as it is after `timeout` seconds (0 to 300; 30 if not said)."""
    parts, batch = await find_batch(request, batch_id)
    told = request.query_params.get("timeout", str(_DEFAULT_S))
    if not told.isascii() or not told.isdigit() or int(told[:4]) > _LONGEST_S:
        raise BadRequest(f"`timeout` must be a whole number of seconds from 0 to {_LONGEST_S}.", param="timeout")
    if batch.status not in TERMINAL_BATCH_STATUSES and int(told):
        waiter: BatchWaiter = request.app.state.batch_waiter
        await waiter.wait(request, batch.id, int(told))
        batch = await parts.store.get_batch(batch.project_id, batch.id) or batch
    return await show(parts, batch, audited=True)
