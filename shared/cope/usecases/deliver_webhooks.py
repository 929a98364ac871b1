"""Webhook deliveries that are due: signed, sent side by side, their outcome recorded and the next attempt scheduled."""

import asyncio
import contextlib
import heapq
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
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
_GROUP = 16
_LINGER_S = 0.01
_NEAR_S = 60.0
_LATE_S = 0.05
_REMEMBERED = 10_000


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
        self._unused: list[Delivery] = []
        self._gates: dict[str, _Gate] = {}
        self._again_s: list[float] = []  # a heap: when what failed here is due again
        self._stopping: Callable[[], bool] = lambda: False

    def poke(self) -> None:
        """There may be work. Call from the loop's own thread."""
        self._wake.set()

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Until `stopping()` is true; attempts under way are finished and recorded."""
        saves_left, self._stopping = _SAVES_AT_THE_END, stopping
        while not stopping() or self._under_way or ((self._ended or self._unused) and saves_left > 0):
            self._wake.clear()
            await self._gather(stopping)
            try:
                begun = await self._turn(begin=not stopping())
            except Exception:
                logger.exception("webhooks could not be claimed or recorded; trying again")
                saves_left -= stopping()
                await asyncio.sleep(_STOP_CHECK_S)
                continue
            if not begun and not self._ended and not self._unused:
                await self._rest(stopping)
        if self._ended:  # what was not attempted is due again when its lease is over
            logger.error("%d webhook deliveries were not recorded; they are sent again", len(self._ended))

    async def _turn(self, *, begin: bool) -> int:
        """Record what has ended, and begin what there is room for; how many that were."""
        now_s = asyncio.get_running_loop().time
        room, asked_s = self._lanes.room(now_s()), now_s()
        claimed: list[Delivery] = []
        ended, self._ended = self._ended, []
        unused, self._unused = self._unused, []
        try:
            if begin and room.total:
                claimed = await self._parts.store.claim_deliveries(
                    limit=room.total, lease_s=self._lease_s, room=room, ended=ended
                )
            elif ended:
                await self._parts.store.finish_deliveries(ended)
        except BaseException:
            self._ended, self._unused = ended + self._ended, unused + self._unused
            raise
        for delivery in claimed:
            self._lanes.begun(_key(delivery), delivery.lane, now_s())
            gate = self._gates.setdefault(delivery.lane, _Gate())
            gate.most = delivery.concurrency
            gate.in_hand += 1
            task = asyncio.create_task(self._deliver(delivery, gate, until_s=asked_s + _SPARE_S / 2))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        if unused:
            try:
                await self._parts.store.give_back_deliveries(unused)
            except BaseException:
                self._unused = unused + self._unused
                raise
        return len(claimed)

    async def _deliver(self, delivery: Delivery, gate: "_Gate", *, until_s: float) -> None:
        """When it is its turn in its lane. Where that takes so long that somebody else might have it before the attempt
        ends, it is given back."""
        try:
            async with gate.place():
                if self._stopping() or asyncio.get_running_loop().time() > until_s:
                    self._lanes.dropped(_key(delivery))
                    self._unused.append(delivery)
                else:
                    await self._attempt(delivery)
        finally:
            gate.in_hand -= 1
            if not gate.in_hand:
                self._gates.pop(delivery.lane, None)
            self._wake.set()

    async def _attempt(self, delivery: Delivery) -> None:
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
        if retry is not None and retry < _NEAR_S and len(self._again_s) < _REMEMBERED:
            heapq.heappush(self._again_s, asyncio.get_running_loop().time() + retry)
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

    async def _gather(self, stopping: Callable[[], bool]) -> None:
        """Where messages end one by one, record and claim them some at a time: each time costs about the same."""
        if self._ended and len(self._ended) < _GROUP and len(self._under_way) > _GROUP and not stopping():
            await asyncio.sleep(_LINGER_S)

    async def _rest(self, stopping: Callable[[], bool]) -> None:
        """Until there may be work: an attempt ended, a poke, what failed here is due again, or a second is over."""
        now_s = asyncio.get_running_loop().time
        until_s = now_s() + _POLL_S
        if self._again_s:  # together with what is due a moment later
            until_s = min(until_s, max(now_s(), self._again_s[0]) + _LATE_S)
        while self._again_s and self._again_s[0] <= until_s:
            heapq.heappop(self._again_s)
        while (left_s := until_s - now_s()) > 0 and not self._wake.is_set() and (not stopping() or self._under_way):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), min(_STOP_CHECK_S, left_s))


class _Gate:
    """One lane's places, in the order asked for. `most` may change while some are taken."""

    def __init__(self) -> None:
        self.most = 1
        self.in_hand = 0
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for one, and have it."""
        if self._taken >= self.most or self._waiting:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn  # whoever makes room has counted us
        else:
            self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
            while self._waiting and self._taken < self.most:
                turn = self._waiting.popleft()
                if not turn.done():
                    self._taken += 1
                    turn.set_result(None)


def _key(delivery: Delivery) -> str:
    return f"{delivery.id}/{delivery.attempt}"
