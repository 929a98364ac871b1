"""Waiting for money begins and ends: told once per period, for each batch and for the project as a whole.

A row of `budget_holds` stands for what was told. It is looked at after the sweep has resumed what it could, so that a
task which waits for less than a sweep is nobody's news; reservations and commits know nothing of it.
"""

from collections.abc import Sequence

from cope.adapters.postgres.database import Connection, Row, fetch
from cope.adapters.postgres.journal import Note
from cope.adapters.postgres.publish import publish
from cope.core.budget import PROJECT_SCOPE

_WAITS = "t.state = 'held' AND t.hold = 'budget'"

# In one order: two sweeps that begin the same rows at once must not wait for each other crosswise.
_BEGIN = f"""
INSERT INTO budget_holds (project_id, scope)
SELECT w.project_id, w.scope FROM (
  SELECT project_id, id AS scope FROM batches WHERE status = 'in_progress' AND held_budget > 0
  UNION ALL SELECT p.id, '{PROJECT_SCOPE}' FROM projects p
  WHERE EXISTS (SELECT FROM tasks t WHERE {_WAITS} AND t.project_id = p.id)
) w WHERE NOT EXISTS (SELECT FROM budget_holds h WHERE h.project_id = w.project_id AND h.scope = w.scope)
ORDER BY w.project_id COLLATE "C", w.scope COLLATE "C"
ON CONFLICT DO NOTHING RETURNING project_id, scope
"""  # noqa: S608

_END = f"""
DELETE FROM budget_holds h USING (
  SELECT b.project_id, b.scope FROM budget_holds b
  WHERE NOT CASE WHEN b.scope = '{PROJECT_SCOPE}'
    THEN EXISTS (SELECT FROM tasks t WHERE {_WAITS} AND t.project_id = b.project_id)
    ELSE EXISTS (SELECT FROM batches o WHERE o.id = b.scope AND o.status = 'in_progress' AND o.held_budget > 0) END
  ORDER BY b.project_id, b.scope FOR UPDATE SKIP LOCKED
) over
WHERE h.project_id = over.project_id AND h.scope = over.scope
RETURNING h.project_id, h.scope, extract(epoch FROM h.since)::bigint AS since
"""  # noqa: S608


async def tell_budget_holds(conn: Connection) -> None:
    """`budget.held` and `budget.resumed`, for webhooks and the feed."""
    ended = await fetch(conn, _END)
    await publish(conn, _notes(ended, "budget.resumed"))
    begun = await fetch(conn, _BEGIN)
    await publish(conn, _notes(begun, "budget.held"))


def _notes(rows: Sequence[Row], type_: str) -> list[Note]:
    return [
        Note(
            row["project_id"],
            type_,
            None if row["scope"] == PROJECT_SCOPE else row["scope"],
            data={"scope": row["scope"], "since": row.get("since")},
        )
        for row in rows
    ]
