"""The event log over the memory store: reading it, waiting for it, dead letters, and the relay's places."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime

from cope.adapters.memory.journal import note
from cope.adapters.memory.tables import DeliveryRow, Tables
from cope.core.event_log import Bounds, DeadLetter, EventPage
from cope.core.ids import BatchId, DeliveryId, EndpointId, ProjectId
from cope.core.records import Event


class EventLogMixin:
    """As `EventLog` and `RelayStore` describe it."""

    _db: Tables

    async def list_events(
        self, project_id: ProjectId, *, after: int, limit: int, batch_id: BatchId | None
    ) -> tuple[Event, ...]:
        """Beyond offset `after` (0: from the first kept)."""
        return (await self.read_events(project_id, after=after, limit=limit, batch_id=batch_id)).events

    async def read_events(
        self,
        project_id: ProjectId,
        *,
        after: int,
        limit: int,
        types: frozenset[str] | None = None,
        batch_id: BatchId | None = None,
    ) -> EventPage:
        """All of the log is looked at."""
        log = self._db.logs[project_id]
        found = [
            event
            for event in log.after(after)
            if (types is None or event.type in types) and (batch_id is None or event.batch_id == batch_id)
        ][:limit]
        reached = found[-1].offset or 0 if len(found) == limit else log.head
        return EventPage(tuple(found), max(after, reached), log.start, log.head)

    async def event_bounds(self, project_id: ProjectId) -> Bounds:
        """Now."""
        log = self._db.logs[project_id]
        return Bounds(log.start, log.head)

    async def offset_at(self, project_id: ProjectId, moment: datetime) -> int:
        """By the time at which events entered the log."""
        log = self._db.logs[project_id]
        return log.start - 1 + sum(1 for at in log.logged if at < moment)

    async def tail_events(self, after: Mapping[ProjectId, int], *, limit: int) -> tuple[Event, ...]:
        """By project and offset."""
        return tuple(event for name in sorted(after) for event in self._db.logs[name].after(after[name])[:limit])

    async def event_words(self) -> AsyncIterator[frozenset[ProjectId]]:
        """Only within one event loop."""
        words: asyncio.Queue[frozenset[ProjectId]] = asyncio.Queue()
        self._db.listeners.add(words)
        try:
            while True:
                yield await words.get()
        finally:
            self._db.listeners.discard(words)

    # ---- dead letters ----------------------------------------------------------------------------------------------

    async def list_dead_letters(
        self, project_id: ProjectId, *, endpoint_id: EndpointId | None, after: DeliveryId | None, limit: int
    ) -> tuple[DeadLetter, ...]:
        """By id, which is by age."""
        mine = (row for row in self._dead(project_id, endpoint_id) if after is None or row.id > after)
        return tuple(_letter(self._db, row) for row in sorted(mine, key=lambda row: row.id)[:limit])

    async def get_dead_letter(self, project_id: ProjectId, delivery_id: DeliveryId) -> DeadLetter | None:
        """None where it was never given up."""
        found = (row for row in self._dead(project_id, None) if row.id == delivery_id)
        return next((_letter(self._db, row) for row in found), None)

    async def replay_dead_letters(
        self, project_id: ProjectId, *, ids: Sequence[DeliveryId] | None, endpoint_id: EndpointId | None
    ) -> tuple[DeliveryId, ...]:
        """Each with an event."""
        again = [
            row
            for row in sorted(self._dead(project_id, endpoint_id), key=lambda row: row.id)
            if (ids is None or row.id in ids) and self._may_be_told(row)
        ]
        for row in again:
            row.over, row.attempts, row.due_at, row.ended_at = False, 0, self._db.now(), None
            note(
                self._db,
                project_id,
                "webhook_delivery.replayed",
                id=row.id,
                endpoint_id=row.endpoint_id,
                event_id=row.event_id,
            )
        return tuple(row.id for row in again)

    def _dead(self, project_id: ProjectId, endpoint_id: EndpointId | None) -> list[DeliveryRow]:
        return [
            row
            for row in self._db.deliveries.values()
            if row.project_id == project_id
            and row.over
            and not row.delivered
            and (endpoint_id is None or row.endpoint_id == endpoint_id)
        ]

    def _may_be_told(self, row: DeliveryRow) -> bool:
        if row.endpoint_id is None:
            return True
        endpoint = self._db.endpoints.get(row.endpoint_id)
        return endpoint is not None and endpoint.disabled_at is None

    # ---- the relay -------------------------------------------------------------------------------------------------

    async def try_lead_relay(self) -> bool:
        """One process has no rival."""
        return True

    async def relay_page(self, *, limit: int) -> tuple[Event, ...]:
        """By project and offset."""
        places = {name: self._db.relayed.get(name, 0) for name in self._db.logs}
        waiting = {name: place for name, place in places.items() if self._db.logs[name].head > place}
        return await self.tail_events(waiting, limit=limit // max(1, len(waiting)) or 1)

    async def relay_done(self, places: Mapping[ProjectId, int]) -> None:
        """Places never go back."""
        for name, offset in places.items():
            self._db.relayed[name] = max(self._db.relayed.get(name, 0), offset)


def _letter(db: Tables, row: DeliveryRow) -> DeadLetter:
    return DeadLetter(
        id=row.id,
        event_id=row.event_id,
        endpoint_id=row.endpoint_id,
        url=row.url,
        body=row.body,
        attempts=row.attempts,
        status=row.last_status,
        error=row.last_error,
        excerpt=row.excerpt,
        created_at=row.created_at or db.now(),
        finished_at=row.ended_at,
    )
