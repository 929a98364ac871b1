"""Webhook deliveries that are due: signed, sent side by side, their outcome recorded and the next attempt scheduled."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from cope.core.records import Delivery
from cope.core.webhook_lanes import Lanes
from cope.core.webhooks import SCHEDULE_S, retry_in_s, signed_headers, slow_down_s
from cope.ports.store import WebhookOutcome, WorkerStore
from cope.ports.support import Clock, IdMaker, WebhookReply, WebhookRequest, WebhookSender

logger = logging.getLogger(__name__)

_POLL_S = 1.0
_STOP_CHECK_S = 0.25
_SPARE_S = 10.0
_SAVES_AT_THE_END = 20
_GONE = 410


class DeliverParts(Protocol):
    """What delivering needs."""

    @property
    def store(self) -> WorkerStore: ...
    @property
    def webhooks(self) -> WebhookSender: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def ids(self) -> IdMaker: ...


class Courier:
    """The loop of the webhooks queue, polled each second and poked sooner.

    `timeout_s` is the sender's own; a lease outlasts it by ten seconds. `schedule` holds the seconds until the second,
    third, … attempt. What ends while the database is away is kept in hand and recorded later.
    """

    def __init__(self, parts: DeliverParts, *, timeout_s: float, schedule: Sequence[float] = SCHEDULE_S) -> None:
        self._parts = parts
        self._timeout_s = timeout_s
        self._lease_s = timeout_s + _SPARE_S
        self._schedule = tuple(schedule)
        self._lanes = Lanes()
        self._wake = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()
        self._ended: list[WebhookOutcome] = []

    def poke(self) -> None:
        """There may be work. Call from the loop's own thread."""
        self._wake.set()

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Until `stopping()` is true; attempts under way are finished and recorded."""
        saves_left = _SAVES_AT_THE_END
        while not stopping() or self._under_way or (self._ended and saves_left):
            self._wake.clear()
            try:
                saves_left -= stopping()
                await self._record()
                begun = 0 if stopping() else await self._begin()
            except Exception:
                logger.exception("webhooks could not be claimed or recorded; trying again")
                await asyncio.sleep(_STOP_CHECK_S)
                continue
            if not begun and not self._ended:
                await self._rest(stopping)
        if self._ended:
            logger.error("%d webhook deliveries were not recorded; they are sent again", len(self._ended))

    async def _record(self) -> None:
        outcomes, self._ended = self._ended, []
        try:
            await self._parts.store.finish_deliveries(outcomes)
        except BaseException:
            self._ended = outcomes + self._ended
            raise

    async def _begin(self) -> int:
        """Begin what there is room for; how many that were."""
        now_s = asyncio.get_running_loop().time
        room, asked_s = self._lanes.room(now_s()), now_s()
        if not room.total:
            return 0
        claimed = await self._parts.store.claim_deliveries(limit=room.total, lease_s=self._lease_s, room=room)
        if claimed and now_s() - asked_s > _SPARE_S / 2:
            # Somebody else may have them before these attempts would end: they are due again when the lease is over.
            logger.warning("a claim of %d webhook deliveries took too long to be used", len(claimed))
            return 0
        for delivery in claimed:
            self._lanes.begun(_key(delivery), delivery.lane, now_s())
            task = asyncio.create_task(self._deliver(delivery))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        return len(claimed)

    async def _deliver(self, delivery: Delivery) -> None:
        reply = WebhookReply(None, "the attempt was cut off", "", None)
        try:
            reply = await self._send(delivery)
        except Exception as failed:
            logger.exception("webhook delivery %s could not be sent", delivery.id)
            reply = WebhookReply(None, f"not sent: {type(failed).__name__}", "", None)
        finally:
            taken = reply.status is not None and 200 <= reply.status < 300
            self._lanes.ended(_key(delivery), asyncio.get_running_loop().time(), taken=taken)
            self._ended.append(self._outcome(delivery, reply, taken=taken))
            self._wake.set()

    async def _send(self, delivery: Delivery) -> WebhookReply:
        if not delivery.secret:
            return WebhookReply(None, "not sent: its signing secret can't be read (COPE_SECRET_KEY)", "", None)
        body = delivery.body.encode()
        headers = signed_headers(
            (delivery.secret, *delivery.old_secrets),
            message_id=delivery.message_id,
            timestamp=int(self._parts.clock.now().timestamp()),
            body=body,
        )
        return await self._parts.webhooks.send(WebhookRequest(delivery.url, body, headers))

    def _outcome(self, delivery: Delivery, reply: WebhookReply, *, taken: bool) -> WebhookOutcome:
        gone = reply.status == _GONE
        retry = block = None
        if not taken:
            after_s, jitter = reply.retry_after_s, self._parts.ids.jitter()
            block = slow_down_s(reply.status, delivery.attempt, retry_after_s=after_s, jitter=jitter)
            if not gone:
                retry = retry_in_s(delivery.attempt, retry_after_s=after_s, jitter=jitter, schedule=self._schedule)
        return WebhookOutcome(
            delivery_id=delivery.id,
            delivered=taken,
            retry_in_s=retry,
            status=reply.status,
            error=reply.error,
            excerpt=reply.excerpt,
            disable_endpoint=gone,
            attempt=delivery.attempt,
            took_ms=reply.took_ms,
            block_s=block,
        )

    async def _rest(self, stopping: Callable[[], bool]) -> None:
        """Until there may be work: an attempt ended, a poke, or a second is over."""
        rested = 0.0
        while rested < _POLL_S and not self._wake.is_set() and (not stopping() or self._under_way):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _STOP_CHECK_S)
            rested += _STOP_CHECK_S


def _key(delivery: Delivery) -> str:
    return f"{delivery.id}/{delivery.attempt}"
