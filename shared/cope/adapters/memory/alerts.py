"""Spend alerts and the beginnings and ends of waiting for money, as the sweep tells them."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta

from cope.adapters.memory.journal import publish
from cope.adapters.memory.tables import BatchRow, Tables
from cope.core.alerts import Standing, alert_data, fires, rearms
from cope.core.budget import PROJECT_SCOPE, month_of
from cope.core.ids import BatchId, ProjectId
from cope.core.lifecycle import BatchStatus, HoldReason, TaskState
from cope.core.money import NanoUSD
from cope.core.projection import OpenBatch, Pace, project
from cope.core.records import Budget


def tell_alerts(db: Tables) -> int:
    """Fire what is due; how many did."""
    fired = 0
    for alert in sorted(db.alerts.values(), key=lambda one: one.id):
        month = month_of(db.now(), db.project(alert.project_id).time_zone)
        if (alert.project_id, PROJECT_SCOPE, month) not in db.budgets:
            continue
        standing = _standing(db, alert.project_id)
        if not fires(alert, standing):
            continue
        limit = alert.limit(standing.budget.cap)
        db.alerts[alert.id] = replace(alert, fired_month=month, fired_at=db.now(), fired_threshold=limit)
        publish(db, alert.project_id, "budget.alert", data=alert_data(alert, standing, db.now()))
        fired += 1
    return fired


def rearm(db: Tables, project_id: ProjectId, before: NanoUSD | None, budget: Budget) -> None:
    """After a change of the project's cap: alerts whose sum now lies ahead may fire again."""
    for alert in list(db.alerts.values()):
        if alert.project_id == project_id and rearms(alert, before, budget):
            db.alerts[alert.id] = replace(alert, fired_month=None)


def tell_budget_holds(db: Tables) -> None:
    """`budget.held` and `budget.resumed`, once per period for each batch and for the project as a whole."""
    waiting = {
        (row.batch.project_id, str(row.batch.id)): row.batch.id
        for row in db.batches.values()
        if row.batch.status is BatchStatus.IN_PROGRESS and row.batch.held.get(HoldReason.BUDGET)
    }
    projects = Counter(
        row.project_id for row in db.tasks.values() if row.state is TaskState.HELD and row.hold is HoldReason.BUDGET
    )
    now_held: dict[tuple[ProjectId, str], BatchId | None] = {**waiting, **{(p, PROJECT_SCOPE): None for p in projects}}
    for project_id, scope in sorted(db.told_holds.keys() - now_held.keys()):
        batch_id, since = db.told_holds.pop((project_id, scope))
        data: dict[str, str | int | None] = {"scope": scope, "since": int(since.timestamp())}
        publish(db, project_id, "budget.resumed", batch_id=batch_id, data=data)
    for project_id, scope in sorted(now_held.keys() - db.told_holds.keys()):
        batch_id = now_held[project_id, scope]
        db.told_holds[project_id, scope] = batch_id, db.now()
        publish(db, project_id, "budget.held", batch_id=batch_id, data={"scope": scope})


def _standing(db: Tables, project_id: ProjectId) -> Standing:
    budget = db.budget(project_id).record()
    needs = [
        row.needed or 0
        for row in db.tasks.values()
        if row.project_id == project_id and row.state is TaskState.HELD and row.hold is HoldReason.BUDGET
    ]
    cap = budget.cap
    return Standing(
        budget,
        cap is not None and any(cap - budget.spent - budget.unconfirmed < need <= cap for need in needs),
        None if cap is None else project(_pace(db, budget), db.now(), db.project(project_id).time_zone),
    )


def _pace(db: Tables, budget: Budget) -> Pace:
    booked = db.bookings[budget.project_id]
    since = db.now() - timedelta(days=1)
    return Pace(
        spent=NanoUSD(budget.spent + budget.overrun),
        reserved=budget.reserved,
        unconfirmed=budget.unconfirmed,
        last_day=NanoUSD(max(0, sum(amount for at, amount in booked if at > since))),
        first_at=booked[0][0] if booked else None,
        batches=tuple(
            _open_batch(db, row)
            for row in db.batches.values()
            if row.batch.project_id == budget.project_id and row.batch.status is BatchStatus.IN_PROGRESS
        ),
    )


def _open_batch(db: Tables, row: BatchRow) -> OpenBatch:
    batch = row.batch
    left = db.budget(batch.project_id, scope=batch.id).left
    return OpenBatch(batch.total, batch.done + batch.failed, batch.spent, None if left is None else NanoUSD(left))
