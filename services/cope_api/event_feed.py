"""Everybody in this process who waits for events: one question to the database a tick, however many they are."""

import asyncio
import contextlib
import logging
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from cope.bootstrap import ApiParts
from cope.core.event_log import EventPage
from cope.core.ids import BatchId, ProjectId
from cope.core.records import Event

logger = logging.getLogger(__name__)

POLL_S = 1.0
"""How late an event can be where no word of it comes."""
_CALM_S = 0.02
_AGAIN_S = 2.0
_KEPT, _AT_ONCE = 2000, 1000


@dataclass(slots=True)
class _Tail:
    """The newest events of one project, as long as somebody reads at its end. `head` is the last one known."""

    head: int
    readers: int = 0
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=_KEPT))
    grew: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, event: Event) -> None:
        """The next event."""
        self.events.append(event)
        self.head = event.offset or self.head


class EventFeed:
    """Readers at the end of a log are served from memory, those behind it by pages from the store."""

    def __init__(self, parts: ApiParts) -> None:
        self._parts = parts
        self._tails: dict[ProjectId, _Tail] = {}
        self._look = asyncio.Event()
        self.queries = 0
        """Questions asked for those who wait; what a test of their number looks at."""

    @contextlib.contextmanager
    def reading(self, project_id: ProjectId, head: int) -> Iterator[None]:
        """While a reader may come to wait. `head` is the log's, as the reader has just seen it."""
        tail = self._tails.get(project_id)
        if tail is None:
            tail = self._tails[project_id] = _Tail(head)
        tail.readers += 1
        try:
            yield
        finally:
            tail.readers -= 1
            if not tail.readers:
                del self._tails[project_id]

    async def read(
        self,
        project_id: ProjectId,
        *,
        after: int,
        limit: int,
        types: frozenset[str] | None,
        batch_id: BatchId | None,
    ) -> EventPage:
        """A page: from memory where that reaches back far enough."""
        tail = self._tails.get(project_id)
        oldest = tail.events[0].offset if tail is not None and tail.events else None
        if tail is None or after < (tail.head if oldest is None else oldest - 1):
            return await self._parts.store.read_events(
                project_id, after=after, limit=limit, types=types, batch_id=batch_id
            )
        found: list[Event] = []
        reached = max(after, tail.head)
        for event in tail.events:
            if (event.offset or 0) <= after or (types is not None and event.type not in types):
                continue
            if batch_id is not None and event.batch_id != batch_id:
                continue
            found.append(event)
            if len(found) == limit:
                reached = event.offset or reached
                break
        return EventPage(tuple(found), reached, start=1, head=tail.head)

    async def wait(self, project_id: ProjectId, after: int, timeout_s: float) -> None:
        """Until the log goes on behind `after`, or for `timeout_s` seconds. Within `reading` only."""
        tail = self._tails[project_id]
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while tail.head <= after and (left := until - loop.time()) > 0:
            grew = tail.grew
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(grew.wait(), left)

    async def run(self) -> None:
        """Until cancelled."""
        listener = asyncio.create_task(self._listen())
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._look.wait(), POLL_S)
                self._look.clear()
                try:
                    await self._tick()
                except Exception:
                    logger.warning("new events could not be looked up; trying again", exc_info=True)
                await asyncio.sleep(_CALM_S)
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def _tick(self) -> None:
        if not self._tails:
            return
        heads = {project_id: tail.head for project_id, tail in self._tails.items()}
        self.queries += 1
        news = await self._parts.store.tail_events(heads, limit=_AT_ONCE)
        counted: dict[ProjectId, int] = defaultdict(int)
        for event in news:
            tail = self._tails.get(event.project_id)
            counted[event.project_id] += 1
            # A reader may have gone and come back meanwhile, to a tail that begins later.
            if tail is not None and event.offset is not None and event.offset > tail.head:
                tail.take(event)
        for project_id in counted:
            tail = self._tails.get(project_id)
            if tail is not None:
                grew, tail.grew = tail.grew, asyncio.Event()
                grew.set()
        if any(count >= _AT_ONCE for count in counted.values()):
            self._look.set()

    async def _listen(self) -> None:
        while True:
            words: AsyncIterator[frozenset[ProjectId]] = self._parts.store.event_words()
            try:
                async for grown in words:
                    if not grown or not grown.isdisjoint(self._tails):
                        self._look.set()
            except Exception as cut:
                logger.warning("no word of new events for now, so they are looked for each second: %s", cut)
            await asyncio.sleep(_AGAIN_S)
