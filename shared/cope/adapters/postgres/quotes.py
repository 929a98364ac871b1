"""Dry runs: the survey of a file, the pilot's tasks, and what the project has seen before."""

from collections.abc import Sequence

from cope.adapters.postgres.database import Connection, fetch, fetch_one
from cope.core.codec import decode_step, decode_usage, policy_id
from cope.core.ids import BatchId, ProjectId, TaskId
from cope.core.lifecycle import TaskState
from cope.core.quote import Past
from cope.ports.store import PAST_CALLS, BatchJob, PilotRun, PilotTask

_LOOKED_AT = 50_000
"""Of all projects' latest attempts and tasks: there is no index by project, and a guess is not worth one."""

_PUT = """
UPDATE quotes q SET survey = %(survey)s FROM batches b
WHERE q.batch_id = %(id)s AND b.id = q.batch_id AND b.job_fence = %(fence)s AND b.job_until IS NOT NULL
"""

_TASKS = """
SELECT t.id, t.state, t.result, ARRAY(SELECT s.data FROM steps s WHERE s.task_id = t.id ORDER BY s.at) AS steps
FROM tasks t WHERE t.batch_id = %s ORDER BY t.line
"""

_CALLS = f"""
SELECT model, step, usage FROM (
  SELECT a.*, row_number() OVER (PARTITION BY a.model, a.step ORDER BY a.id DESC) AS place
  FROM (SELECT id, project_id, model, step, state, usage FROM attempts ORDER BY id DESC LIMIT {_LOOKED_AT}) a
  WHERE a.project_id = %s AND a.model = ANY (%s) AND a.state = 'settled' AND a.usage IS NOT NULL
) c WHERE place <= {PAST_CALLS} ORDER BY model, step, place
"""  # noqa: S608

_STAGES = f"""
SELECT policy_id, count(*) FILTER (WHERE stage = 2 AND accepted) AS settled,
  count(*) FILTER (WHERE stage = 3 OR stage = 2 AND NOT accepted) AS not_settled
FROM (SELECT project_id, policy_id, state, stage, accepted FROM tasks ORDER BY id DESC LIMIT {_LOOKED_AT}) t
WHERE project_id = %s AND policy_id = ANY (%s) AND state = 'done' GROUP BY policy_id
"""  # noqa: S608


async def put_survey(conn: Connection, job: BatchJob, survey: str) -> None:
    """Nothing happens if the job was lost."""
    await conn.execute(_PUT, {"id": job.batch.id, "fence": job.fence, "survey": survey})


async def put_quote(conn: Connection, batch_id: BatchId, quote: str) -> None:
    """The caller holds the job."""
    await conn.execute("UPDATE quotes SET quote = %s WHERE batch_id = %s", [quote, batch_id])


async def pilot(conn: Connection, batch_id: BatchId) -> PilotRun:
    """By line."""
    row = await fetch_one(conn, "SELECT survey FROM quotes WHERE batch_id = %s", [batch_id])
    tasks = tuple(
        PilotTask(
            TaskId(task["id"]),
            TaskState(task["state"]),
            tuple(decode_step(step) for step in task["steps"]),
            task["result"],
        )
        for task in await fetch(conn, _TASKS, [batch_id])
    )
    return PilotRun(None if row is None else row["survey"], tasks)


async def past(conn: Connection, project_id: ProjectId, *, models: Sequence[str], policies: Sequence[str]) -> Past:
    """Of the latest attempts and tasks in the database."""
    outputs: dict[tuple[str, str], list[int]] = {}
    for row in await fetch(conn, _CALLS, [project_id, list(models)]):
        outputs.setdefault((row["model"], row["step"]), []).append(decode_usage(row["usage"]).completion)
    names = {policy_id(text): text for text in policies}
    counted = await fetch(conn, _STAGES, [project_id, list(names)])
    stage2 = {names[row["policy_id"]]: (row["settled"], row["not_settled"]) for row in counted}
    return Past(
        {key: tuple(tokens) for key, tokens in outputs.items()},
        {text: stage2.get(text, (0, 0)) for text in policies},
    )
