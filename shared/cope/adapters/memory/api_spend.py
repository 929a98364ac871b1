"""Alerts, and spend measured elsewhere, over the memory store."""

from dataclasses import replace

from cope.adapters.memory.api_batches import ApiBatchesMixin
from cope.adapters.memory.api_projects import page_of
from cope.adapters.memory.journal import note
from cope.adapters.memory.ledger import write_external
from cope.core.alerts import MOST_ALERTS, AlertKind, SpendAlert
from cope.core.budget import scopes_of
from cope.core.errors import Conflict, NotFound
from cope.core.ids import AlertId, ProjectId, UsageId
from cope.core.records import UsageRecord
from cope.ports.spend import NewUsage


class ApiSpendMixin(ApiBatchesMixin):
    """As `SpendStore` describes it."""

    async def create_alert(self, alert: SpendAlert) -> SpendAlert:
        """The alert as stored."""
        if len(await self.list_alerts(alert.project_id)) >= MOST_ALERTS:
            raise Conflict(
                f"A project has at most {MOST_ALERTS} spend alerts: delete one first.", code="too_many_alerts"
            )
        self._db.alerts[alert.id] = alert
        return alert

    async def list_alerts(self, project_id: ProjectId) -> tuple[SpendAlert, ...]:
        """Oldest first."""
        mine = (alert for alert in self._db.alerts.values() if alert.project_id == project_id)
        return tuple(sorted(mine, key=lambda alert: alert.id))

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
        """Armed again where what it watches has changed."""
        alert = self._db.alerts.get(alert_id)
        if alert is None or alert.project_id != project_id:
            return None
        same = (alert.kind, alert.threshold) == (kind, threshold)
        self._db.alerts[alert_id] = replace(
            alert,
            kind=kind,
            threshold=threshold,
            recipients=recipients,
            subject_prefix=subject_prefix,
            fired_month=alert.fired_month if same else None,
        )
        return self._db.alerts[alert_id]

    async def delete_alert(self, project_id: ProjectId, alert_id: AlertId) -> bool:
        """False where the project has no such alert."""
        alert = self._db.alerts.get(alert_id)
        if alert is None or alert.project_id != project_id:
            return False
        del self._db.alerts[alert_id]
        return True

    async def record_usage(self, new: NewUsage) -> UsageRecord:
        """Counted whatever the caps say."""
        if new.project_id not in self._db.projects:
            raise NotFound(f"There is no project {new.project_id!r}.")
        for known, body_hash in self._db.usage.values():
            if new.reference is not None and (known.project_id, known.reference) == (new.project_id, new.reference):
                if body_hash != new.body_hash:
                    raise Conflict(
                        f"Spend of the id {new.reference!r} was reported before, with other values.",
                        code="idempotency_key_reused",
                    )
                return known
        month = self._db.month(new.project_id)
        record = UsageRecord(
            id=new.id,
            project_id=new.project_id,
            key_id=new.key_id,
            month=month,
            amount=new.amount,
            reported_at=self._db.now(),
            occurred_at=new.occurred_at,
            model=new.model,
            description=new.description,
            reference=new.reference,
        )
        self._db.usage[new.id] = record, new.body_hash
        for scope, at in scopes_of(None, new.key_id, month):
            self._db.budget(new.project_id, at, scope).spent += new.amount
        self._db.bookings[new.project_id].append((self._db.now(), new.amount))
        write_external(self._db, new.project_id, new.id, month, new.amount, key_id=new.key_id)
        note(
            self._db,
            new.project_id,
            "budget.usage_reported",
            id=new.id,
            amount_nanousd=new.amount,
            month=month,
        )
        return record

    async def list_usage(self, project_id: ProjectId, *, after: UsageId | None, limit: int) -> tuple[UsageRecord, ...]:
        """Newest first."""
        mine = (record for record, _ in self._db.usage.values() if record.project_id == project_id)
        return page_of(mine, after=after, limit=limit, ascending=False, id_of=lambda record: record.id).items
