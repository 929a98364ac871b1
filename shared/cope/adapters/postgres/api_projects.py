"""Projects, keys, caps and files: `ApiStore`'s part for the operator and for uploads."""

from typing import Any

import psycopg

from cope.adapters.postgres.alerts import rearm
from cope.adapters.postgres.api_keys import ApiKeys, insert_key
from cope.adapters.postgres.blobs import delete_file, insert_file, refuse_over
from cope.adapters.postgres.budgets import BudgetKey, change_cap
from cope.adapters.postgres.counters import BatchDeltas
from cope.adapters.postgres.database import Connection, Database, fetch, fetch_one
from cope.adapters.postgres.journal import Note, write_notes
from cope.adapters.postgres.paging import page_of
from cope.adapters.postgres.records import budget_of, file_of, project_of
from cope.adapters.postgres.sealing import Sealer
from cope.adapters.postgres.settlement import batches_in_progress
from cope.core.budget import AUDIT_SCOPE, PROJECT_SCOPE, WHOLE_LIFE, Scope, scope_kind
from cope.core.errors import Conflict, NotFound
from cope.core.event_types import project_turns
from cope.core.ids import FileId, ProjectId
from cope.core.money import NanoUSD
from cope.core.records import ApiKey, Budget, Project, StoredFile
from cope.core.restored import not_reconciled
from cope.ports.retention import Deleted
from cope.ports.store import Page

_MONTH = "SELECT to_char(now() AT TIME ZONE time_zone, 'YYYY-MM') AS month FROM projects WHERE id = %s"

_CALLED = {"projects": "project", "api_keys": "key", "batches": "batch"}

_BUDGETS = f"""
SELECT %(project)s AS project_id, s.scope, s.month, CASE WHEN b.scope IS NULL THEN s.cap ELSE b.cap END AS cap,
  coalesce(b.spent, 0) AS spent, coalesce(b.reserved, 0) AS reserved,
  coalesce(b.unconfirmed, 0) AS unconfirmed, coalesce(b.overrun, 0) AS overrun
FROM (
  SELECT 0 AS place, '{PROJECT_SCOPE}' AS scope, %(month)s AS month, cap FROM projects WHERE id = %(project)s
  UNION ALL SELECT 1, '{AUDIT_SCOPE}', %(month)s, audit_cap FROM projects WHERE id = %(project)s AND audit_share > 0
  UNION ALL SELECT 2, id, %(month)s, cap FROM api_keys WHERE project_id = %(project)s
  UNION ALL SELECT 3, id, '{WHOLE_LIFE}', cap FROM batches WHERE project_id = %(project)s AND cap IS NOT NULL
    AND status IN ('validating', 'in_progress', 'finalizing', 'cancelling')
) s LEFT JOIN budgets b ON b.project_id = %(project)s AND b.scope = s.scope AND b.month = s.month
ORDER BY s.place, s.scope COLLATE "C"
"""  # noqa: S608


