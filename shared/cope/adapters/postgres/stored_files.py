"""Files whose time has come, bytes that nobody reads, names that belong to nobody: short transactions, any number at
once."""

from collections.abc import Sequence
from datetime import timedelta

from cope.adapters.postgres.blobs import release
from cope.adapters.postgres.database import Connection, fetch, fetch_one
from cope.core.ids import FILE, FileId
from cope.core.keeping import Keeping, first_id

# Longer than any upload: one that ends later finds its name still taken.
_REMEMBERED = "interval '7 days'"

# Nearly all below `old` are gone already: the id, which begins with the time, spares reading the rest.
OVER = """(expires_at <= now() OR expires_at IS NULL AND id < %(old)s AND created_at <= now() - %(files)s::interval)"""

_DUE = f"SELECT id FROM files WHERE {OVER} ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED"  # noqa: S608

# A statement of its own: whoever locked the file's row to make a batch of it has committed by now and is seen.
_UNREAD = """
DELETE FROM files f WHERE f.id = ANY (%s)
  AND NOT EXISTS (SELECT FROM batches b WHERE b.status = 'validating' AND b.input_file_id = f.id)
RETURNING *
"""

_DISOWN = """
INSERT INTO blobs (id, project_id, sha256, bytes, refs, shared, freed_at)
SELECT n.id, '', '', 0, 0, false, now() FROM unnest(%s::text[]) AS n (id)
WHERE NOT EXISTS (SELECT FROM files f WHERE f.id = n.id AND f.blob_id IS NULL)
ON CONFLICT (id) DO NOTHING RETURNING id
"""

_TURN = """
INSERT INTO upkeep_notes AS n (name, at) VALUES ('turn ' || %(name)s::text, now())
ON CONFLICT (name) DO UPDATE SET at = now() WHERE n.at <= now() - %(every)s * interval '1 second'
RETURNING name
"""


async def over_values(conn: Connection, keeping: Keeping) -> dict[str, object]:
    """What `OVER` asks for. A day's room for clocks that differ."""
    row = await fetch_one(conn, "SELECT now() AS now")
    assert row is not None
    old = "" if keeping.files is None else first_id(FILE, row["now"] - keeping.files + timedelta(days=1))
    return {"files": keeping.files, "old": old}


async def expire_files(conn: Connection, keeping: Keeping, *, limit: int) -> int:
    """How many were deleted."""
    due = [row["id"] for row in await fetch(conn, _DUE, await over_values(conn, keeping) | {"limit": limit})]
    if not due:
        return 0
    rows = await fetch(conn, _UNREAD, [due])
    await release(conn, rows)
    return len(rows)


async def freed_bytes(conn: Connection, *, limit: int) -> list[FileId]:
    """The longest dead first."""
    rows = await fetch(
        conn, "SELECT id FROM blobs WHERE refs = 0 AND emptied_at IS NULL ORDER BY freed_at LIMIT %s", [limit]
    )
    return [FileId(row["id"]) for row in rows]


async def emptied(conn: Connection, blobs: Sequence[FileId]) -> None:
    """Remember it for a week, so that no upload that comes late takes the name."""
    await conn.execute("UPDATE blobs SET emptied_at = now() WHERE id = ANY (%s) AND refs = 0", [list(blobs)])
    await conn.execute(f"DELETE FROM blobs WHERE refs = 0 AND emptied_at < now() - {_REMEMBERED}")  # noqa: S608


async def disown(conn: Connection, names: Sequence[FileId]) -> list[FileId]:
    """Those of no file."""
    return [FileId(row["id"]) for row in await fetch(conn, _DISOWN, [sorted(names)])]


async def take_turn(conn: Connection, name: str, *, every_s: float) -> bool:
    """By the database's clock; of two that ask at once, one is told yes."""
    return await fetch_one(conn, _TURN, {"name": name, "every": every_s}) is not None


async def home(conn: Connection) -> str:
    """Drawn once."""
    await conn.execute(
        "INSERT INTO upkeep_notes (name, value) VALUES ('home', gen_random_uuid()::text) ON CONFLICT DO NOTHING"
    )
    row = await fetch_one(conn, "SELECT value FROM upkeep_notes WHERE name = 'home'")
    assert row is not None
    return str(row["value"])
