"""Files' rows and the bytes behind them: equal files of a project share one blob, counted.

A blob's name is never used twice. Once its count is 0 no statement raises it again, so its bytes may be deleted by
anybody, at any time, more than once: that is all that keeps a row from ever reading bytes that are gone.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace

from psycopg.errors import UniqueViolation

from cope.adapters.postgres.database import Connection, Row, fetch, fetch_one
from cope.core.errors import Conflict, TooLarge
from cope.core.ids import FileId
from cope.core.records import StoredFile
from cope.ports.retention import Deleted, Stored

_PRODUCED = "batch_output"

# A blob that is being freed at this moment is waited for; freed, it is out of the index and this becomes a new one.
_SHARE = """
INSERT INTO blobs AS b (id, project_id, sha256, bytes, refs, shared)
VALUES (%(id)s, %(project_id)s, %(sha256)s, %(bytes)s, 1, true)
ON CONFLICT (project_id, sha256) WHERE refs > 0 AND shared DO UPDATE SET refs = b.refs + 1
RETURNING id
"""

# Results name tasks and are never equal to anything: not worth an entry in the index.
_OWN = """
INSERT INTO blobs (id, project_id, sha256, bytes, refs, shared)
VALUES (%(id)s, %(project_id)s, %(sha256)s, %(bytes)s, 1, false) RETURNING id
"""

_DEAD = """
INSERT INTO blobs (id, project_id, sha256, bytes, refs, shared, freed_at)
VALUES (%(id)s, %(project_id)s, %(sha256)s, %(bytes)s, 0, false, now()) ON CONFLICT (id) DO NOTHING
"""

_FILE = """
INSERT INTO files (id, project_id, filename, purpose, bytes, lines, sha256, created_at, expires_at, blob_id)
VALUES (%(id)s, %(project_id)s, %(filename)s, %(purpose)s, %(bytes)s, %(lines)s, %(sha256)s, %(created_at)s,
        %(expires_at)s, %(blob)s)
"""

_STORED = """
SELECT coalesce((SELECT sum(bytes) FROM blobs WHERE project_id = %(project)s AND refs > 0), 0)
  + coalesce((SELECT sum(bytes) FROM files WHERE project_id = %(project)s AND blob_id IS NULL), 0) AS bytes,
  (SELECT count(*) FROM files WHERE project_id = %(project)s) AS files
"""

FREED = (
    "UPDATE blobs SET refs = refs - %(fewer)s, freed_at = CASE WHEN refs = %(fewer)s THEN now() END WHERE id = %(id)s"
)


async def insert_file(conn: Connection, file: StoredFile) -> StoredFile:
    """A file's row, over the blob of its content. Bytes of its own that are not needed become a dead blob: whoever
    brought them may delete them at once, and upkeep does if he can't any more."""
    values = asdict(file)
    try:
        blob = await fetch_one(conn, _OWN if file.purpose == _PRODUCED else _SHARE, values)
    except UniqueViolation:
        raise Conflict(
            f"The bytes of file {file.id!r} were collected: it came too late.", code="upload_too_late"
        ) from None
    assert blob is not None
    stored = replace(file, blob=FileId(blob["id"]))
    if stored.blob != file.id:
        await conn.execute(_DEAD, values)
    await conn.execute(_FILE, asdict(stored))
    return stored


async def refuse_over(conn: Connection, file: StoredFile, most: int) -> None:
    """Raises `TooLarge` if with this file its project's take over `most` bytes. Two wait for each other."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended('stored ' || %s, 0))", [file.project_id])
    taken = await stored(conn, file.project_id)
    known = await fetch_one(
        conn,
        "SELECT FROM blobs WHERE project_id = %s AND sha256 = %s AND refs > 0 AND shared",
        [file.project_id, file.sha256],
    )
    if known is None and taken.bytes + file.bytes > most:
        raise TooLarge(
            f"This project's files take {taken.bytes} bytes, and may take {most}: delete some, or have them expire.",
            code="project_storage_limit",
        )


async def stored(conn: Connection, project_id: str) -> Stored:
    """What a project's files take."""
    row = await fetch_one(conn, _STORED, {"project": project_id})
    return Stored(0, 0) if row is None else Stored(row["files"], int(row["bytes"]))


async def delete_file(conn: Connection, project_id: str, file_id: str) -> Deleted | None:
    """One file's row, and its part in its blob."""
    row = await fetch_one(
        conn, "DELETE FROM files WHERE id = %s AND project_id = %s RETURNING *", [file_id, project_id]
    )
    if row is None:
        return None
    freed = await release(conn, [row])
    return Deleted(FileId(freed[0]) if freed else None)


async def release(conn: Connection, rows: Sequence[Row]) -> list[str]:
    """These rows of `files` were deleted: the names of bytes that nobody reads any more. Locked in order."""
    freed: list[str] = []
    fewer: dict[str, int] = {}
    for row in rows:
        if row["blob_id"] is None:  # from before blobs: its bytes are its own
            await conn.execute(_DEAD, row)
            freed.append(row["id"])
        else:
            fewer[row["blob_id"]] = fewer.get(row["blob_id"], 0) + 1
    for blob_id in sorted(fewer):
        left = await fetch(conn, f"{FREED} RETURNING refs", {"id": blob_id, "fewer": fewer[blob_id]})
        freed += [blob_id for blob in left if blob["refs"] == 0]
    return freed
