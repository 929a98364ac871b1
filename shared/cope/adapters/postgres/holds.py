"""Holds that may end: only as many tasks as the headroom covers, in their order, and nobody overtakes.

A task waiting for money must fit under its batch's cap, its key's and the project's. Where it does not fit, everybody
behind it in that scope waits too, as long as money is still coming back there: else small calls would keep a large one
waiting for ever. Where nothing is reserved any more, no waiting helps it, and those behind may have what is left.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter

from cope.adapters.postgres.budgets import BudgetKey, budget_keys
from cope.adapters.postgres.counters import BatchDeltas
from cope.adapters.postgres.database import Connection, Row, fetch
from cope.adapters.postgres.journal import Note, write_notes
from cope.core.budget import AUDIT_SCOPE, PROJECT_SCOPE, WHOLE_LIFE
from cope.core.lifecycle import HoldReason

_AT_ONCE, _FEWEST = 5000, 50

_PROJECTS = """
SELECT p.id, p.cap, to_char(now() AT TIME ZONE p.time_zone, 'YYYY-MM') AS month FROM projects p
WHERE NOT p.paused AND p.archived_at IS NULL
  AND EXISTS (SELECT FROM tasks t WHERE t.state = 'held' AND t.hold = 'budget' AND t.project_id = p.id)
"""

# Rows that do not exist yet have spent nothing: their whole cap is left.
_LEFT = f"""
SELECT s.scope, s.month, coalesce(b.reserved, 0) > 0 AS busy,
  CASE WHEN b.scope IS NULL THEN s.cap ELSE b.cap - b.spent - b.reserved - b.unconfirmed END AS left
FROM (
  SELECT '{PROJECT_SCOPE}' AS scope, %(month)s AS month, %(cap)s::bigint AS cap
  UNION ALL SELECT id, %(month)s, cap FROM api_keys WHERE project_id = %(project)s
  UNION ALL SELECT id, '{WHOLE_LIFE}', cap FROM batches WHERE project_id = %(project)s AND status = 'in_progress'
    AND held_budget > 0 AND NOT paused
) s LEFT JOIN budgets b ON b.project_id = %(project)s AND b.scope = s.scope AND b.month = s.month
"""  # noqa: S608

# Needs of tasks resumed earlier that have not reserved yet count against the headroom, else each sweep would resume
# as many again. Those of a batch that was paused meanwhile will not ask for long: they bind nobody's money.
_PROMISED = """
SELECT t.batch_id, t.key_id, sum(t.needed)::bigint AS needed FROM tasks t
WHERE t.project_id = %s AND t.needed IS NOT NULL AND t.state IN ('ready', 'leased')
  AND NOT coalesce((SELECT b.paused FROM batches b WHERE b.id = t.batch_id), false)
GROUP BY t.batch_id, t.key_id
"""

_WAITING = """
SELECT id, batch_id, key_id, coalesce(needed, 0) AS needed, priority, turn FROM tasks
WHERE state = 'held' AND hold = 'budget' AND project_id = %(project)s AND batch_id IS NOT DISTINCT FROM %(batch)s
  AND (%(spare)s::bigint IS NULL OR coalesce(needed, 0) <= %(spare)s)
ORDER BY priority, turn, id LIMIT %(limit)s
"""

# What is held by hand is left out here already: else it could fill the page, and nobody else's hold would ever end.
_GOES_ON = """
  t.project_id <> ALL (ARRAY(SELECT id FROM projects WHERE paused OR archived_at IS NOT NULL))
  AND (t.batch_id IS NULL OR t.batch_id <> ALL (ARRAY(SELECT id FROM batches WHERE paused AND status = 'in_progress')))
"""
_QUOTA_IS_BACK = (
    f"SELECT t.id FROM tasks t WHERE t.state = 'held' AND t.hold = 'provider_quota' AND {_GOES_ON} LIMIT %s"  # noqa: S608
)
_QUOTA = _QUOTA_IS_BACK.replace("LIMIT", "AND t.not_before <= now() LIMIT")

_PAUSED = """
SELECT t.id FROM tasks t JOIN projects p ON p.id = t.project_id
WHERE t.state = 'held' AND t.hold = 'paused' AND NOT p.paused AND p.archived_at IS NULL
  AND NOT coalesce((SELECT b.paused FROM batches b WHERE b.id = t.batch_id), false) LIMIT %s
