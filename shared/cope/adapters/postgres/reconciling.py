"""Settling what is in doubt after a provider's own records, and correcting what they contradict."""

from collections.abc import Sequence

from cope.adapters.postgres.counters import BatchDeltas
from cope.adapters.postgres.database import Connection, Row, fetch, fetch_one
from cope.adapters.postgres.journal import Note, write_notes
from cope.adapters.postgres.money import Books, lock_attempts
from cope.adapters.postgres.settlement import close_books
from cope.core.ids import AttemptId, BatchId, KeyId, ProjectId, TaskId
from cope.core.ledger import AGE_EDGES_S, NOT_BILLED, RECONCILED, AgeGroup, BookedAttempt
from cope.core.lifecycle import AttemptState
from cope.core.money import ZERO, NanoUSD
from cope.ports.ledger import Correction, Reconciled
from cope.ports.store import Settlement

BOOKED = """
SELECT a.*, CASE WHEN a.state = 'unconfirmed' THEN (
    SELECT l.at FROM ledger l WHERE l.month = a.month AND l.attempt_id = a.id AND l.kind = 'unconfirmed'
  ) END AS doubted_at
FROM attempts a
"""


async def settle_unconfirmed(conn: Connection, bills: Sequence[Reconciled]) -> set[AttemptId]:
    """Those that were still unconfirmed once their rows were locked."""
    locked = await lock_attempts(conn, [bill.attempt_id for bill in bills])
    books = Books(attempt for attempt in locked if attempt.state is AttemptState.UNCONFIRMED)
    settled = {bill.attempt_id for bill in bills if books.settle(settlement_of(bill))}
    await close_books(conn, books, BatchDeltas())
    return settled


async def correct(conn: Connection, corrections: Sequence[Correction]) -> set[AttemptId]:
    """Those whose books still said what the correction was judged by."""
    books = Books(await lock_attempts(conn, [correction.attempt_id for correction in corrections]))
    corrected = {one.attempt_id for one in corrections if books.correct(one.attempt_id, one.booked, one.billed)}
    await close_books(conn, books, BatchDeltas())
    return corrected


def settlement_of(bill: Reconciled) -> Settlement:
    """The flag tells a late answer that its money is booked already."""
    flag = NOT_BILLED if bill.usage is None else RECONCILED
    return Settlement(bill.attempt_id, bill.cost, ZERO, bill.usage, flag, bill.provider_id)


async def keep_reconciled_answer(conn: Connection, settlement: Settlement, answer: str) -> None:
    """An answer that comes after its money was reconciled is kept to be adopted; it books nothing.

    Where it costs something else than what was booked, that is said as an event: the next reconciliation finds it.
    """
    row = await fetch_one(
        conn,
        """
        UPDATE attempts SET answer = %s, provider_id = coalesce(provider_id, %s)
        WHERE id = %s AND state = 'settled' AND flag IN (%s, %s) AND answer IS NULL
        RETURNING project_id, batch_id, task_id, cost + overrun AS booked
        """,
        [answer, settlement.provider_id, settlement.attempt_id, RECONCILED, NOT_BILLED],
    )
    answered = settlement.cost + settlement.overrun
    if row is not None and row["booked"] != answered:
        data = {"booked_nanousd": row["booked"], "answered_nanousd": answered}
        await write_notes(
            conn, [Note(row["project_id"], "budget.late_answer_differs", row["batch_id"], row["task_id"], data=data)]
        )


async def attempts_of_tasks(conn: Connection, task_ids: Sequence[str]) -> list[BookedAttempt]:
    """By id."""
    rows = await fetch(conn, f"{BOOKED} WHERE a.task_id = ANY (%s) ORDER BY a.id", [list(task_ids)])
    return [booked_of(row) for row in rows]


async def ages(conn: Connection, project_id: str | None) -> tuple[AgeGroup, ...]:
    """One group for every edge."""
    rows = await fetch(
        conn,
        """
        SELECT width_bucket(greatest(extract(epoch FROM now() - sent_at), 0)::float8, %(edges)s::float8[]) AS place,
          count(*) AS attempts, sum(reserved) AS amount
        FROM attempts WHERE state = 'unconfirmed' AND (%(project)s::text IS NULL OR project_id = %(project)s) GROUP BY 1
        """,
        {"edges": list(AGE_EDGES_S), "project": project_id},
    )
    found = {row["place"]: row for row in rows}
    untils = (*AGE_EDGES_S[1:], None)
    return tuple(
        AgeGroup(edge, until, found[place]["attempts"], NanoUSD(int(found[place]["amount"])))
        if place in found
        else AgeGroup(edge, until, 0, ZERO)
        for place, (edge, until) in enumerate(zip(AGE_EDGES_S, untils, strict=True), start=1)
    )


def booked_of(row: Row) -> BookedAttempt:
    """From a row of `BOOKED`."""
    return BookedAttempt(
        id=AttemptId(row["id"]),
        project_id=ProjectId(row["project_id"]),
        batch_id=None if row["batch_id"] is None else BatchId(row["batch_id"]),
        key_id=None if row["key_id"] is None else KeyId(row["key_id"]),
        task_id=TaskId(row["task_id"]),
        step=row["step"],
        model=row["model"],
        request_id=row["request_id"],
        state=AttemptState(row["state"]),
        month=row["month"],
        reserved=NanoUSD(row["reserved"]),
        cost=NanoUSD(row["cost"] or 0),
        overrun=NanoUSD(row["overrun"]),
        price_version=row["price_version"],
        provider_id=row["provider_id"],
        sent_at=row["sent_at"],
        doubted_at=row["doubted_at"],
        flag=row["flag"],
        price_id=row["price_id"],
        price_tier=row["price_tier"],
    )
