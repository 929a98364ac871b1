"""The relay: one elected process publishes the event log to somewhere else, at least once and in order.

Its places are kept in the database and move only once the other side has taken what lies before them. Whoever goes on
after a kill begins at the places: each project's log is sent again from there, in the same order. So what arrives is
the log with stretches of it repeated, and whoever drops offsets that it has seen has the log.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from cope.core.errors import SinkUnavailable
from cope.core.ids import ProjectId
from cope.core.records import Event
from cope.ports.events import EventSink, RelayStore

logger = logging.getLogger(__name__)

AT_ONCE = 1000
_IDLE_S, _STAND_BY_S, _FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 2.0, 0.5, 30.0


class Relay:
    """`new_sink` is called again after each failure: what the old one still had under way must be given up first."""

    def __init__(self, store: RelayStore, new_sink: Callable[[], EventSink]) -> None:
        self._store = store
        self._new_sink = new_sink
        self._sink: EventSink | None = None
        self._pause_s = _FIRST_PAUSE_S

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Until `stopping()` is true."""
        try:
            while not stopping():
                wait_s = await self._once()
                await asyncio.sleep(wait_s)
        finally:
            await self._give_up()

    async def _once(self) -> float:
        """One page; how long to wait before the next."""
        try:
            if not await self._store.try_lead_relay():
                await self._give_up()
                return _STAND_BY_S
            events = await self._store.relay_page(limit=AT_ONCE)
            if events:
                await self._publish(events)
        except Exception as failed:
            await self._give_up()
            level = logging.WARNING if isinstance(failed, SinkUnavailable) else logging.ERROR
            logger.log(level, "the event log could not be relayed; trying again in %.1f s: %s", self._pause_s, failed)
            wait_s, self._pause_s = self._pause_s, min(_LONGEST_PAUSE_S, 2 * self._pause_s)
            return wait_s
        self._pause_s = _FIRST_PAUSE_S
        return 0.0 if len(events) >= AT_ONCE // 2 else _IDLE_S

    async def _publish(self, events: Sequence[Event]) -> None:
        if self._sink is None:
            self._sink = self._new_sink()
        await self._sink.publish(events)
        places: dict[ProjectId, int] = {}
        for event in events:
            places[event.project_id] = event.offset or 0
        await self._store.relay_done(places)

    async def _give_up(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            await sink.aclose()
