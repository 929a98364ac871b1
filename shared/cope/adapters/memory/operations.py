"""The operator's part over the memory store: the guard of a restored store, as `adapters/postgres/api_restores.py` has
it, and a database that is always well."""

from dataclasses import replace
from datetime import datetime

from cope.adapters.memory.standstill import refresh_project
from cope.adapters.memory.tables import Tables
from cope.core.doctor import OLDEST_SERVER, StoreFacts
from cope.core.restored import RestoreNotice, not_reconciled


class OperationsMixin:
    """Part of `MemoryStore`."""

    _db: Tables

    async def restore_notice(self) -> RestoreNotice | None:
        """The notice, or None."""
        return self._db.restored

    async def note_reconciled(self, start: datetime, until: datetime) -> RestoreNotice | None:
        """Marked if the span covers the gap."""
        notice = self._db.restored
        if notice is not None and notice.covered_by(start, until):
            self._db.restored = notice = replace(notice, reconciled_at=self._db.now())
        return notice

    async def release_restore(self, *, unreconciled: bool = False) -> RestoreNotice | None:
        """What the restore paused goes on."""
        notice = self._db.restored
        if notice is None:
            return None
        if notice.reconciled_at is None and not unreconciled:
            raise not_reconciled()
        self._db.restored = None
        for project_id in notice.held:
            row = self._db.projects[project_id]
            row.project = replace(row.project, paused=False)
            refresh_project(self._db, project_id)
        return notice

    async def facts(self) -> StoreFacts:
        """Memory has one schema, no roles and nobody to lead."""
        return StoreFacts(
            schema="memory",
            wanted_schema="memory",
            server=OLDEST_SERVER,
            now=self._db.now(),
            unguarded=(),
            loose_roles=(),
            ledger_ahead=True,
            led=True,
            workers=1,
            connections=1,
            max_connections=100,
        )
