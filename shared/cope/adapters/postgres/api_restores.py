"""`ApiStore`'s part about a store that was restored: the notice, and letting its projects go on."""

from datetime import datetime
from typing import Any

from cope.adapters.postgres.api_ledger import ApiLedger
from cope.adapters.postgres.counters import BatchDeltas
from cope.adapters.postgres.database import fetch_one
from cope.adapters.postgres.settlement import batches_in_progress
from cope.core.ids import ProjectId
from cope.core.restored import RestoreNotice, not_reconciled


class ApiRestores(ApiLedger):
    """Rows of no project."""

    async def restore_notice(self) -> RestoreNotice | None:
        """One row at most."""
        async with self._db.transaction(operator="on") as conn:
            row = await fetch_one(conn, "SELECT * FROM restores WHERE released_at IS NULL")
        return None if row is None else _notice(row)

    async def note_reconciled(self, start: datetime, until: datetime) -> RestoreNotice | None:
        """The row is locked between the look and the mark."""
        async with self._db.transaction(operator="on") as conn:
            row = await fetch_one(conn, "SELECT * FROM restores WHERE released_at IS NULL FOR UPDATE")
            if row is None:
                return None
            if not _notice(row).covered_by(start, until):
                return _notice(row)
            row = await fetch_one(conn, "UPDATE restores SET reconciled_at = now() RETURNING *")
        return None if row is None else _notice(row)

    async def release_restore(self, *, unreconciled: bool = False) -> RestoreNotice | None:
        """First the notice, then each project in a transaction of its own, under its own row-level security."""
        async with self._db.transaction(operator="on") as conn:
            row = await fetch_one(conn, "SELECT * FROM restores FOR UPDATE")
            if row is None:
                return None
            notice = _notice(row)
            if row["released_at"] is None and notice.reconciled_at is None and not unreconciled:
                raise not_reconciled()
            await conn.execute("UPDATE restores SET released_at = coalesce(released_at, now())")
        for project_id in notice.held:
            await self._let_go_on(project_id)
        async with self._db.transaction(operator="on") as conn:
            await conn.execute("DELETE FROM restores WHERE held = '{}'")
        return notice

    async def _let_go_on(self, project_id: ProjectId) -> None:
        async with self._db.transaction(project=project_id) as conn:
            deltas = BatchDeltas()
            deltas.touch(await batches_in_progress(conn, [project_id]))
            await deltas.lock(conn)
            await conn.execute("UPDATE projects SET paused = false WHERE id = %s", [project_id])
            await conn.execute("UPDATE restores SET held = array_remove(held, %s::text)", [project_id])
            await deltas.write(conn)


def _notice(row: dict[str, Any]) -> RestoreNotice:
    return RestoreNotice(
        backup_at=row["backup_at"],
        restored_at=row["restored_at"],
        reconciled_at=row["reconciled_at"],
        held=tuple(ProjectId(one) for one in row["held"]),
    )
