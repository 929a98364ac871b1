"""COPY of a batch's tasks: text rows built here, page by page, in the one transaction that starts the batch.

One COPY takes all pages, so that Postgres stores one page while the next is being read and validated.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

from psycopg import AsyncCopy

from cope.adapters.postgres.counters import BatchDeltas
from cope.adapters.postgres.database import Connection, fetch_one
from cope.adapters.postgres.journal import Note, write_notes
from cope.core.codec import policy_id
from cope.core.errors import Conflict
from cope.core.fairness import stride
from cope.core.ids import BatchId, compact
from cope.core.records import Batch
from cope.ports.store import BatchJob, NewTask

_COPY = """
COPY tasks (id, project_id, batch_id, key_id, policy_id, queue, on_budget, custom_id, turn, seed, priority, line,
  payload, pool) FROM STDIN
"""

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})

_OWNED = "SELECT FROM batches WHERE id = %s AND job_fence = %s AND status = 'validating' AND job_until IS NOT NULL"

_START = """
UPDATE batches SET status = CASE WHEN %(total)s > 0 THEN 'in_progress' ELSE 'finalizing' END, in_progress_at = now(),
  finalizing_at = CASE WHEN %(total)s = 0 THEN now() END, expires_at = now() + %(expires_in)s::interval,
  total = %(total)s, at_large = %(large)s, first_large = %(large)s,
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
    expires_in: timedelta | None,
) -> int:
    """COPY all rows and start the batch; how many. Raises `JobLost` (roll back) or whatever `rows` raises.

    The batch's row is only locked at the end: a cancel or a renewal in between does not wait for the COPY.
    """
    if await fetch_one(conn, _OWNED, [job.batch.id, job.fence]) is None:
        raise JobLost
    pages = Pages(conn, job.batch, await stride_of(conn, job.batch.project_id, expires_in))
    async with pages:
        async for page in rows:
            await pages.write(page)
    for text in pages.policies:
        await put_policy(conn, text)
    if not await begin(conn, job, total=pages.count, large=pages.large, model=model(), expires_in=expires_in):
        raise JobLost
    return pages.count


async def begin(
    conn: Connection, job: BatchJob, *, total: int, large: int, model: str | None, expires_in: timedelta | None
) -> bool:
    """The batch is `in_progress` (or, without a line, about to end); False if the job was lost. `large` of its lines
    begin at the large model."""
    started = await conn.execute(
        _START,
        {
            "id": job.batch.id,
            "fence": job.fence,
            "total": total,
            "large": large,
            "model": model,
            "expires_in": expires_in,
        },
    )
    if started.rowcount != 1:
        return False
    deltas = BatchDeltas()
    deltas.touch([(job.batch.id, job.batch.project_id)])
    await deltas.write(conn)
    note = Note(job.batch.project_id, "batch.in_progress", job.batch.id, data={"total": total})
    await write_notes(conn, [note])
    return True


async def stride_of(conn: Connection, project_id: str, window: timedelta | None) -> int:
    """Turns between two lines of a batch of this window that begins now."""
    row = await fetch_one(
        conn,
        "SELECT count(*) AS open FROM batches WHERE project_id = %s AND status = 'in_progress'",
        [project_id],
    )
    return stride(window, 1 + (0 if row is None else row["open"]))


class Pages:
    """Writes pages of rows and remembers what one row's place depends on."""

    def __init__(self, conn: Connection, batch: Batch, stride: int) -> None:
        self._conn = conn
        self._stride = stride
        self._batch_id: BatchId = batch.id
        self._owner = f"{batch.project_id}\t{batch.id}\t{_nullable(batch.key_id)}"
        self._turns: dict[tuple[str, int], int] = {}
        self._seen: set[str | bytes] = set()
        self._open = contextlib.AsyncExitStack()
        self._copy: AsyncCopy | None = None
        self.policies: dict[str, str] = {}
        """Ids of the policies met, by their text: the caller's to store, once no COPY is open."""
        self.count = 0
        self.large = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the COPY; one that failed is taken back."""
        await self._open.__aexit__(kind, error, trace)

    async def write(self, page: Sequence[NewTask]) -> None:
        """Adds rows. Raises `Conflict` for a custom id that came before."""
        await self._learn_turns(page)
        for text in {row.policy for row in page} - self.policies.keys():
            self.policies[text] = policy_id(text)
        first = self.count
        lines = [self._line(row, first + ordinal) for ordinal, row in enumerate(page)]
        self.count += len(page)
        self.large += sum(row.queue == "large" for row in page)
        self._seen.update([compact(row.custom_id) for row in page])
        if len(self._seen) != self.count:
            raise Conflict("Two lines of this batch have the same custom_id.")
        if self._copy is None:
            cursor = await self._open.enter_async_context(self._conn.cursor())
            self._copy = await self._open.enter_async_context(cursor.copy(_COPY))
        await self._copy.write("".join(lines).encode())

    async def rest(self) -> None:
        """End the COPY until the next page: the connection is free for other statements."""
        await self._open.aclose()
        self._copy = None

    async def _learn_turns(self, page: Sequence[NewTask]) -> None:
        """The present turn of queues that are new to this batch: seldom after the first page, for it ends the COPY."""
        places = {(row.queue, row.priority) for row in page} - self._turns.keys()
        if places:
            await self.rest()
        for place in places:
            self._turns[place] = await current_turn(self._conn, *place)

    def _line(self, row: NewTask, ordinal: int) -> str:
        turn = self._turns[row.queue, row.priority] + ordinal * self._stride
        # A payload is compact JSON: control characters in it are escaped already, so only backslashes matter to COPY.
        payload = row.payload.replace("\\", "\\\\")
        custom_id = row.custom_id
        if "\\" in custom_id or not custom_id.isprintable():
            custom_id = custom_id.translate(_ESCAPES)
        return (
            f"{row.task_id}\t{self._owner}\t{self.policies[row.policy]}\t{row.queue}\t{row.on_budget}\t"
            f"{custom_id}\t{turn}\t{row.seed}\t{row.priority}\t{row.line}\t{payload}\t{_octets(row.pool)}\n"
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


def _octets(key: bytes | None) -> str:
    return "\\N" if key is None else f"\\\\x{key.hex()}"


def _nullable(text: str | None) -> str:
    return "\\N" if text is None else text
