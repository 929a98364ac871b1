"""Lines of provider batches: gathered with their money set aside, sent all at once, closed one by one."""

from collections.abc import Sequence

from cope.adapters.postgres import reserve as reserving
from cope.adapters.postgres.budgets import KnownBudgets
from cope.adapters.postgres.claim import WINDOW_LEFT, Policies, claimed_task
from cope.adapters.postgres.commit import give_back
from cope.adapters.postgres.database import Connection, Row, fetch
from cope.adapters.postgres.journal import Note, write_notes
from cope.adapters.postgres.provider_jobs import SENDABLE, WAITING, own
from cope.core.ids import AttemptId, TaskId
from cope.core.money import NanoUSD
from cope.ports.provider_batches import GatherRequest, ProviderJob, ProviderLine
from cope.ports.store import GiveBack, Granted, ReserveResult

_AT_ONCE = 2000

_LINES = f"""
SELECT l.attempt_id, l.step AS line_step, l.data, a.reserved, {WAITING} AS waiting,
  t.id, t.project_id, t.batch_id, t.key_id, t.policy_id, t.payload, t.seed, t.on_budget, l.fence, t.tries, t.crashes,
  now() AS lease_until, t.batch_off, {WINDOW_LEFT} AS window_left_s,
  ARRAY(SELECT s.data FROM steps s WHERE s.task_id = t.id ORDER BY s.at) AS steps
FROM provider_lines l JOIN attempts a ON a.id = l.attempt_id JOIN tasks t ON t.id = l.task_id
WHERE l.provider_batch = %(id)s AND (%(after)s::text IS NULL OR l.attempt_id > %(after)s)
  AND (%(only)s::text[] IS NULL OR l.attempt_id = ANY (%(only)s))
ORDER BY l.attempt_id LIMIT %(limit)s
"""  # noqa: S608

# Locked in the order of their tasks, as everywhere.
_TO_SEND = f"""
SELECT l.attempt_id, {SENDABLE} AND a.state = 'reserved' AS sendable, {WAITING} AND t.ending IS NULL AS waiting
FROM provider_lines l JOIN attempts a ON a.id = l.attempt_id JOIN tasks t ON t.id = l.task_id
WHERE l.provider_batch = %s ORDER BY t.id FOR NO KEY UPDATE OF t
"""  # noqa: S608

_GATHERED = f"""
SELECT l.attempt_id, l.task_id, l.fence, l.step FROM provider_lines l JOIN tasks t ON t.id = l.task_id
WHERE l.model = %(model)s AND l.provider_batch IS NULL
  AND (NOT ({WAITING}) OR %(below)s::float8 IS NULL OR {WINDOW_LEFT} < %(below)s)
ORDER BY l.attempt_id LIMIT {_AT_ONCE} FOR UPDATE OF l SKIP LOCKED
"""  # noqa: S608


async def gather(conn: Connection, known: KnownBudgets, requests: Sequence[GatherRequest]) -> list[ReserveResult]:
    """Reserve, and what is granted waits as a line instead of under a lease."""
    results = await reserving.reserve(conn, known, [request.reserve for request in requests])
    granted = [
        (result.attempt_id, request)
        for result, request in zip(results, requests, strict=True)
        if isinstance(result, Granted)
    ]
    if granted:
        async with conn.pipeline():
            await _submit(conn, granted)
    return results


async def _submit(conn: Connection, granted: Sequence[tuple[AttemptId, GatherRequest]]) -> None:
    reserves = [request.reserve for _, request in granted]
    await conn.execute(
        "UPDATE tasks SET state = 'submitted', lease_until = NULL, lease_owner = NULL WHERE id = ANY (%s)",
        [[reserve.task_id for reserve in reserves]],
    )
    await conn.execute(
        """
        INSERT INTO provider_lines (attempt_id, task_id, project_id, fence, model, step, size, data)
        SELECT * FROM unnest(%b::text[], %b::text[], %b::text[], %s::int[], %b::text[], %b::text[], %s::int[],
                             %b::text[])
        """,
        [
            [attempt_id for attempt_id, _ in granted],
            [reserve.task_id for reserve in reserves],
            [reserve.project_id for reserve in reserves],
            [reserve.fence for reserve in reserves],
            [reserve.model for reserve in reserves],
            [reserve.step for reserve in reserves],
            [len(request.order.encode()) for _, request in granted],
            [request.order for _, request in granted],
        ],
    )
    notes = [
        Note(r.project_id, "task.submitted", r.batch_id, r.task_id, {"step": r.step, "model": r.model})
        for r in reserves
    ]
    await write_notes(conn, notes)


