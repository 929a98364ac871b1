"""Held time does not count: while a batch stands still, its completion window moves with the clock.

A batch stands still while any of its tasks is held, it is paused or its project is. `held_since` says since when; when
it goes on, `expires_at` moves by that long.
"""

from dataclasses import replace

from cope.adapters.memory.tables import BatchRow, Tables, TaskRow
from cope.core.ids import ProjectId
from cope.core.lifecycle import BatchStatus, HoldReason, TaskState
from cope.core.money import NanoUSD


def refresh(db: Tables, row: BatchRow) -> None:
    """Begin or end the standstill of one batch, as its holds and its project now say."""
    batch = row.batch
    held = any(batch.held.values()) or batch.paused or not db.working(batch.project_id)
    still = held and batch.status is BatchStatus.IN_PROGRESS and row.ending is None
    if still and batch.held_since is None:
        row.batch = replace(batch, held_since=db.now())
    elif not still and batch.held_since is not None:
        moved = None if batch.expires_at is None else batch.expires_at + (db.now() - batch.held_since)
        row.batch = replace(batch, held_since=None, expires_at=moved)


def refresh_project(db: Tables, project_id: ProjectId) -> None:
    """`refresh` for every batch of a project that was paused or goes on."""
    for row in db.batches.values():
        if row.batch.project_id == project_id:
            refresh(db, row)


def begin_hold(db: Tables, row: TaskRow, reason: HoldReason, needed: NanoUSD | None) -> None:
    """The task waits though a worker is free."""
    row.state = TaskState.HELD
    row.hold = reason
    row.needed = needed
    _count(db, row, reason, +1)


def end_hold(db: Tables, row: TaskRow, state: TaskState) -> None:
    """The task leaves its hold, if it is in one, for `state`. `needed` stays: it is what the task is about to ask."""
    reason, row.state, row.hold = row.hold, state, None
    if reason is not None:
        _count(db, row, reason, -1)


def _count(db: Tables, row: TaskRow, reason: HoldReason, change: int) -> None:
    if row.batch_id is None:
        return
    owner = db.batches[row.batch_id]
    held = {**owner.batch.held, reason: owner.batch.held.get(reason, 0) + change}
    if row.needed is not None:
        owner.needs[row.needed] += change
    owner.batch = replace(
        owner.batch,
        held={name: number for name, number in held.items() if number},
        needed=min((need for need, number in owner.needs.items() if number), default=None),
    )
    refresh(db, owner)
