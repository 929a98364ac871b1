"""A webhook delivery and its attempts, as they are shown, and the rules of who is sent how much."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cope.core.errors import Conflict
from cope.core.ids import DeliveryId, EndpointId, EventId

AT_ONCE_EACH = 8
"""Deliveries under way to one address."""
AT_ONCE_FAILING = 1
"""The same to an endpoint whose last attempt failed: it is tried, and takes nobody's place."""
DISABLED_AFTER = timedelta(days=5)
"""Failures without a success between them, over this long, disable an endpoint."""
OVERLAP = timedelta(hours=24)
"""How long a rotated secret still signs, where that was asked for."""
MOST_AGAIN = 10_000
"""Deliveries that one call sends again."""


class DeliveryState(StrEnum):
    """`PENDING` is due or waits for its next attempt."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    """One attempt: `took_ms` until the answer or the error, `excerpt` at most 1 KiB of the answer's body."""

    attempt: int
    at: datetime
    took_ms: int
    status: int | None
    error: str | None
    excerpt: str


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """One message for one address. `attempts` counts since it was last begun anew; `log` has all, oldest first, and is
    empty in lists."""

    id: DeliveryId
    event_id: EventId
    endpoint_id: EndpointId | None
    url: str
    body: str
    state: DeliveryState
    attempts: int
    due_at: datetime | None
    created_at: datetime
    finished_at: datetime | None
    status: int | None
    error: str | None
    log: tuple[DeliveryAttempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Again:
    """Which deliveries of an endpoint are sent again: those named, or those made from `since` until `until`;
    `only_failed` leaves out what was delivered. One that is pending already stays as it is."""

    ids: tuple[DeliveryId, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None
    only_failed: bool = True


def disabled() -> Conflict:
    """Nothing is sent to a disabled endpoint."""
    return Conflict(
        "The endpoint is disabled: mend it, and enable it again with an update (POST /v1/webhook_endpoints/{id}).",
        code="webhook_endpoint_disabled",
    )
