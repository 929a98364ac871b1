"""Webhook messages as they are looked at afterwards: what was tried, and what came back."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cope.core.ids import DeliveryId, EndpointId, EventId, ProjectId

KEPT_ATTEMPTS = 20
"""Of one message, the latest."""
DEFAULT_CONCURRENCY = 16
MOST_CONCURRENCY = 64


class DeliveryState(StrEnum):
    """`dead`: given up, or its endpoint was disabled or deleted; it can be sent again by hand."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


class Disabled(StrEnum):
    """Why an endpoint is told nothing more."""

    GONE = "gone"
    FAILING = "failing"
    BY_HAND = "by_hand"


@dataclass(frozen=True, slots=True)
class EndpointTrouble:
    """An endpoint whose last attempt failed. `blocked_until`: it is left alone until then."""

    failures: int
    failing_since: datetime
    failed_at: datetime
    blocked_until: datetime | None
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    """One attempt and when it ended. `status` None: no answer came, `error` says why. `excerpt` is the beginning of the
    answer's body, at most 1 KiB."""

    number: int
    ended_at: datetime
    took_ms: int
    status: int | None
    error: str | None
    excerpt: str


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """One message for one address. `attempts` are the latest `KEPT_ATTEMPTS`, oldest first, over all of its runs of the
    schedule; `next_at` is when it is due, None once it is over."""

    id: DeliveryId
    project_id: ProjectId
    event_id: EventId
    endpoint_id: EndpointId | None
    url: str
    body: str
    state: DeliveryState
    created_at: datetime
    next_at: datetime | None
    finished_at: datetime | None
    attempts: tuple[DeliveryAttempt, ...]


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which of a project's messages. Times are those at which the message was made; `until` is not included."""

    endpoint_id: EndpointId | None = None
    state: DeliveryState | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Redelivery:
    """What to send again of an endpoint's messages: those named, or those of a time range. `only_failed` leaves out
    what was delivered and what has not been tried. At most `limit`, by age, beyond the id `after`."""

    ids: tuple[DeliveryId, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None
    only_failed: bool = True
    after: DeliveryId | None = None
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class WebhookBacklog:
    """Of all projects. `pending` and `due` are counted up to 100,000."""

    pending: int
    due: int
    oldest_due_at: datetime | None
    sending: int
    failing: int
    blocked: int
    disabled: int
