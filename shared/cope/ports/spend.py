"""The part of the store that tells and counts money beside the calls: alerts, and spend measured elsewhere."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cope.core.alerts import AlertKind, SpendAlert
from cope.core.ids import AlertId, KeyId, ProjectId, UsageId
from cope.core.money import NanoUSD
from cope.core.records import UsageRecord


@dataclass(frozen=True, slots=True)
class NewUsage:
    """Spend to record. `reference` is the caller's own id of it; `body_hash` tells a repetition from another body."""

    id: UsageId
    project_id: ProjectId
    key_id: KeyId | None
    amount: NanoUSD
    occurred_at: datetime | None
    model: str | None
    description: str | None
    reference: str | None
    body_hash: bytes


class SpendStore(Protocol):
    """What the API may do with alerts and external spend, one project at a time."""

    async def create_alert(self, alert: SpendAlert) -> SpendAlert:
        """The alert as stored. `Conflict` where the project has `cope.core.alerts.MOST_ALERTS` already."""
        ...

    async def list_alerts(self, project_id: ProjectId) -> tuple[SpendAlert, ...]:
        """All of the project's, oldest first."""
        ...

    async def update_alert(
        self,
        project_id: ProjectId,
        alert_id: AlertId,
        *,
        kind: AlertKind,
        threshold: int | None,
        recipients: tuple[str, ...],
        subject_prefix: str | None,
    ) -> SpendAlert | None:
        """Everything replaced. With another kind or threshold it is armed again; otherwise it stays as it was."""
        ...

    async def delete_alert(self, project_id: ProjectId, alert_id: AlertId) -> bool: ...

    async def record_usage(self, new: NewUsage) -> UsageRecord:
        """Count what was already spent, in the project's budget of this month and in the key's, over the caps if need
        be: then the ceiling is lifted to the sum, and nothing more is granted until a cap covers it. The same reference
        and body again: the first record. `Conflict` (`idempotency_key_reused`) for the same reference with another
        body."""
        ...

    async def list_usage(self, project_id: ProjectId, *, after: UsageId | None, limit: int) -> tuple[UsageRecord, ...]:
        """At most `limit`, newest first."""
        ...
