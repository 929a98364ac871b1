"""`RetentionStore` on Postgres, mixed into the worker's store: each method short transactions over its statements."""

from collections.abc import Sequence

from cope.adapters.postgres import retention, stored_files
from cope.adapters.postgres.database import Database
from cope.adapters.postgres.retention_look import look
from cope.core.ids import FileId
from cope.core.keeping import Keeping
from cope.ports.retention import Pruned, RetentionReport


class RetentionMethods:
    """Over all projects."""

    _db: Database

    async def take_turn(self, name: str, *, every_s: float) -> bool:
        """Of two processes that ask at once, one is told yes."""
        async with self._db.transaction() as conn:
            return await stored_files.take_turn(conn, name, every_s=every_s)

    async def expire_files(self, keeping: Keeping, *, limit: int) -> int:
        """How many rows were deleted."""
        async with self._db.transaction() as conn:
            return await stored_files.expire_files(conn, keeping, limit=limit)

    async def freed_bytes(self, *, limit: int) -> Sequence[FileId]:
        """The longest dead first."""
        async with self._db.connection() as conn:
            return await stored_files.freed_bytes(conn, limit=limit)

    async def emptied(self, blobs: Sequence[FileId]) -> None:
        """Remembered for a week."""
        async with self._db.transaction() as conn:
            await stored_files.emptied(conn, blobs)

    async def disown(self, names: Sequence[FileId]) -> Sequence[FileId]:
        """Those of no file."""
        async with self._db.transaction() as conn:
            return await stored_files.disown(conn, names)

    async def home(self) -> str:
        """Drawn at the first call ever."""
        async with self._db.transaction() as conn:
            return await stored_files.home(conn)

    async def prune(self, keeping: Keeping, *, limit: int) -> Pruned:
        """Many short transactions."""
        return await retention.prune(self._db, keeping, limit=limit)

    async def look(self, keeping: Keeping) -> RetentionReport:
        """Changes nothing."""
        async with self._db.transaction() as conn:
            return await look(conn, keeping)

    async def put_retention_report(self, report: str) -> None:
        """In the place of the last one."""
        async with self._db.transaction() as conn:
            await conn.execute(
                "INSERT INTO upkeep_notes (name, value) VALUES ('retention', %s)"
                " ON CONFLICT (name) DO UPDATE SET value = excluded.value, at = now()",
                [report],
            )
