"""COPY of a batch's tasks: text rows built here, page by page, in the one transaction that starts the batch."""

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta

from cope.adapters.postgres.counters import BatchDeltas
from cope.adapters.postgres.database import Connection, fetch_one
from cope.adapters.postgres.journal import Note, write_notes
from cope.core.codec import policy_id
from cope.core.errors import Conflict
from cope.core.ids import BatchId
from cope.core.records import Batch
from cope.ports.store import BatchJob, NewTask

_COPY = """
COPY tasks (id, project_id, batch_id, key_id, policy_id, queue, on_budget, custom_id, turn, seed, priority, line,
  payload) FROM STDIN
"""

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})

_OWNED = "SELECT FROM batches WHERE id = %s AND job_fence = %s AND status = 'validating' AND job_until IS NOT NULL"

_START = """
UPDATE batches SET status = CASE WHEN %(total)s > 0 THEN 'in_progress' ELSE 'finalizing' END, in_progress_at = now(),
  finalizing_at = CASE WHEN %(total)s = 0 THEN now() END, expires_at = now() + %(expires_in)s, total = %(total)s,
  model = %(model)s, job_until = NULL
WHERE id = %(id)s AND job_fence = %(fence)s AND status = 'validating' AND job_until IS NOT NULL
"""


class JobLost(Exception):
    """Somebody else has the job, or the batch was cancelled: nothing may be written."""


async def ingest(
    conn: Connection,
    job: BatchJob,
    rows: AsyncIterator[Sequence[NewTask]],
    *,
    model: Callable[[], str | None],
    expires_in: timedelta,
) -> int:
    """COPY all rows and start the batch; how many. Raises `JobLost` (roll back) or whatever `rows` raises.

    The batch's row is only locked at the end: a cancel or a renewal in between does not wait for the COPY.
    """
    if await fetch_one(conn, _OWNED, [job.batch.id, job.fence]) is None:
        raise JobLost
    page_writer = _Pages(conn, job.batch)
    async for page in rows:
        await page_writer.write(page)
    total = page_writer.count
    started = await conn.execute(
        _START,
        {"id": job.batch.id, "fence": job.fence, "total": total, "model": model(), "expires_in": expires_in},
    )
    if started.rowcount != 1:
        raise JobLost
    deltas = BatchDeltas()
    deltas.touch([(job.batch.id, job.batch.project_id)])
    await deltas.write(conn)
    note = Note(job.batch.project_id, "batch.in_progress", job.batch.id, data={"total": total})
    await write_notes(conn, [note])
    return total


class _Pages:
    """Writes pages of rows and remembers what one row's place depends on."""

    def __init__(self, conn: Connection, batch: Batch) -> None:
        self._conn = conn
        self._batch_id: BatchId = batch.id
        self._owner = f"{batch.project_id}\t{batch.id}\t{_nullable(batch.key_id)}"
        self._policies: dict[str, str] = {}
        self._turns: dict[tuple[str, int], int] = {}
        self._seen: set[bytes] = set()
        self.count = 0

    async def write(self, page: Sequence[NewTask]) -> None:
        """One COPY. Raises `Conflict` for a custom id that came before."""
        await self._prepare(page)
        first = self.count
        lines = [self._line(row, first + ordinal) for ordinal, row in enumerate(page)]
        self.count += len(page)
        # Twelve bytes of hash per line: a million lines cost tens of megabytes less than their custom ids.
        self._seen.update(hashlib.blake2b(row.custom_id.encode(), digest_size=12).digest() for row in page)
        if len(self._seen) != self.count:
            raise Conflict("Two lines of this batch have the same custom_id.")
        async with self._conn.cursor() as cursor, cursor.copy(_COPY) as copy:
            await copy.write("".join(lines).encode())

    async def _prepare(self, page: Sequence[NewTask]) -> None:
        """Policies that are new to this batch, and the present turn of queues that are."""
        for text in {row.policy for row in page} - self._policies.keys():
            self._policies[text] = policy_id(text)
            await put_policy(self._conn, text)
        for place in {(row.queue, row.priority) for row in page} - self._turns.keys():
            self._turns[place] = await current_turn(self._conn, *place)

    def _line(self, row: NewTask, ordinal: int) -> str:
        turn = self._turns[row.queue, row.priority] + ordinal
        # A payload is compact JSON: control characters in it are escaped already, so only backslashes matter to COPY.
        payload = row.payload.replace("\\", "\\\\")
        custom_id = row.custom_id.translate(_ESCAPES)
        return (
            f"{row.task_id}\t{self._owner}\t{self._policies[row.policy]}\t{row.queue}\t{row.on_budget.value}\t"
            f"{custom_id}\t{turn}\t{row.seed}\t{row.priority}\t{row.line}\t{payload}\n"
        )


async def put_policy(conn: Connection, text: str) -> str:
    """Make a policy known; its id."""
    name = policy_id(text)
    await conn.execute("INSERT INTO policies (id, spec) VALUES (%s, %s) ON CONFLICT DO NOTHING", [name, text])
    return name


async def current_turn(conn: Connection, queue: str, priority: int) -> int:
    """The turn that this queue has come to among tasks of this priority: that of the next due task, else of the last
    one claimed that is not finished, else 0. New lines start here, so a million before them can't starve them."""
    row = await fetch_one(
        conn,
        """
        SELECT coalesce(
          (SELECT turn FROM tasks WHERE queue = %(queue)s AND priority = %(priority)s AND state = 'ready'
             AND not_before <= now() ORDER BY turn LIMIT 1),
          (SELECT max(turn) FROM tasks WHERE state = 'leased' AND lease_until > '-infinity'
             AND queue = %(queue)s AND priority = %(priority)s), 0) AS turn
        """,
        {"queue": queue, "priority": priority},
    )
    return 0 if row is None else row["turn"]


def _nullable(text: str | None) -> str:
    return "\\N" if text is None else text
