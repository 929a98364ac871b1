"""Webhook deliveries that are due: signed, sent side by side, their outcome recorded and the next attempt scheduled."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from cope.core.records import Delivery
from cope.core.webhooks import retry_in_s, sign
from cope.ports.store import WebhookOutcome, WorkerStore
from cope.ports.support import Clock, IdMaker, WebhookRequest, WebhookSender

logger = logging.getLogger(__name__)

AT_ONCE = 256
_POLL_S = 1.0
_STOP_CHECK_S = 0.25
_GONE = 410
_SLOW_DOWN = frozenset({429, 502, 504})


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


async def deliver_due(parts: DeliverParts, *, lease_s: float) -> int:
    """Make one attempt at each due delivery, up to `AT_ONCE` side by side; how many there were."""
    deliveries = await parts.store.claim_deliveries(limit=AT_ONCE, lease_s=lease_s)
    if deliveries:
        outcomes = await asyncio.gather(*(_attempt(parts, delivery) for delivery in deliveries))
        await parts.store.finish_deliveries(outcomes)
    return len(deliveries)


async def _attempt(parts: DeliverParts, delivery: Delivery) -> WebhookOutcome:
    began = asyncio.get_running_loop().time()
    reply = await parts.webhooks.send(signed_request(delivery, now=parts.clock.now()))
    took_ms = int((asyncio.get_running_loop().time() - began) * 1000)
    delivered = reply.status is not None and 200 <= reply.status < 300
    gone = reply.status == _GONE
    retry = None
    if not delivered and not gone:
        slow = reply.status in _SLOW_DOWN
        retry = retry_in_s(
            delivery.attempt, retry_after_s=reply.retry_after_s, jitter=parts.ids.jitter(), slow_down=slow
        )
    return WebhookOutcome(
        delivery_id=delivery.id,
        delivered=delivered,
        retry_in_s=retry,
        status=reply.status,
        error=reply.error,
        excerpt=reply.excerpt,
        disable_endpoint=gone,
        took_ms=took_ms,
    )


def signed_request(delivery: Delivery, *, now: datetime) -> WebhookRequest:
    """The bytes to send, signed with the secret and, while it still counts, with the one before it."""
    timestamp, body = int(now.timestamp()), delivery.body.encode()
    secrets = [secret for secret in (delivery.secret, delivery.older_secret) if secret is not None]
    signatures = [sign(one, message_id=delivery.message_id, timestamp=timestamp, body=body) for one in secrets]
    headers = (
        ("content-type", "application/json"),
        ("webhook-id", delivery.message_id),
        ("webhook-timestamp", str(timestamp)),
        ("webhook-signature", " ".join(signatures)),
    )
    return WebhookRequest(delivery.url, body, headers)


class Courier:
    """The loop of the webhooks queue, polled each second and poked sooner.

    Attempts run side by side and each ends by itself: one that takes its whole time-out keeps only its own place. The
    store gives out a few to each address, so that an address that stalls has a few places and not all of them.
    """

    def __init__(self, parts: DeliverParts, *, lease_s: float) -> None:
        self._parts = parts
        # An attempt may take its whole time-out; the lease outlasts it.
        self._lease_s = max(60.0, lease_s)
        self._wake = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._ended: list[WebhookOutcome] = []

    def poke(self) -> None:
        """There may be work. Call from the loop's own thread."""
        self._wake.set()

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Until `stopping()` is true; attempts under way are finished."""
        claimed_at = -_POLL_S
        clock = asyncio.get_running_loop().time
        while not stopping():
            due = self._wake.is_set() or clock() >= claimed_at + _POLL_S
            self._wake.clear()
            try:
                await self._book()
                if due and len(self._running) < AT_ONCE:
                    claimed_at = clock()
                    await self._begin()
            except Exception:
                logger.exception("webhooks could not be delivered; trying again")
                await asyncio.sleep(_STOP_CHECK_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _STOP_CHECK_S)
        await asyncio.gather(*self._running, return_exceptions=True)
        with contextlib.suppress(Exception):  # what could not be booked is attempted again when its lease is over
            await self._book()

    async def _begin(self) -> None:
        free = AT_ONCE - len(self._running)
        deliveries = await self._parts.store.claim_deliveries(limit=free, lease_s=self._lease_s)
        for delivery in deliveries:
            task = asyncio.create_task(self._one(delivery))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _one(self, delivery: Delivery) -> None:
        self._ended.append(await _attempt(self._parts, delivery))
        self._wake.set()  # it is booked, together with what ends meanwhile, and its place is free

    async def _book(self) -> None:
        """Write down what has ended, in one transaction; what could not be written stays for the next time."""
        ended, self._ended = self._ended, []
        try:
            await self._parts.store.finish_deliveries(ended)
        except BaseException:
            self._ended = ended + self._ended
            raise
