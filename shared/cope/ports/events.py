"""The event log: reading it, waiting for it, consumer groups, dead letters; and relaying it to somewhere else."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from cope.core.event_log import Bounds, Consumer, DeadLetter, EventPage
from cope.core.ids import BatchId, DeliveryId, EndpointId, ProjectId
from cope.core.records import Event


class EventLog(Protocol):
    """The API's side. Every method that takes a project sees that project's log only."""

    async def list_events(
        self, project_id: ProjectId, *, after: int, limit: int, batch_id: BatchId | None
    ) -> tuple[Event, ...]:
        """Up to `limit` kept events after `after`, in order."""
        ...

    async def read_events(
        self,
        project_id: ProjectId,
        *,
        after: int,
        limit: int,
        types: frozenset[str] | None = None,
        batch_id: BatchId | None = None,
    ) -> EventPage:
        """A page after `after`. Looks at a bounded part of the log: a page may be empty and `has_more` all the same."""
        ...

    async def event_bounds(self, project_id: ProjectId) -> Bounds:
        """Where the log begins and ends now."""
        ...

    async def offset_at(self, project_id: ProjectId, moment: datetime) -> int:
        """The offset after which everything logged at or after `moment` lies. Binary search: the log is in order of the
        time at which events entered it, which is a little later than the time they carry."""
        ...

    async def tail_events(self, after: Mapping[ProjectId, int], *, limit: int) -> tuple[Event, ...]:
        """What is new in several logs, each after its own offset and up to `limit` of each, by project and offset. One
        statement for whoever waits in a process; the projects are those whose keys were checked."""
        ...

    def event_words(self) -> AsyncIterator[frozenset[ProjectId]]:
        """Word that these projects' logs have grown (empty: somebody's). Hints: they may be lost. Raises
        `StoreUnavailable` when the line is cut."""
        ...

    # consumer groups
    async def put_consumer(
        self, project_id: ProjectId, name: str, *, types: frozenset[str] | None, committed: int
    ) -> Consumer:
        """Make the group, or give an existing one this filter; its place is kept. At most 1,000 in a project
        (`Conflict`)."""
        ...

    async def get_consumer(self, project_id: ProjectId, name: str) -> Consumer | None: ...
    async def list_consumers(self, project_id: ProjectId) -> tuple[Consumer, ...]: ...
    async def delete_consumer(self, project_id: ProjectId, name: str) -> bool: ...
    async def join_consumer(self, project_id: ProjectId, name: str, *, member: str, session_s: float) -> Consumer:
        """`member` reads for the group for `session_s` seconds from now; a new member makes a new generation.
        `Conflict` (`consumer_busy`) while another one's time lasts; `NotFound` without the group."""
        ...

    async def commit_offset(self, project_id: ProjectId, name: str, *, offset: int, generation: int | None) -> Consumer:
        """The group is done up to `offset`. `Conflict`: a smaller offset than before (`offset_backwards`), one beyond
        the head (`offset_beyond_head`), or a generation that is over (`consumer_fenced`; None where a member reads
        under a name is over too)."""
        ...

    async def seek_consumer(self, project_id: ProjectId, name: str, *, committed: int) -> Consumer:
        """Put the group anywhere, on purpose: a new generation, so that whoever was reading is fenced off."""
        ...

    # dead letters
    async def list_dead_letters(
        self, project_id: ProjectId, *, endpoint_id: EndpointId | None, after: DeliveryId | None, limit: int
    ) -> tuple[DeadLetter, ...]:
        """Deliveries that were given up, oldest first."""
        ...

    async def get_dead_letter(self, project_id: ProjectId, delivery_id: DeliveryId) -> DeadLetter | None: ...
    async def replay_dead_letters(
        self, project_id: ProjectId, *, ids: Sequence[DeliveryId] | None, endpoint_id: EndpointId | None
    ) -> tuple[DeliveryId, ...]:
        """Send these again, or all of an endpoint (`ids` None), or all: due at once, with a whole schedule before
        them and the message id they had. Those whose endpoint is deleted or disabled stay dead. Up to 1,000 a call."""
        ...


class RelayStore(Protocol):
    """The relay's place in every project's log, kept in the database: a consumer group of its own."""

    async def try_lead_relay(self) -> bool:
        """Whether this process is (now) the only relay."""
        ...

    async def relay_page(self, *, limit: int) -> tuple[Event, ...]:
        """Events after the relay's places, each project's in order; a busy project leaves room for the others."""
        ...

    async def relay_done(self, places: Mapping[ProjectId, int]) -> None:
        """Everything up to these offsets was taken. Places never go back."""
        ...


class EventSink(Protocol):
    """Where the relay publishes to."""

    async def publish(self, events: Sequence[Event]) -> None:
        """All of them, in order within a `partition_key`; returns once the other side has them for good. Raises
        `SinkUnavailable`: some may have arrived, and then in order."""
        ...

    async def aclose(self) -> None:
        """What is under way is given up."""
        ...
