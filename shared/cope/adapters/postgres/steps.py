"""Steps of a task that ends: written once, kept as far as the task's store level says."""

from collections.abc import Sequence

from cope.adapters.postgres.claim import Policies
from cope.adapters.postgres.database import Connection, fetch
from cope.core.codec import decode_step, decode_task, encode_step
from cope.core.history import FinishedStep
from cope.core.ids import TaskId
from cope.core.policies.spec import PolicySpec
from cope.core.retention import prune_history

# A task that keeps every text need not be read back. The mark can't be forged by a prompt: quotes in it are escaped.
FULL_MARK = '"st":"full"'


async def insert_steps(conn: Connection, steps: Sequence[tuple[str, str, str]]) -> None:
    """Write (task, name, data) rows; one that is there already stays as it is."""
    if not steps:
        return
    await conn.execute(
        "INSERT INTO steps (task_id, name, data) SELECT * FROM unnest(%b::text[], %b::text[], %b::text[]) "
        "ON CONFLICT DO NOTHING",
        [list(column) for column in zip(*steps, strict=True)],
    )


async def update_steps(conn: Connection, steps: Sequence[tuple[str, str, str]]) -> None:
    """Write the data of (task, name, data) rows again."""
    if not steps:
        return
    await conn.execute(
        """
        UPDATE steps s SET data = n.data FROM unnest(%b::text[], %b::text[], %b::text[]) AS n (task_id, name, data)
        WHERE s.task_id = n.task_id AND s.name = n.name
        """,
        [list(column) for column in zip(*steps, strict=True)],
    )


def prune(
    task_id: str,
    *,
    payload: str,
    policy: PolicySpec,
    seed: int,
    on_budget: str,
    stored: Sequence[str],
    last: FinishedStep | None,
) -> tuple[list[tuple[str, str, str]], str | None]:
    """What the stored steps become, where they change, and how the last one is to be written."""
    if FULL_MARK in payload or not (stored or last):
        return [], None if last is None else encode_step(last)
    spec = decode_task(TaskId(task_id), payload=payload, policy=policy, seed=seed, on_budget=on_budget)
    before = tuple(decode_step(data) for data in stored)
    history = before if last is None else (*before, last)
    after = prune_history(spec, history)
    changed = [(task_id, new.name, encode_step(new)) for old, new in zip(before, after, strict=False) if old != new]
    return changed, None if last is None else encode_step(after[-1])


async def prune_ended(conn: Connection, policies: Policies, task_ids: Sequence[str]) -> None:
    """Prune the steps of tasks that end between two steps."""
    rows = await fetch(
        conn,
        """
        SELECT t.id, t.payload, t.policy_id, t.seed, t.on_budget,
          ARRAY(SELECT s.data FROM steps s WHERE s.task_id = t.id ORDER BY s.at) AS steps
        FROM tasks t WHERE t.id = ANY (%s) AND EXISTS (SELECT FROM steps s WHERE s.task_id = t.id)
        """,
        [list(task_ids)],
    )
    await policies.load(conn, {row["policy_id"] for row in rows})
    changed: list[tuple[str, str, str]] = []
    for row in rows:
        changed += prune(
            row["id"],
            payload=row["payload"],
            policy=policies[row["policy_id"]],
            seed=row["seed"],
            on_budget=row["on_budget"],
            stored=row["steps"],
            last=None,
        )[0]
    await update_steps(conn, changed)
