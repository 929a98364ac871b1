"""The sweep: what time alone brings about. Several short transactions; each may run anywhere, twice at once."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from cope.adapters.postgres.alerts import AlertWatch
from cope.adapters.postgres.budget_holds import tell_budget_holds
from cope.adapters.postgres.claim import Policies, due
from cope.adapters.postgres.counters import BatchDeltas
from cope.adapters.postgres.database import Connection, Database, Row, fetch
from cope.adapters.postgres.ending import EndWatch, end_batch_tasks
from cope.adapters.postgres.holds import resume_holds
from cope.adapters.postgres.journal import Note, write_notes
from cope.adapters.postgres.money import Books, held_attempt
from cope.adapters.postgres.pace import PaceWatch
from cope.adapters.postgres.recount import recount_one
from cope.adapters.postgres.responses import tell_of_ended
from cope.adapters.postgres.results import number_one
from cope.adapters.postgres.sequencer import sequence_events
from cope.adapters.postgres.settlement import close_books
from cope.adapters.postgres.steps import prune_ended
from cope.adapters.postgres.taskrows import TaskRef, count, never_executed, notes_of, write_tasks
from cope.core.budget import AUDIT_SCOPE
from cope.core.lifecycle import AttemptState, TaskState
from cope.ports.store import SweepReport

_AT_ONCE = 1000
_PAGES_PER_BATCH, _PAGES_OF_HOLDS = 5, 200
_LIMIT_S = 60.0

_Act: TypeAlias = Callable[[Connection], Awaitable[int]]


async def sweep(
    db: Database,
    policies: Policies,
    alerts: AlertWatch,
    pace: PaceWatch,
    endings: EndWatch,
    *,
    quota_is_back: bool = False,
) -> SweepReport:
    """Once over everything; what it did."""
    reclaimed = await _repeat(db, lambda conn: _reclaim(conn, policies))
    released = unconfirmed = 0
    async with db.transaction(limit_s=_LIMIT_S) as conn:
        released, unconfirmed = await _end_orphans(conn)
    expired = await _end_batches(db, endings)
    resumed = 0
    for _ in range(_PAGES_OF_HOLDS):  # word of a quota comes once, so it lets everybody go; other holds have time
        async with db.transaction(limit_s=_LIMIT_S) as conn:
            page = await resume_holds(conn, quota_is_back=quota_is_back)
        resumed += page
        if not quota_is_back or not page:
            break
    async with db.transaction(limit_s=_LIMIT_S) as conn:
        await tell_budget_holds(conn)
    alerted = await alerts.look(db)
    async with db.transaction(limit_s=_LIMIT_S) as conn:
        repaired = await recount_one(conn)
    async with db.transaction(limit_s=_LIMIT_S) as conn:
        await number_one(conn)
    await pace.look(db)
    sequenced = 0
    async with db.transaction(limit_s=_LIMIT_S) as conn:
        sequenced = await sequence_events(conn)
    async with db.connection() as conn:
        queues = await due(conn)
    return SweepReport(
        reclaimed=reclaimed,
        released=released,
        unconfirmed=unconfirmed,
        resumed=resumed,
        expired=expired,
        sequenced=sequenced,
        repaired=repaired,
        due=queues,
        alerted=alerted,
    )


async def _repeat(db: Database, act: _Act) -> int:
    """Until a full page is not filled any more."""
    total = 0
    while True:
        async with db.transaction(limit_s=_LIMIT_S) as conn:
            done = await act(conn)
        total += done
        if done < _AT_ONCE:
            return total


async def _reclaim(conn: Connection, policies: Policies) -> int:
    """Leases that ran out: the task is ready again, or ends if it was to end. The fence rises now, not at the next
    claim: the old worker's commit must find that it came too late."""
    rows = await fetch(
        conn,
        """
        UPDATE tasks t SET state = 'ready', crashes = t.crashes + 1, fence = t.fence + 1, lease_until = NULL,
          lease_owner = NULL, not_before = now()
        FROM (SELECT id FROM tasks WHERE state = 'leased' AND lease_until <= now()
              ORDER BY lease_until LIMIT %s FOR NO KEY UPDATE SKIP LOCKED) late
        WHERE t.id = late.id
        RETURNING t.id, t.project_id, t.batch_id, t.custom_id, t.line, t.queue, t.crashes, t.ending, t.key_id
        """,
        [_AT_ONCE],
    )
    if not rows:
        return 0
    await write_notes(conn, [_reclaimed(row) for row in rows if row["key_id"] != AUDIT_SCOPE])
    writes = [
        never_executed(
            TaskRef(r["id"], r["project_id"], r["batch_id"], r["custom_id"], r["line"], r["queue"]),
            TaskState(r["ending"]),
        )
        for r in rows
        if r["ending"] is not None
    ]
    if writes:
        await write_tasks(conn, writes)
        await prune_ended(conn, policies, [write.task.id for write in writes])
        await write_notes(conn, notes_of(writes))
        await tell_of_ended(conn, writes)
        deltas = BatchDeltas()
        count(writes, deltas)
        await close_books(conn, Books(), deltas)
    return len(rows)


