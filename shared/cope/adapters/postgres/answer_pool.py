"""The answer pool: ended tasks found by their key, and those taken out of it."""

from collections.abc import Sequence

from cope.adapters.postgres.database import Connection, fetch
from cope.core.codec import decode_step
from cope.core.ids import TaskId
from cope.ports.answer_pool import MOST_FOUND, Pooled, PoolQuestion

_POOLED = f"""
SELECT q.place, found.id, ARRAY(SELECT s.data FROM steps s WHERE s.task_id = found.id ORDER BY s.at) AS steps
FROM unnest(%s::text[], %s::bytea[]) WITH ORDINALITY AS q (project_id, pool, place)
CROSS JOIN LATERAL (
  SELECT t.id FROM tasks t WHERE t.project_id = q.project_id AND t.pool = q.pool AND t.state = 'done'
  ORDER BY t.id DESC LIMIT {MOST_FOUND}
) found
ORDER BY q.place, found.id DESC
"""  # noqa: S608


async def pooled(conn: Connection, questions: Sequence[PoolQuestion]) -> list[tuple[Pooled, ...]]:
    """As `AnswerPool.pooled` describes it. The worker's role sees every project, so the project is part of the key."""
    found: list[list[Pooled]] = [[] for _ in questions]
    asked = [[question.project_id for question in questions], [question.key for question in questions]]
    for row in await fetch(conn, _POOLED, asked):
        steps = tuple(decode_step(data) for data in row["steps"])
        found[row["place"] - 1].append(Pooled(TaskId(row["id"]), steps))
    return [tuple(one) for one in found]


async def leave_pool(conn: Connection, task_ids: Sequence[str]) -> None:
    """These tasks, answered from the pool, are no results of their own: it would fill with copies of one. Locked."""
    if task_ids:
        await conn.execute("UPDATE tasks SET pool = NULL WHERE id = ANY (%s)", [list(task_ids)])
