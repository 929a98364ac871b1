"""`RetentionReads` on Postgres, mixed into the API's store."""

from cope.adapters.postgres.blobs import stored
from cope.adapters.postgres.database import Database, fetch_one
from cope.adapters.postgres.records import project_of
from cope.core.ids import FileId, ProjectId
from cope.core.records import Project
from cope.ports.retention import Stored


class RetentionReading:
    """A project's own, but for the operator's report."""

    _db: Database

    async def stored(self, project_id: ProjectId) -> Stored:
        """What the project's files take."""
        async with self._db.transaction(project=project_id) as conn:
            return await stored(conn, project_id)

    async def expired_results(self, project_id: ProjectId, file_id: FileId) -> str | None:
        """Reads the project's batches: asked only for a file that is not there."""
        async with self._db.transaction(project=project_id) as conn:
            row = await fetch_one(
                conn,
                "SELECT id FROM batches WHERE project_id = %s AND %s IN (output_file_id, error_file_id) LIMIT 1",
                [project_id, file_id],
            )
        return None if row is None else str(row["id"])

    async def set_keep_days(self, project_id: ProjectId, keep_days: int | None) -> Project | None:
        """None if there is no such project."""
        async with self._db.transaction(project=project_id) as conn:
            row = await fetch_one(
                conn, "UPDATE projects SET keep_days = %s WHERE id = %s RETURNING *", [keep_days, project_id]
            )
        return None if row is None else project_of(row)

    async def retention_report(self) -> str | None:
        """The operator's: the API asks for the admin key."""
        async with self._db.connection() as conn:
            row = await fetch_one(conn, "SELECT value FROM upkeep_notes WHERE name = 'retention'")
        return None if row is None else row["value"]