class ApiProjects(ApiKeys):
    """Every transaction says first whose rows it may see."""

    def __init__(self, db: Database, sealer: Sealer) -> None:
        super().__init__(db)
        self._sealer = sealer

    # ---- projects --------------------------------------------------------------------------------------------------

    async def create_project(self, project: Project, webhook_secret: str) -> Project:
        """The project as stored."""
        async with self._db.transaction(project=project.id) as conn:
            await self._insert_project(conn, project, webhook_secret)
            row = await fetch_one(conn, "SELECT * FROM projects WHERE id = %s", [project.id])
        return project if row is None else project_of(row)

    async def ensure_project(self, project: Project, key: ApiKey, webhook_secret: str) -> None:
        """Nothing where a key of this hash exists, revoked or not, nor where the project does: its key may have been
        rotated since. Two starts at once: one waits for the other."""
        async with self._db.transaction(project=project.id, key_hash=key.hash.hex()) as conn:
            await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [key.hash.hex()])
            if await fetch_one(conn, "SELECT FROM api_keys WHERE hash = %s", [key.hash]) is not None:
                return
            if await fetch_one(conn, "SELECT FROM projects WHERE id = %s", [project.id]) is not None:
                return
            await self._insert_project(conn, project, webhook_secret)
            await insert_key(conn, key)

    async def list_projects(self, *, after: ProjectId | None, limit: int) -> Page[Project]:
        """Oldest first."""
        async with self._db.transaction(operator="on") as conn:
            rows = await fetch(
                conn,
                "SELECT * FROM projects WHERE %s::text IS NULL OR id > %s ORDER BY id LIMIT %s",
                [after, after, limit + 1],
            )
        return page_of([project_of(row) for row in rows], limit)

    async def get_project(self, project_id: ProjectId) -> Project | None:
        """The project, or None."""
        async with self._db.transaction(project=project_id) as conn:
            row = await fetch_one(conn, "SELECT * FROM projects WHERE id = %s", [project_id])
        return None if row is None else project_of(row)

    async def update_project(
        self,
        project_id: ProjectId,
        *,
        name: str | None = None,
        paused: bool | None = None,
        pause_unparsable: bool | None = None,
        default_kind: str | None = None,
        time_zone: str | None = None,
        archived: bool | None = None,
    ) -> Project | None:
        """What is None stays as it is. A pause stops the clock of the batches in progress."""
        async with self._db.transaction(project=project_id) as conn:
            deltas, before = BatchDeltas(), None
            if paused is not None or archived is not None:
                deltas.touch(await batches_in_progress(conn, [project_id]))
                await deltas.lock(conn)
                before = await fetch_one(
                    conn, "SELECT paused, archived_at FROM projects WHERE id = %s FOR NO KEY UPDATE", [project_id]
                )
            row = await _guarded(
                conn,
                """
                UPDATE projects SET name = coalesce(%(name)s, name), paused = coalesce(%(paused)s, paused),
                  pause_unparsable = coalesce(%(pause_unparsable)s, pause_unparsable),
                  default_kind = coalesce(%(default_kind)s, default_kind),
                  time_zone = coalesce(%(time_zone)s, time_zone),
                  archived_at = CASE WHEN %(archived)s::bool IS NULL THEN archived_at WHEN %(archived)s THEN now() END
                WHERE id = %(id)s RETURNING *
                """,
                {
                    "id": project_id,
                    "name": name,
                    "paused": paused,
                    "pause_unparsable": pause_unparsable,
                    "default_kind": default_kind,
                    "time_zone": time_zone,
                    "archived": archived,
                },
            )
            if row is not None:
                await deltas.write(conn)
            if row is not None and before is not None:
                types = project_turns(
                    was=(before["paused"], before["archived_at"] is not None),
                    now=(row["paused"], row["archived_at"] is not None),
                )
                await write_notes(conn, [Note(project_id, type_) for type_ in types])
        return None if row is None else project_of(row)

    async def _insert_project(self, conn: Connection, project: Project, webhook_secret: str) -> None:
        await conn.execute(
            """
            INSERT INTO projects (id, name, created_at, time_zone, cap, default_kind, paused, archived_at,
                                  pause_unparsable, webhook_secret)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            """,
            [
                project.id,
                project.name,
                project.created_at,
                project.time_zone,
                project.cap,
                project.default_kind,
                project.paused,
                project.archived_at,
                project.pause_unparsable,
                self._sealer.seal(webhook_secret),
            ],
        )

    # ---- money -----------------------------------------------------------------------------------------------------

    async def set_cap(self, project_id: ProjectId, cap: NanoUSD | None, *, scope: str = PROJECT_SCOPE) -> Budget:
        """This month's row and any later one get the new cap; the ceiling stays over what was granted."""
        async with self._db.transaction(project=project_id) as conn:
            table, column, own = _owner_of(project_id, scope)
            before = await fetch_one(
                conn,
                f"SELECT {column} AS cap FROM {table} WHERE id = %s FOR NO KEY UPDATE",  # noqa: S608
                [own],
            )
            if before is None:
                raise NotFound(f"There is no {_CALLED[table]} {own!r}.")
            await conn.execute(f"UPDATE {table} SET {column} = %s WHERE id = %s", [cap, own])  # noqa: S608
            month = WHOLE_LIFE if table == "batches" else await self._month(conn, project_id)
            rows = await change_cap(conn, BudgetKey(scope, project_id, month), cap)
            budget = next(budget_of(row) for row in rows if row["month"] == month)
            if scope == PROJECT_SCOPE:
                await rearm(conn, project_id, before["cap"], budget)
            data = {"scope": scope, "cap_nanousd": cap}
            await write_notes(
                conn, [Note(project_id, "budget.cap_changed", own if table == "batches" else None, data=data)]
            )
        return budget

    async def get_budget(
        self, project_id: ProjectId, month: str | None = None, *, scope: str = PROJECT_SCOPE
    ) -> Budget:
        """Raises `NotFound` if there is no such project, key or batch."""
        table, column, own = _owner_of(project_id, scope)
        async with self._db.transaction(project=project_id) as conn:
            month = WHOLE_LIFE if table == "batches" else month or await self._month(conn, project_id)
            row = await fetch_one(
                conn,
                f"""
                SELECT %(project)s AS project_id, %(scope)s AS scope, %(month)s AS month,
                  CASE WHEN b.month IS NULL THEN o.{column} ELSE b.cap END AS cap,
                  coalesce(b.spent, 0) AS spent, coalesce(b.reserved, 0) AS reserved,
                  coalesce(b.unconfirmed, 0) AS unconfirmed, coalesce(b.overrun, 0) AS overrun
                FROM {table} o LEFT JOIN budgets b
                  ON b.project_id = %(project)s AND b.scope = %(scope)s AND b.month = %(month)s
                WHERE o.id = %(own)s
                """,  # noqa: S608
                {"project": project_id, "scope": scope, "month": month, "own": own},
            )
        if row is None:
            raise NotFound(f"There is no {_CALLED[table]} {own!r}.")
        return budget_of(row)

    async def list_budgets(self, project_id: ProjectId) -> tuple[Budget, ...]:
        """The project's first, then its audits', then keys, then batches, each by id."""
        async with self._db.transaction(project=project_id) as conn:
            rows = await fetch(conn, _BUDGETS, {"project": project_id, "month": await self._month(conn, project_id)})
        return tuple(budget_of(row) for row in rows)

    @staticmethod
    async def _month(conn: Connection, project_id: ProjectId) -> str:
        row = await fetch_one(conn, _MONTH, [project_id])
        if row is None:
            raise NotFound(f"There is no project {project_id!r}.")
        return str(row["month"])

    # ---- files -----------------------------------------------------------------------------------------------------

    async def create_file(self, file: StoredFile, *, most_bytes: int | None = None) -> StoredFile:
        """The row as stored."""
        async with self._db.transaction(project=file.project_id) as conn:
            if most_bytes is not None:
                await refuse_over(conn, file, most_bytes)
            return await insert_file(conn, file)

    async def get_file(self, project_id: ProjectId, file_id: FileId) -> StoredFile | None:
        """This project's file, or None."""
        async with self._db.transaction(project=project_id) as conn:
            row = await fetch_one(
                conn,
                "SELECT * FROM files WHERE id = %s AND project_id = %s AND (expires_at IS NULL OR expires_at > now())",
                [file_id, project_id],
            )
        return None if row is None else file_of(row)

    async def list_files(
        self, project_id: ProjectId, *, after: FileId | None, limit: int, ascending: bool, purpose: str | None
    ) -> Page[StoredFile]:
        """By id, which is by age."""
        beyond, order = (">", "ASC") if ascending else ("<", "DESC")
        async with self._db.transaction(project=project_id) as conn:
            rows = await fetch(
                conn,
                f"""
                SELECT * FROM files WHERE project_id = %(project)s
                  AND (%(after)s::text IS NULL OR id {beyond} %(after)s)
                  AND (%(purpose)s::text IS NULL OR purpose = %(purpose)s)
                  AND (expires_at IS NULL OR expires_at > now()) ORDER BY id {order} LIMIT %(limit)s
                """,  # noqa: S608
                {"project": project_id, "after": after, "purpose": purpose, "limit": limit + 1},
            )
        return page_of([file_of(row) for row in rows], limit)

    async def delete_file(self, project_id: ProjectId, file_id: FileId) -> Deleted | None:
        """None where the project has no such file."""
        async with self._db.transaction(project=project_id) as conn:
            deleted = await delete_file(conn, project_id, file_id)
            reader = await fetch_one(
                conn,
                """
                SELECT id FROM batches b WHERE project_id = %s AND input_file_id = %s
                  AND status IN ('validating', 'in_progress', 'finalizing', 'cancelling')
                  AND NOT EXISTS (SELECT FROM batch_retries r WHERE r.batch_id = b.id) LIMIT 1
                """,
                [project_id, file_id],
            )
            if reader is not None:
                raise Conflict(f"File {file_id!r} is being read by batch {reader['id']!r}.", code="file_in_use")
        return deleted


def _owner_of(project_id: str, scope: str) -> tuple[str, str, str]:
    """The table, the cap's column and the id of what a budget's scope belongs to."""
    match scope_kind(scope):
        case Scope.PROJECT:
            return "projects", "cap", project_id
        case Scope.AUDIT:
            return "projects", "audit_cap", project_id
        case Scope.BATCH:
            return "batches", "cap", scope
        case _:
            return "api_keys", "cap", scope


async def _guarded(conn: Connection, query: str, params: object) -> dict[str, Any] | None:
    """An update of a project, which a restored store refuses to let go on (migration 0019)."""
    try:
        return await fetch_one(conn, query, params)
    except psycopg.DatabaseError as refused:
        if refused.sqlstate == "CP001":
            raise not_reconciled() from None
        raise
