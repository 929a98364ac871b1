"""The event log as it is read: pages, consumer groups, dead letters. Offsets count per project, from 1, without a gap.

`start` is the oldest event that is kept, `head` the newest; an empty log has ``start == head + 1``. A reader stands
*after* an offset: 0 is before everything.
"""

from dataclasses import dataclass
from datetime import datetime

from cope.core.errors import BadRequest
from cope.core.ids import DeliveryId, EndpointId, EventId, ProjectId
from cope.core.records import Event

BEGINNING, END = "beginning", "end"
_LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events after some offset, in order. Everything up to `reached` was looked at, though a filter may have left it
    out: the next page is after `reached`."""

    events: tuple[Event, ...]
    reached: int
    start: int
    head: int

    @property
    def has_more(self) -> bool:
        """Whether the log goes on behind this page now."""
        return self.reached < self.head


@dataclass(frozen=True, slots=True)
class Bounds:
    """The log of one project at a moment."""

    start: int
    head: int

    def missed(self, after: int) -> int:
        """How many events after `after` are no longer kept."""
        return max(0, self.start - 1 - after)


@dataclass(frozen=True, slots=True)
class Consumer:
    """A consumer group. `committed` is the last offset that it is done with; `types` None is every type.

    `generation` rises whenever another member takes the group over and with each seek: a commit with an older one is
    fenced off. `member` is None where nobody reads under a name, or the last one's time is over.
    """

    project_id: ProjectId
    name: str
    types: frozenset[str] | None
    committed: int
    generation: int
    member: str | None
    member_until: datetime | None
    created_at: datetime
    committed_at: datetime
    start: int
    head: int

    @property
    def lag(self) -> int:
        """How many kept events it has not committed yet."""
        return max(0, self.head - max(self.committed, self.start - 1))


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A webhook delivery that was given up. `endpoint_id` None: a batch's own `webhook_url`."""

    id: DeliveryId
    event_id: EventId
    endpoint_id: EndpointId | None
    url: str
    body: str
    attempts: int
    status: int | None
    error: str | None
    excerpt: str
    created_at: datetime
    finished_at: datetime | None


def offset_of(text: str, param: str) -> int:
    """An offset as it is written: decimal text. Raises `BadRequest`."""
    if not text.isascii() or not text.isdigit() or int(text[:20]) > _LARGEST or len(text) > 19:
        raise BadRequest(f'`{param}` must be an offset: a whole number as text, such as "0".', param=param)
    return int(text)
