"""Webhook endpoints changed, and their deliveries looked at: `ApiStore`'s part about webhooks."""

from typing import Protocol

from cope.core.deliveries import Again, DeliveryRecord, DeliveryState
from cope.core.ids import DeliveryId, EndpointId, ProjectId
from cope.core.records import WebhookEndpoint


class Webhooks(Protocol):
    """One project at a time."""

    async def update_endpoint(
        self,
        project_id: ProjectId,
        endpoint_id: EndpointId,
        *,
        name: str | None = None,
        url: str | None = None,
        event_types: tuple[str, ...] | None = None,
    ) -> WebhookEndpoint | None:
        """What is None stays. Whatever changes, a disabled endpoint is enabled again and begins without failures."""
        ...

    async def rotate_secret(
        self, project_id: ProjectId, endpoint_id: EndpointId, secret: str, *, keep_old: bool
    ) -> WebhookEndpoint | None:
        """The new secret signs from now on; `keep_old`: the old one beside it for `OVERLAP`, else never again."""
        ...

    async def list_deliveries(
        self,
        project_id: ProjectId,
        *,
        endpoint_id: EndpointId | None,
        state: DeliveryState | None,
        after: DeliveryId | None,
        limit: int,
    ) -> tuple[DeliveryRecord, ...]:
        """At most `limit`, newest first, without their attempts."""
        ...

    async def get_delivery(self, project_id: ProjectId, delivery_id: DeliveryId) -> DeliveryRecord | None:
        """With its attempts."""
        ...

    async def send_again(self, project_id: ProjectId, endpoint_id: EndpointId, which: Again) -> int:
        """How many are due again now, at most `MOST_AGAIN`, the oldest first; each keeps its message id."""
        ...
