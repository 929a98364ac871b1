"""What is deleted in its time: tasks by pages, their steps by whole partitions. Several short transactions.

A batch is marked first (`pruned_at`, and a note that its rows are still to go), so that a reader is told so before the
first of them is missing and a kill in between leaves nothing behind. The claim path is never locked: rows are skipped
that somebody holds, and a partition is dropped only if its lock comes within a second.
"""

from datetime import datetime

from cope.adapters.postgres.database import Database, fetch, fetch_one
from cope.adapters.postgres.journal import Note, write_notes
from cope.adapters.postgres.retained import Partition, holds_tasks, keeps_of, partitions, values_of
from cope.adapters.postgres.stored_files import take_turn
from cope.adapters.postgres.taskrows import WIPED
from cope.core.ids import TASK
from cope.core.keeping import WEEK, Keeping, first_id, week_of
from cope.ports.retention import Pruned

_PAGE = 2000
_BATCHES_AT_ONCE = 100
_ORPHANS_EVERY_S = 86_400.0
_NOTE = "prune "

ENDED = "coalesce(b.completed_at, b.cancelled_at, b.expired_at, b.failed_at)"

# NULL is for ever. Named by its own index: batches that still have their tasks.
DUE_BATCH = f"""
b.pruned_at IS NULL AND b.total > 0 AND b.status IN ('completed', 'failed', 'expired', 'cancelled')
  AND {ENDED} + coalesce(p.keep_days * interval '1 day', %(tasks)s::interval) <= now()
"""

IN_DOUBT = (
    """EXISTS (SELECT FROM attempts a WHERE a.batch_id = b.id AND a.state IN ('reserved', 'sent', 'unconfirmed'))"""
)

DUE_LIVE = """
t.batch_id IS NULL AND t.finished_at IS NOT NULL
  AND t.finished_at + coalesce(p.keep_days * interval '1 day', %(live)s::interval) <= now()
  AND NOT EXISTS (SELECT FROM attempts a WHERE a.task_id = t.id AND a.state IN ('reserved', 'sent', 'unconfirmed'))
"""

DUE_DELIVERY = "finished_at IS NOT NULL AND state <> 'pending' AND finished_at <= now() - %(deliveries)s::interval"

_MARK = f"""
WITH due AS (
  SELECT b.id FROM batches b JOIN projects p ON p.id = b.project_id WHERE {DUE_BATCH} AND NOT {IN_DOUBT}
  ORDER BY b.id LIMIT {_BATCHES_AT_ONCE} FOR NO KEY UPDATE OF b SKIP LOCKED
), marked AS (
  UPDATE batches b SET pruned_at = now() FROM due WHERE b.id = due.id RETURNING b.id, b.project_id
), noted AS (
  INSERT INTO upkeep_notes (name) SELECT '{_NOTE}' || id FROM marked ON CONFLICT DO NOTHING
)
SELECT id, project_id FROM marked ORDER BY id
"""  # noqa: S608

# Steps below `own` and from `late` on go with their tasks; those between go with their partition, within a week or two.
_DELETE = """
WITH page AS (%s), gone AS (
  DELETE FROM tasks t USING page WHERE t.id = page.id RETURNING t.id
), answers AS (
  UPDATE attempts a SET answer = NULL FROM gone WHERE a.task_id = gone.id AND a.answer IS NOT NULL
), history AS (
  DELETE FROM steps s USING gone WHERE s.task_id = gone.id AND (s.task_id < %%(own)s OR s.task_id >= %%(late)s)
)
SELECT count(*) AS gone FROM gone
"""

_OF_BATCH = _DELETE % (
    "SELECT id FROM tasks WHERE batch_id = %(batch)s ORDER BY line LIMIT %(page)s FOR UPDATE SKIP LOCKED"
)

_OVER_LIVE = f"""
SELECT t.id FROM tasks t JOIN projects p ON p.id = t.project_id WHERE {DUE_LIVE}
ORDER BY t.finished_at LIMIT %(page)s FOR UPDATE OF t SKIP LOCKED"""  # noqa: S608

_LIVE = _DELETE % _OVER_LIVE

# Those with an answer of this kind wait for their last reader for a moment: an SDK's retry joins for 15 minutes.
_WIPE = f"""
UPDATE tasks SET result = NULL, payload = {WIPED} WHERE id IN (
  SELECT id FROM tasks WHERE batch_id IS NULL AND finished_at IS NOT NULL AND payload LIKE '%%"st":"none"%%'
    AND payload NOT LIKE '%%"m":[],"r":"","st":"none"}}' AND finished_at <= now() - interval '20 minutes'
  LIMIT %(page)s FOR NO KEY UPDATE SKIP LOCKED)
"""  # noqa: S608

_OLD_DELIVERIES = f"""
WITH gone AS (
  DELETE FROM deliveries WHERE id IN (
    SELECT id FROM deliveries WHERE {DUE_DELIVERY} ORDER BY finished_at LIMIT %(page)s FOR UPDATE SKIP LOCKED)
  RETURNING id
)
SELECT count(*) AS gone FROM gone
"""  # noqa: S608

# Events of a day whose partition was not made in time. They go with their day as the partitions do, or the log would
# have a hole where it should have a beginning.
_OLD_EVENTS = """
DELETE FROM event_log WHERE tableoid = 'event_log_rest'::regclass
  AND logged_at < date_trunc('day', now() - %(events)s::interval, 'UTC')
"""

