"""Webhook deliveries over the memory store: claimed by lane, ended by their outcomes."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from cope.adapters.memory.journal import publish, tell_delivery
from cope.adapters.memory.tables import DeliveryRow, Tables
from cope.core.deliveries import DEFAULT_CONCURRENCY, KEPT_ATTEMPTS, DeliveryAttempt, Disabled, EndpointTrouble
from cope.core.ids import EndpointId
from cope.core.records import Delivery
from cope.core.webhook_lanes import LaneRoom, no_classes
from cope.core.webhooks import to_be_disabled
from cope.ports.store import WebhookOutcome


class WebhookQueueMixin:
    """`WorkerStore`'s part about deliveries."""

    _db: Tables

    async def claim_deliveries(
        self,
        *,
        limit: int,
        lease_s: float,
        room: LaneRoom | None = None,
        ended: Sequence[WebhookOutcome] = (),
    ) -> list[Delivery]:
        """Each lane's longest due first, lanes in turns; `attempt` counts from 1."""
        await self.finish_deliveries(ended)
        room, now = room or no_classes(limit), self._db.now()
        due: dict[str, list[DeliveryRow]] = defaultdict(list)
        for row in sorted(self._db.deliveries.values(), key=lambda row: (row.due_at, row.id)):
            if not row.over and row.due_at <= now:
                due[row.lane].append(row)
        left, turns = dict(room.limits), []
        crowd = Counter(room.kind(lane, troubled=lane in self._db.troubles) for lane in due)
        for lane, rows in due.items():
            if _closed(self._db, rows[0]):
                _give_up(self._db, rows)
            elif not _blocked(self._db, lane):
                kind = room.kind(lane, troubled=lane in self._db.troubles)
                free = room.most(kind, _concurrency(self._db, rows[0]), beside=crowd[kind]) - _busy(self._db, lane)
                turns += [(turn, row.due_at, row.id, kind, row) for turn, row in enumerate(rows[: max(0, free)])]
        taken: list[DeliveryRow] = []
        for *_, kind, row in sorted(turns, key=lambda one: one[:3]):
            if len(taken) < limit and left.get(kind, 0) > 0:
                left[kind] -= 1
                taken.append(row)
        taken.sort(key=lambda row: (row.due_at, row.id))
        return [self._handed_over(row, lease_s) for row in taken]

    async def give_back_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        """Those whose lease was lost are passed over."""
        for one in deliveries:
            row = self._db.deliveries.get(one.id)
            if row is not None and not row.over and row.attempts == one.attempt and row.sending_until is not None:
                row.attempts, row.due_at, row.sending_until = row.attempts - 1, self._db.now(), None

    async def finish_deliveries(self, outcomes: Sequence[WebhookOutcome]) -> None:
        """Unknown and finished deliveries are passed over, and failures of attempts that lost their lease."""
        db = self._db
        lanes: dict[str, list[tuple[DeliveryRow, WebhookOutcome]]] = defaultdict(list)
        for outcome in outcomes:
            row = db.deliveries.get(outcome.delivery_id)
            late = row is not None and outcome.attempt not in {None, row.attempts} and not outcome.delivered
            if row is None or row.over or late:
                continue
            _record(db, row, outcome)
            lanes[row.lane].append((row, outcome))
        for lane, ended in lanes.items():
            _judge(db, lane, ended)

    def _handed_over(self, row: DeliveryRow, lease_s: float) -> Delivery:
        db = self._db
        endpoint = None if row.endpoint_id is None else db.endpoints.get(row.endpoint_id)
        row.attempts += 1
        row.due_at = row.sending_until = db.later(lease_s)
        row.url = row.url if endpoint is None else endpoint.url
        old = () if endpoint is None else db.old_secrets.get(endpoint.id, ())
        return Delivery(
            id=row.id,
            message_id=row.event_id,
            url=row.url,
            body=row.body,
            attempt=row.attempts,
            secret=row.secret if endpoint is None else endpoint.secret,
            endpoint_id=row.endpoint_id,
            old_secrets=tuple(secret for until, secret in sorted(old, reverse=True) if until > db.now()),
            lane=row.lane,
            concurrency=_concurrency(db, row),
        )


