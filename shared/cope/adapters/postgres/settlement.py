"""The end of every transaction that moves money: attempts, batches, projects, budgets, in that order."""

from cope.adapters.postgres.counters import BatchDeltas
from cope.adapters.postgres.database import Connection, fetch
from cope.adapters.postgres.money import Books
from cope.adapters.postgres.publish import publish


async def close_books(conn: Connection, books: Books, deltas: BatchDeltas) -> None:
    """Write attempts and ledger, batch counters, the stop of projects that were overrun, and the budgets last."""
    await books.write_attempts(conn)
    books.count(deltas)
    if books.stopped:
        # Their batches stand still from now on, so they are locked with the others, in one order.
        deltas.touch(await batches_in_progress(conn, books.stopped))
    await deltas.lock(conn)
    if books.stopped:
        await conn.execute("UPDATE projects SET paused = true WHERE id = ANY (%s)", [books.stopped])
    await publish(conn, books.overran)
    await deltas.write(conn)
    await books.write_budgets(conn)


async def batches_in_progress(conn: Connection, project_ids: list[str]) -> list[tuple[str, str]]:
    """(batch, project) of what these projects have in progress."""
    rows = await fetch(
        conn,
        "SELECT id, project_id FROM batches WHERE project_id = ANY (%s) AND status = 'in_progress'",
        [project_ids],
    )
    return [(row["id"], row["project_id"]) for row in rows]