async def return_gathered(conn: Connection, policies: Policies, model: str, *, below: float | None) -> int:
    """One page of lines that are not to be sent any more; how many there were (`_AT_ONCE`: there may be more)."""
    rows = await fetch(conn, _GATHERED, {"model": model, "below": below})
    await _return(conn, policies, rows, live=True)
    return len(rows)


async def disband(conn: Connection, policies: Policies, job: ProviderJob, *, live: bool) -> bool:
    """Everything of a batch that was never sent goes back."""
    if not await own(conn, job):
        return False
    rows = await fetch(
        conn,
        "SELECT attempt_id, task_id, fence, step FROM provider_lines WHERE provider_batch = %s ORDER BY attempt_id",
        [job.id],
    )
    await _return(conn, policies, rows, live=live)
    await conn.execute(
        "UPDATE provider_batches SET state = 'ended', ended_at = now(), job_until = NULL WHERE id = %s", [job.id]
    )
    return True


async def _return(conn: Connection, policies: Policies, rows: Sequence[Row], *, live: bool) -> None:
    if not rows:
        return
    backs = [
        GiveBack(
            TaskId(row["task_id"]),
            row["fence"],
            released=(AttemptId(row["attempt_id"]),),
            submitted=True,
            batch_off=row["step"] if live else "",
            note="provider batch",
        )
        for row in rows
    ]
    await give_back(conn, policies, backs)
    await _delete(conn, [row["attempt_id"] for row in rows])


async def lines(
    conn: Connection,
    policies: Policies,
    job: ProviderJob,
    *,
    after: AttemptId | None,
    limit: int,
    only: Sequence[AttemptId] | None,
) -> list[ProviderLine]:
    """A page of the batch's lines with their tasks."""
    rows = await fetch(
        conn, _LINES, {"id": job.id, "after": after, "limit": limit, "only": None if only is None else list(only)}
    )
    await policies.load(conn, {row["policy_id"] for row in rows})
    return [
        ProviderLine(
            attempt_id=AttemptId(row["attempt_id"]),
            task=claimed_task(row, policies),
            step=row["line_step"],
            reserved=NanoUSD(row["reserved"]),
            order=row["data"],
            waiting=row["waiting"],
        )
        for row in rows
    ]


async def send(conn: Connection, job: ProviderJob, attempts: Sequence[AttemptId]) -> bool:
    """All of them, or those that can't be sent leave the batch. A line whose project is stopped is gathered again; one
    whose task is gone goes."""
    if not await own(conn, job):
        return False
    rows = await fetch(conn, _TO_SEND, [job.id])
    sendable = [row["attempt_id"] for row in rows if row["sendable"]]
    if sorted(sendable) != sorted(attempts) or len(sendable) != len(rows):
        await _delete(conn, [row["attempt_id"] for row in rows if not row["waiting"]])
        await conn.execute(
            "UPDATE provider_lines SET provider_batch = NULL WHERE attempt_id = ANY (%s)",
            [[row["attempt_id"] for row in rows if row["waiting"] and not row["sendable"]]],
        )
        return False
    await conn.execute("UPDATE attempts SET state = 'sent', sent_at = now() WHERE id = ANY (%s)", [sendable])
    await conn.execute(
        "UPDATE provider_batches SET state = 'submitting', doubt_at = now(), creates = creates + 1 WHERE id = %s",
        [job.id],
    )
    return True


async def close(conn: Connection, job: ProviderJob, attempts: Sequence[AttemptId]) -> bool:
    """Their lines go."""
    if not await own(conn, job):
        return False
    await _delete(conn, attempts)
    return True


async def _delete(conn: Connection, attempts: Sequence[str]) -> None:
    await conn.execute("DELETE FROM provider_lines WHERE attempt_id = ANY (%s)", [sorted(attempts)])
