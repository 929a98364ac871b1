"""Webhook deliveries that are due: signed, sent side by side, their outcome recorded and the next attempt scheduled."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Protocol

from cope.core.records import Delivery
from cope.core.webhooks import retry_in_s, sign
from cope.ports.store import WebhookOutcome, WorkerStore
from cope.ports.support import Clock, IdMaker, WebhookRequest, WebhookSender

logger = logging.getLogger(__name__)

AT_ONCE = 32
_POLL_S = 1.0
_STOP_CHECK_S = 0.25
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


async def deliver_due(parts: DeliverParts, *, lease_s: float) -> int:
    """Make one attempt at each due delivery, `AT_ONCE` side by side; how many there were."""
    deliveries = await parts.store.claim_deliveries(limit=AT_ONCE, lease_s=lease_s)
    if deliveries:
        outcomes = await asyncio.gather(*(_attempt(parts, delivery) for delivery in deliveries))
        await parts.store.finish_deliveries(outcomes)
    return len(deliveries)


async def _attempt(parts: DeliverParts, delivery: Delivery) -> WebhookOutcome:
    timestamp, body = int(parts.clock.now().timestamp()), delivery.body.encode()
    headers = (
        ("content-type", "application/json"),
        ("webhook-id", delivery.message_id),
        ("webhook-timestamp", str(timestamp)),
        ("webhook-signature", sign(delivery.secret, message_id=delivery.message_id, timestamp=timestamp, body=body)),
    )
    reply = await parts.webhooks.send(WebhookRequest(delivery.url, body, headers))
    delivered = reply.status is not None and 200 <= reply.status < 300
    gone = reply.status == _GONE
    retry = None
    if not delivered and not gone:
        retry = retry_in_s(delivery.attempt, retry_after_s=reply.retry_after_s, jitter=parts.ids.jitter())
    return WebhookOutcome(
        delivery_id=delivery.id,
        delivered=delivered,
        retry_in_s=retry,
        status=reply.status,
        error=reply.error,
        excerpt=reply.excerpt,
        disable_endpoint=gone,
    )


class Courier:
    """The loop of the webhooks queue, polled each second and poked sooner."""

    def __init__(self, parts: DeliverParts, *, lease_s: float) -> None:
        self._parts = parts
        # An attempt may take its whole time-out; the lease outlasts it.
        self._lease_s = max(60.0, lease_s)
        self._wake = asyncio.Event()

    def poke(self) -> None:
        """There may be work. Call from the loop's own thread."""
        self._wake.set()

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Until `stopping()` is true; attempts under way are finished."""
        while not stopping():
            self._wake.clear()
            try:
                worked = await deliver_due(self._parts, lease_s=self._lease_s)
            except Exception:
                logger.exception("webhooks could not be delivered; trying again")
                worked = 0
            waited = 0.0
            while not worked and waited < _POLL_S and not stopping() and not self._wake.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), _STOP_CHECK_S)
                waited += _STOP_CHECK_S
