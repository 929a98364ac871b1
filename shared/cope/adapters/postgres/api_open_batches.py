"""Open batches: lines are added while the first of them run already, until the batch is sealed."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import timedelta

from cope.adapters.postgres.api_batches import see, stand_still_or_go_on
from cope.adapters.postgres.api_retries import ApiRetries
from cope.adapters.postgres.database import Connection, fetch, fetch_one
from cope.adapters.postgres.ingest import current_turn, put_policy, stride_of
from cope.adapters.postgres.journal import Note, write_notes
from cope.core.errors import Conflict
from cope.core.ids import BatchId, ProjectId
from cope.core.open_batch import check_repeats, refuse_sealed, refuse_too_many
from cope.core.records import Batch
from cope.ports.store import Appended, NewLine

# Appends to one batch take turns: each gives its lines the next line numbers.
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 2))"

_KNOWN = "SELECT name, digest FROM appended_lines WHERE batch_id = %s AND name = ANY (%s)"

_REMEMBER = """
INSERT INTO appended_lines (batch_id, project_id, name, digest)
SELECT %s, %s, n.name, n.digest FROM unnest(%s::bytea[], %s::bytea[]) AS n (name, digest)
"""

_ADD = """
INSERT INTO tasks (id, project_id, batch_id, key_id, policy_id, queue, on_budget, custom_id, turn, seed, priority, line,
                   payload, pool)
SELECT n.id, %s, %s, %s, n.policy_id, n.queue, n.on_budget, n.custom_id, n.turn, n.seed, n.priority, n.line,
       n.payload, n.pool
FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %s::bigint[], %s::bigint[], %s::int[],
            %s::int[], %b::text[], %s::bytea[])
  AS n (id, policy_id, queue, on_budget, custom_id, turn, seed, priority, line, payload, pool)
"""

# Fenced: a seal, a cancel or the end of the window that came in between takes the whole append back.
_COUNT = """
UPDATE batches SET total = total + %(new)s, at_large = at_large + %(large)s, first_large = first_large + %(large)s
WHERE id = %(id)s AND open AND status = 'in_progress' AND ending IS NULL
"""


class ApiOpenBatches(ApiRetries):
    """What a project's key may do with a batch that is open."""

    async def append_lines(
        self, project_id: ProjectId, batch_id: BatchId, lines: Sequence[NewLine], *, window: timedelta | None, most: int
    ) -> Appended | None:
        """The new lines come after those that the batch has."""
        async with self._db.transaction(project=project_id) as conn:
            await conn.execute(_ONE_AT_A_TIME, [batch_id])
            batch = await see(conn, project_id, batch_id)
            if batch is None:
                return None
            names = {_name(line): line for line in lines}
            rows = await fetch(conn, _KNOWN, [batch_id, list(names)])
            known = {names[bytes(row["name"])].task.custom_id: bytes(row["digest"]) for row in rows}
            new = check_repeats(lines, known)
            if new:
                refuse_sealed(batch)
                refuse_too_many(batch, len(new), most)
                await _write(conn, batch, new, window)
            after = await see(conn, project_id, batch_id)
        assert after is not None
        return Appended(after, len(new))

    async def seal_batch(self, project_id: ProjectId, batch_id: BatchId) -> Batch | None:
        """It begins to end at once if its last line has."""
        async with self._db.transaction(project=project_id) as conn:
            sealed = await fetch_one(
                conn,
                "UPDATE batches SET open = false WHERE id = %s AND project_id = %s AND open RETURNING total",
                [batch_id, project_id],
            )
            if sealed is not None:
                data = {"id": batch_id, "total": sealed["total"]}
                await write_notes(conn, [Note(project_id, "batch.sealed", batch_id, data=data)])
                await stand_still_or_go_on(conn, project_id, batch_id)
            return await see(conn, project_id, batch_id)


async def _write(conn: Connection, batch: Batch, new: Sequence[NewLine], window: timedelta | None) -> None:
    tasks = [line.task for line in new]
    names = [_name(line) for line in new]
    await conn.execute(_REMEMBER, [batch.id, batch.project_id, names, [line.digest for line in new]])
    policies = {text: await put_policy(conn, text) for text in sorted({task.policy for task in tasks})}
    turns = await _turns(conn, batch, new, window)
    columns: list[list[str] | list[int] | list[bytes | None]] = [
        [str(task.task_id) for task in tasks],
        [policies[task.policy] for task in tasks],
        [task.queue for task in tasks],
        [task.on_budget.value for task in tasks],
        [task.custom_id for task in tasks],
        turns,
        [task.seed for task in tasks],
        [task.priority for task in tasks],
        [batch.total + ordinal for ordinal in range(1, len(tasks) + 1)],
        [task.payload for task in tasks],
        [task.pool for task in tasks],
    ]
    await conn.execute(_ADD, [batch.project_id, batch.id, batch.key_id, *columns])
    large = sum(task.queue == "large" for task in tasks)
    counted = await conn.execute(_COUNT, {"new": len(new), "large": large, "id": batch.id})
    if counted.rowcount != 1:
        raise Conflict("The batch was sealed, cancelled or expired while these lines came.", code="batch_not_open")
    data: dict[str, str | int | None] = {"id": batch.id, "added": len(new), "total": batch.total + len(new)}
    await write_notes(conn, [Note(batch.project_id, "batch.requests_added", batch.id, data=data)])


async def _turns(conn: Connection, batch: Batch, new: Sequence[NewLine], window: timedelta | None) -> list[int]:
    """Behind what the batch has in hand, as if all its lines had come at once: many small appends overtake nobody."""
    stride = await stride_of(conn, batch.project_id, window)
    in_hand = batch.total - batch.done - batch.failed
    places: Mapping[tuple[str, int], int] = {
        place: await current_turn(conn, *place) for place in {(line.task.queue, line.task.priority) for line in new}
    }
    return [
        places[line.task.queue, line.task.priority] + (in_hand + ordinal) * stride for ordinal, line in enumerate(new)
    ]


def _name(line: NewLine) -> bytes:
    return hashlib.blake2b(line.task.custom_id.encode(), digest_size=16).digest()
