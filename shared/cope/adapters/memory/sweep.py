"""The sweep over the memory store: what time alone brings about."""

from collections import Counter

from cope.adapters.memory import money
from cope.adapters.memory.alerts import tell_alerts, tell_budget_holds
from cope.adapters.memory.endings import close_batch, end_unexecuted
from cope.adapters.memory.journal import note, sequence
from cope.adapters.memory.reading import sample
from cope.adapters.memory.standstill import end_hold
from cope.adapters.memory.tables import BudgetRow, Tables, TaskRow
from cope.adapters.memory.work import WorkMixin
from cope.core.lifecycle import AttemptState, BatchStatus, HoldReason, TaskState
from cope.core.parse_watch import ParseWatch
from cope.ports.store import SweepReport


class SweepMixin(WorkMixin):
    """Leases, holds and windows that have run out."""

    async def sweep(self, *, lease_s: float, quota_is_back: bool = False) -> SweepReport:
        """Safe to run twice: everything it does, it does once. `lease_s` is not needed here: attempts never outlive
        their lease in one process."""
        reclaimed = _reclaim(self._db)
        released, unconfirmed = _end_orphans(self._db)
        expired = _expire(self._db)
        resumed = _resume(self._db, quota_is_back=quota_is_back)
        tell_budget_holds(self._db)
        alerted = tell_alerts(self._db)
        sample(self._db)
        return SweepReport(
            reclaimed=reclaimed,
            released=released,
            unconfirmed=unconfirmed,
            resumed=resumed,
            expired=expired,
            sequenced=sequence(self._db),
            repaired=0,
            due=await self.due(),
            alerted=alerted,
        )

    async def sequence_events(self) -> int:
        """New events get their offsets."""
        return sequence(self._db)

    async def try_lead(self) -> bool:
        """One process has no rival."""
        return True


def _reclaim(db: Tables) -> int:
    reclaimed = 0
    for row in list(db.tasks.values()):
        if row.state is not TaskState.LEASED or row.lease_until is None or row.lease_until > db.now():
            continue
        reclaimed += 1
        row.crashes += 1
        row.state, row.lease_until, row.not_before = TaskState.READY, None, db.now()
        # The fence rises now, not at the next claim: the old worker's commit must find that it came too late.
        row.fence += 1
        note(db, row.project_id, "task.reclaimed", batch_id=row.batch_id, task_id=row.id, crashes=row.crashes)
        if row.ending is not None:
            end_unexecuted(db, row, row.ending)
    return reclaimed


def _end_orphans(db: Tables) -> tuple[int, int]:
    """Attempts whose lease is over, however it ended: how many were (released, left unconfirmed)."""
    released = unconfirmed = 0
    for attempt in db.attempts.values():
        row = db.tasks.get(attempt.task_id)
        if row is None or (row.state in {TaskState.LEASED, TaskState.SUBMITTED} and row.fence == attempt.fence):
            continue
        if attempt.state is AttemptState.RESERVED:
            money.release(db, attempt)
            released += 1
        elif attempt.state is AttemptState.SENT:
            money.leave_unconfirmed(db, attempt)
            unconfirmed += 1
    return released, unconfirmed


def _expire(db: Tables) -> int:
    expired = 0
    for owner in list(db.batches.values()):
        batch = owner.batch
        over = batch.expires_at is not None and batch.expires_at <= db.now()
        if over and batch.status is BatchStatus.IN_PROGRESS and owner.ending is None and batch.held_since is None:
            close_batch(db, owner, TaskState.EXPIRED)
            expired += 1
    return expired


def _resume(db: Tables, *, quota_is_back: bool) -> int:
    resumed = 0
    room = _Room(db)
    for row in sorted((row for row in db.tasks.values() if row.state is TaskState.HELD), key=lambda row: row.order):
        if not db.workable(row) or not _may_resume(db, row, room, quota_is_back=quota_is_back):
            continue
        end_hold(db, row, TaskState.READY)
        row.not_before = db.now()
        note(db, row.project_id, "task.resumed", batch_id=row.batch_id, task_id=row.id)
        resumed += 1
    return resumed


class _Room:
    """What each budget leaves, less what tasks resumed by earlier sweeps have still to ask for."""

    def __init__(self, db: Tables) -> None:
        self._db = db
        self._taken: Counter[tuple[str, str, str]] = Counter()
        self._full: set[tuple[str, str, str]] = set()
        self._busy = {_name(budget) for budget in db.budgets.values() if budget.reserved > 0}
        for row in db.tasks.values():
            if row.needed is not None and row.state in {TaskState.READY, TaskState.LEASED} and db.workable(row):
                for budget in self._budgets(row):
                    self._taken[_name(budget)] += row.needed
                    self._busy.add(_name(budget))

    def take(self, row: TaskRow) -> bool:
        """Whether what the task needs fits. A budget that has refused one refuses all behind it as long as money is
        coming back to it: nobody overtakes, else small calls would keep a large one waiting for ever."""
        needed, budgets = row.needed or 0, self._budgets(row)
        if any(_name(budget) in self._full for budget in budgets):
            return False
        for budget in budgets:
            if budget.left is not None and needed > budget.left - self._taken[_name(budget)]:
                if _name(budget) in self._busy:
                    self._full.add(_name(budget))
                return False
        for budget in budgets:
            self._taken[_name(budget)] += needed
            self._busy.add(_name(budget))
        return True

    def _budgets(self, row: TaskRow) -> list[BudgetRow]:
        return self._db.budgets_of(row, self._db.month(row.project_id))


def _name(budget: BudgetRow) -> tuple[str, str, str]:
    return budget.project_id, budget.scope, budget.month


def _may_resume(db: Tables, row: TaskRow, room: _Room, *, quota_is_back: bool) -> bool:
    """Takes what the task needs out of `room`."""
    match row.hold:
        case HoldReason.BUDGET:
            return room.take(row)
        case HoldReason.PROVIDER_QUOTA:
            return quota_is_back or row.not_before <= db.now()
        case HoldReason.PAUSED:
            return True
        case HoldReason.UNPARSABLE:
            return row.batch_id is not None and db.batches[row.batch_id].watch is not ParseWatch.PAUSED
        case None:
            return False