_ORPHANS = """
DELETE FROM {table} WHERE task_id IN (
  SELECT s.task_id FROM {table} s WHERE s.task_id >= %(low)s AND s.task_id < %(high)s
    AND NOT EXISTS (SELECT FROM tasks t WHERE t.id = s.task_id) LIMIT %(page)s)
"""

_REST = Partition("steps", "steps_rest", bytes=0, low=None, high=None, until=None)


async def prune(db: Database, keeping: Keeping, *, limit: int) -> Pruned:
    """One pass."""
    async with db.connection() as conn:
        row = await fetch_one(conn, "SELECT now() AS now")
    assert row is not None
    now: datetime = row["now"]
    values = values_of(keeping) | await _bounds(db, keeping, now) | {"page": min(limit, _PAGE)}
    async with db.transaction() as conn:
        marked = await fetch(conn, _MARK, values)
        pruned = [Note(row["project_id"], "batch.pruned", row["id"], data={"id": row["id"]}) for row in marked]
        await write_notes(conn, pruned)
    batches = await _unfinished(db)
    tasks, more = 0, len(marked) == _BATCHES_AT_ONCE
    for batch_id in batches:
        while tasks < limit and (gone := await _page(db, _OF_BATCH, {**values, "batch": batch_id})):
            tasks += gone
        more = not await _close(db, batch_id) or more
    live = await _pages(db, _LIVE, values, limit=limit)
    wiped = await _rows(db, _WIPE, values)
    deliveries = await _page(db, _OLD_DELIVERIES, values)
    await _rows(db, _OLD_EVENTS, values)
    dropped, held = await _drop(db, keeping, now, limit=limit)
    return Pruned(
        batches=len(marked),
        tasks=tasks,
        live=live,
        deliveries=deliveries,
        wiped=wiped,
        partitions=tuple(dropped),
        held=tuple(held),
        more=more or tasks >= limit or live >= limit or max(wiped, deliveries) == values["page"],
    )


async def _bounds(db: Database, keeping: Keeping, now: datetime) -> dict[str, str]:
    """Below `own` and from `late` on, steps do not wait for their partition: it is the one from before there were
    weeks, or it stays for longer than another week."""
    keep = keeping.steps
    async with db.connection() as conn:
        first = next((p for p in await partitions(conn, "steps") if p.low is None and p.high is not None), None)
    late = "" if keep is None else first_id(TASK, week_of(now - keep) + WEEK)
    return {"own": "" if first is None else str(first.high), "late": late}


async def _unfinished(db: Database) -> list[str]:
    async with db.connection() as conn:
        rows = await fetch(
            conn, "SELECT name FROM upkeep_notes WHERE name LIKE %s ORDER BY at, name LIMIT 1000", [f"{_NOTE}%"]
        )
    return [row["name"].removeprefix(_NOTE) for row in rows]


async def _close(db: Database, batch_id: str) -> bool:
    """Whether its last task is gone; then nothing need be remembered, nor in which order its lines ended."""
    async with db.transaction() as conn:
        closed = await conn.execute(
            "DELETE FROM upkeep_notes WHERE name = %s AND NOT EXISTS (SELECT FROM tasks WHERE batch_id = %s)",
            [f"{_NOTE}{batch_id}", batch_id],
        )
        if closed.rowcount == 1:
            await conn.execute("DELETE FROM batch_ends WHERE batch_id = %s", [batch_id])
    return closed.rowcount == 1


async def _page(db: Database, statement: str, values: dict[str, object]) -> int:
    async with db.transaction() as conn:
        row = await fetch_one(conn, statement, values)
    return 0 if row is None else int(row["gone"])


async def _pages(db: Database, statement: str, values: dict[str, object], *, limit: int) -> int:
    total = 0
    while total < limit and (gone := await _page(db, statement, values)):
        total += gone
    return total


async def _rows(db: Database, statement: str, values: dict[str, object]) -> int:
    async with db.transaction() as conn:
        return (await conn.execute(statement, values)).rowcount


async def _drop(db: Database, keeping: Keeping, now: datetime, *, limit: int) -> tuple[list[str], list[str]]:
    """The names of partitions that were dropped, and of those that are over their time and held."""
    dropped: list[str] = []
    held: list[str] = []
    for table, keep in keeps_of(keeping).items():
        async with db.connection() as conn:
            over = [part for part in await partitions(conn, table) if part.over(keep, now)]
        for part in over:
            async with db.transaction() as conn:
                if table == "steps" and await holds_tasks(conn, part):
                    held.append(part.name)
                    continue
                row = await fetch_one(conn, "SELECT drop_partition(%s, %s) AS gone", [table, part.name])
            if row is not None and row["gone"]:
                dropped.append(part.name)
        late = [part for part in over if part.name in held and part.over(None if keep is None else keep + WEEK, now)]
        for part in [*late, *([_REST] if table == "steps" else [])]:
            await _drop_orphans(db, part, limit=limit)
    return dropped, held


async def _drop_orphans(db: Database, part: Partition, *, limit: int) -> None:
    """A partition that is held for long, or is never dropped, keeps no steps of tasks that are gone. Once a day."""
    async with db.transaction() as conn:
        if not await take_turn(conn, f"orphans {part.name}", every_s=_ORPHANS_EVERY_S):
            return
    values: dict[str, object] = {"low": part.low or "", "high": part.high or "~", "page": _PAGE}
    orphans = _ORPHANS.format(table=_REST.name if part is _REST else part.table)
    total = 0
    while total < limit and (gone := await _rows(db, orphans, values)):
        total += gone