def under_way(row: DeliveryRow, now: datetime) -> bool:
    """Whether somebody is sending it."""
    return not row.over and row.sending_until is not None and row.sending_until > now


def _closed(db: Tables, row: DeliveryRow) -> bool:
    if row.endpoint_id is None:
        return False
    endpoint = db.endpoints.get(row.endpoint_id)
    return endpoint is None or endpoint.disabled_at is not None


def _give_up(db: Tables, rows: Sequence[DeliveryRow]) -> None:
    for row in rows:
        row.over, row.sending_until = True, None
        row.last_error = row.last_error or "not sent: the endpoint is disabled or deleted"
        tell_delivery(db, row)


def _blocked(db: Tables, lane: str) -> bool:
    trouble = db.troubles.get(lane)
    return trouble is not None and trouble.blocked_until is not None and trouble.blocked_until > db.now()


def _concurrency(db: Tables, row: DeliveryRow) -> int:
    return DEFAULT_CONCURRENCY if row.endpoint_id is None else db.endpoints[row.endpoint_id].concurrency


def _busy(db: Tables, lane: str) -> int:
    now = db.now()
    return sum(row.lane == lane and under_way(row, now) for row in db.deliveries.values())


def _record(db: Tables, row: DeliveryRow, outcome: WebhookOutcome) -> None:
    row.last_status, row.last_error, row.excerpt = outcome.status, outcome.error, outcome.excerpt
    row.sending_until = None
    row.delivered = outcome.delivered
    row.over = outcome.delivered or outcome.retry_in_s is None
    if outcome.retry_in_s is not None:
        row.due_at = db.later(outcome.retry_in_s)
    tried = DeliveryAttempt(row.attempts, db.now(), outcome.took_ms, outcome.status, outcome.error, outcome.excerpt)
    row.log = (*row.log, tried)[-KEPT_ATTEMPTS:]
    tell_delivery(db, row)


def _judge(db: Tables, lane: str, ended: Sequence[tuple[DeliveryRow, WebhookOutcome]]) -> None:
    """A success ends a lane's trouble; failures begin or go on with it, and may disable an endpoint."""
    before, now = db.troubles.get(lane), db.now()
    outcomes = [outcome for _, outcome in ended]
    endpoint_id = ended[-1][0].endpoint_id
    if any(outcome.disable_endpoint for outcome in outcomes):
        _disable(db, endpoint_id, Disabled.GONE)
    if any(outcome.delivered for outcome in outcomes):
        db.troubles.pop(lane, None)
        return
    blocks = [db.later(outcome.block_s) for outcome in outcomes if outcome.block_s is not None]
    if before is not None and before.blocked_until is not None:
        blocks.append(before.blocked_until)
    db.troubles[lane] = EndpointTrouble(
        failures=len(outcomes) + (0 if before is None else before.failures),
        failing_since=now if before is None else before.failing_since,
        failed_at=now,
        blocked_until=max(blocks, default=None),
        status=outcomes[-1].status,
        error=outcomes[-1].error,
    )
    if before is not None and to_be_disabled(failing_since=before.failing_since, failed_at=before.failed_at, now=now):
        _disable(db, endpoint_id, Disabled.FAILING)


def _disable(db: Tables, endpoint_id: EndpointId | None, reason: Disabled) -> None:
    endpoint = None if endpoint_id is None else db.endpoints.get(endpoint_id)
    if endpoint is None or endpoint.disabled_at is not None:
        return
    db.endpoints[endpoint.id] = replace(endpoint, disabled_at=db.now(), disabled_reason=reason.value)
    data = {"id": endpoint.id, "reason": reason.value}
    publish(db, endpoint.project_id, "webhook_endpoint.disabled", data=data)


def lanes_in_trouble(db: Tables) -> Counter[str]:
    """How many lanes fail, and how many of them are left alone for now."""
    blocked = sum(_blocked(db, lane) for lane in db.troubles)
    return Counter(failing=len(db.troubles), blocked=blocked)