def _reclaimed(row: Row) -> Note:
    return Note(row["project_id"], "task.reclaimed", row["batch_id"], row["id"], {"crashes": row["crashes"]})


async def _end_orphans(conn: Connection) -> tuple[int, int]:
    """Attempts whose lease is over, however it ended: how many were (released, left unconfirmed)."""
    rows = await fetch(
        conn,
        """
        SELECT a.* FROM attempts a JOIN tasks t ON t.id = a.task_id
        WHERE a.state IN ('reserved', 'sent') AND (t.state NOT IN ('leased', 'submitted') OR t.fence <> a.fence)
        ORDER BY a.id LIMIT %s FOR NO KEY UPDATE OF a SKIP LOCKED
        """,
        [10 * _AT_ONCE],
    )
    attempts = [held_attempt(row) for row in rows]
    books = Books(attempts)
    released = 0
    for attempt in attempts:
        if attempt.state is AttemptState.RESERVED:
            books.release(attempt.id)
            released += 1
        else:
            books.doubt(attempt.id)
    await close_books(conn, books, BatchDeltas())
    return released, len(attempts) - released


async def _end_batches(db: Database, endings: EndWatch) -> int:
    """Windows that ran out, and the tasks of batches that are to end. A window stands still while the batch does."""
    async with db.transaction(limit_s=_LIMIT_S) as conn:
        expired = await fetch(
            conn,
            """
            UPDATE batches SET ending = 'expired', open = false WHERE id IN (
              SELECT id FROM batches
              WHERE status = 'in_progress' AND expires_at <= now() AND held_since IS NULL AND ending IS NULL
              ORDER BY id LIMIT %s FOR NO KEY UPDATE SKIP LOCKED)
            RETURNING id, project_id, done + failed >= total AS idle
            """,
            [_AT_ONCE],
        )
        deltas = BatchDeltas()
        deltas.touch((row["id"], row["project_id"]) for row in expired if row["idle"])  # was open, with nothing to do
        await deltas.write(conn)
    async with db.connection() as conn:
        ending = await fetch(
            conn,
            """
            SELECT id, ending, total FROM batches
            WHERE status IN ('in_progress', 'cancelling') AND ending IS NOT NULL AND done + failed < total ORDER BY id
            """,
        )
    for batch, line in endings.due(ending):
        endings.came_to(batch, await _end_some(db, batch, line))
    return len(expired)


async def _end_some(db: Database, batch: Row, line: int) -> int | None:
    """Some pages from behind `line` on, so that a large batch does not hold up the rest of the sweep."""
    for _ in range(_PAGES_PER_BATCH):
        async with db.transaction(limit_s=_LIMIT_S) as conn:
            more = await end_batch_tasks(conn, batch["id"], TaskState(batch["ending"]), after=line)
        if more is None:
            return None
        line = more
    return line
