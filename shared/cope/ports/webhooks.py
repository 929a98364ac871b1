"""Webhook endpoints and their messages, as the API manages them: `ApiStore`'s part."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cope.core.deliveries import DeliveryFilter, DeliveryRecord, Redelivery, WebhookBacklog
from cope.core.ids import DeliveryId, EndpointId, ProjectId
from cope.core.records import WebhookEndpoint


@dataclass(frozen=True, slots=True)
class EndpointChange:
    """What to change; None stays. `disabled` False also forgets its failures and any wait that it asked for."""

    name: str | None = None
    url: str | None = None
    event_types: tuple[str, ...] | None = None
    concurrency: int | None = None
    disabled: bool | None = None


class WebhookDesk(Protocol):
    """Every method that takes a project sees that project's rows only."""

    async def update_endpoint(
        self, project_id: ProjectId, endpoint_id: EndpointId, change: EndpointChange
    ) -> WebhookEndpoint | None:
        """As it stands then. `updated_at` moves only if something changed. What is due to a disabled endpoint is given
        up; `redeliver` sends it after all."""
        ...

    async def rotate_endpoint_secret(
        self, project_id: ProjectId, endpoint_id: EndpointId, secret: str, *, keep_old_s: float | None
    ) -> WebhookEndpoint | None:
        """`secret` signs from now on, alone, or beside the ones before it for `keep_old_s` more seconds each."""
        ...

    async def list_deliveries(
        self, project_id: ProjectId, which: DeliveryFilter, *, after: DeliveryId | None, limit: int
    ) -> tuple[DeliveryRecord, ...]:
        """Newest first, at most `limit`, those older than `after`."""
        ...

    async def get_delivery(self, project_id: ProjectId, delivery_id: DeliveryId) -> DeliveryRecord | None: ...

    async def redeliver(
        self, project_id: ProjectId, endpoint_id: EndpointId | None, what: Redelivery
    ) -> Sequence[DeliveryId]:
        """Of this endpoint, or wherever `what.ids` went. Due at once, under their old message ids and with the whole
        schedule before them; which, by age. What is under way at the moment is passed over."""
        ...

    async def webhook_backlog(self) -> WebhookBacklog:
        """Of all projects: for the operator."""
        ...