"""


_UNPARSABLE = f"""
SELECT t.id FROM tasks t JOIN batches b ON b.id = t.batch_id
WHERE t.state = 'held' AND t.hold = 'unparsable' AND b.parse_watch <> 'paused' AND {_GOES_ON} LIMIT %s
"""  # noqa: S608


async def resume_holds(conn: Connection, *, quota_is_back: bool = False) -> int:
    """Held → ready where the reason is gone; how many."""
    chosen = await _covered(conn)
    for query in (_QUOTA_IS_BACK if quota_is_back else _QUOTA, _PAUSED, _UNPARSABLE):
        chosen += [row["id"] for row in await fetch(conn, query, [_AT_ONCE])]
    if not chosen:
        return 0
    rows = await fetch(
        conn,
        """
        UPDATE tasks t SET state = 'ready', hold = NULL, not_before = now()
        FROM (SELECT t.id, t.hold FROM tasks t JOIN projects p ON p.id = t.project_id
              WHERE t.id = ANY (%s) AND t.state = 'held' AND NOT p.paused AND p.archived_at IS NULL
                AND NOT coalesce((SELECT b.paused FROM batches b WHERE b.id = t.batch_id), false)
              ORDER BY t.id FOR NO KEY UPDATE OF t SKIP LOCKED) held
        WHERE t.id = held.id
        RETURNING t.id, t.project_id, t.batch_id, t.key_id, held.hold
        """,
        [chosen],
    )
    await _record(conn, rows)
    return len(rows)


async def _covered(conn: Connection) -> list[str]:
    """The tasks whose next call the present headroom covers."""
    chosen: list[str] = []
    for project in await fetch(conn, _PROJECTS):
        project_id, month = project["id"], project["month"]
        room = {
            BudgetKey(row["scope"], project_id, row["month"]): row
            for row in await fetch(conn, _LEFT, {"project": project_id, "month": month, "cap": project["cap"]})
        }
        left = {key: row["left"] for key, row in room.items() if row["left"] is not None}
        busy = {key for key, row in room.items() if row["busy"]}
        for row in await fetch(conn, _PROMISED, [project_id]):
            for key in budget_keys(project_id, row["batch_id"], row["key_id"], month):
                busy.add(key)
                if key in left:
                    left[key] -= row["needed"]
        batches: list[str | None] = [key.scope for key in room if key.month == WHOLE_LIFE and left.get(key, 1) > 0]
        # Where no money is coming back, those that fit nowhere block nobody and need not be read at each sweep.
        whole = BudgetKey(PROJECT_SCOPE, project_id, month)
        look = {"project": project_id, "spare": None if whole in busy else left.get(whole)}
        look["limit"] = max(_FEWEST, _AT_ONCE // (1 + len(batches)))
        queues = [await fetch(conn, _WAITING, {**look, "batch": batch}) for batch in [None, *batches]]
        in_order = heapq.merge(*queues, key=itemgetter("priority", "turn", "id"))
        chosen += _fitting(in_order, project_id, month, left, busy)
    return chosen


def _fitting(
    waiting: Iterable[Row], project_id: str, month: str, left: dict[BudgetKey, int], busy: set[BudgetKey]
) -> Iterator[str]:
    """Those that fit, taking what they need out of `left`. A scope in `busy` that has refused one refuses all behind
    it; one that grants something becomes busy."""
    full: set[BudgetKey] = set()
    for row in waiting:
        keys = budget_keys(project_id, row["batch_id"], row["key_id"], month)
        if full.intersection(keys):
            continue
        refusing = next((key for key in keys if left.get(key, row["needed"]) < row["needed"]), None)
        if refusing is not None:
            if refusing in busy:
                full.add(refusing)
            continue
        busy.update(keys)
        for key in keys:
            if key in left:
                left[key] -= row["needed"]
        yield row["id"]


async def _record(conn: Connection, rows: Sequence[Row]) -> None:
    deltas = BatchDeltas()
    for row in rows:
        deltas.of(row["batch_id"], row["project_id"]).held[HoldReason(row["hold"])] -= 1
    shown = [row for row in rows if row["key_id"] != AUDIT_SCOPE]
    await write_notes(conn, [Note(r["project_id"], "task.resumed", r["batch_id"], r["id"]) for r in shown])
    await deltas.lock(conn)
    await deltas.write(conn)
