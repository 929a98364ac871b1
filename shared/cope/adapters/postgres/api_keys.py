"""API keys: found by the hash of their secret, made, rotated and revoked."""

from datetime import datetime

from cope.adapters.postgres.database import Connection, Database, fetch, fetch_one
from cope.adapters.postgres.records import key_of
from cope.core.ids import KeyId, ProjectId
from cope.core.key_scopes import scope_names
from cope.core.records import ApiKey

_LIVE = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"

_FIND = f"""
SELECT * FROM api_keys
WHERE (hash = %(hash)s OR (previous_hash = %(hash)s AND previous_until > now())) AND {_LIVE}
"""  # noqa: S608

_ROTATE = f"""
UPDATE api_keys SET hash = %(new)s, hint = %(hint)s, rotated_at = now(), expires_at = coalesce(%(expires)s, expires_at),
  previous_hash = CASE WHEN %(overlap)s = 0 THEN NULL WHEN previous_until > now() THEN previous_hash ELSE hash END,
  previous_until = CASE WHEN %(overlap)s > 0 THEN now() + %(overlap)s * interval '1 second' END
WHERE id = %(id)s AND project_id = %(project)s AND {_LIVE} RETURNING *
"""  # noqa: S608


class ApiKeys:
    """Every transaction says first whose rows it may see: a project's, or the one key of a hash."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def find_key(self, key_hash: bytes) -> ApiKey | None:
        """A live key of a project that is not archived. `last_used_at` is stamped once a minute at most."""
        async with self._db.transaction(key_hash=key_hash.hex()) as conn:
            row = await fetch_one(conn, _FIND, {"hash": key_hash})
            if row is None:
                return None
            await conn.execute("SELECT set_config('cope.project', %s, true)", [row["project_id"]])
            project = await fetch_one(conn, "SELECT archived_at FROM projects WHERE id = %s", [row["project_id"]])
            if project is None or project["archived_at"] is not None:
                return None
            await conn.execute(
                """
                UPDATE api_keys SET last_used_at = now()
                WHERE id = %s AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
                """,
                [row["id"]],
            )
        return key_of(row)

    async def create_key(self, key: ApiKey) -> ApiKey:
        """The key as stored."""
        async with self._db.transaction(project=key.project_id) as conn:
            await insert_key(conn, key)
        return key

    async def list_keys(self, project_id: ProjectId) -> tuple[ApiKey, ...]:
        """Oldest first, revoked ones included."""
        async with self._db.transaction(project=project_id) as conn:
            rows = await fetch(conn, "SELECT * FROM api_keys WHERE project_id = %s ORDER BY id", [project_id])
        return tuple(key_of(row) for row in rows)

    async def revoke_key(self, project_id: ProjectId, key_id: KeyId) -> bool:
        """False where the project has no such live key."""
        async with self._db.transaction(project=project_id) as conn:
            revoked = await conn.execute(
                "UPDATE api_keys SET revoked_at = now() WHERE id = %s AND project_id = %s AND revoked_at IS NULL",
                [key_id, project_id],
            )
        return revoked.rowcount == 1

    async def rotate_key(
        self,
        project_id: ProjectId,
        key_id: KeyId,
        *,
        new_hash: bytes,
        hint: str,
        overlap_s: int,
        expires_at: datetime | None = None,
    ) -> ApiKey | None:
        """One statement: there is no moment at which neither secret works."""
        async with self._db.transaction(project=project_id) as conn:
            row = await fetch_one(
                conn,
                _ROTATE,
                {
                    "new": new_hash,
                    "hint": hint,
                    "overlap": overlap_s,
                    "expires": expires_at,
                    "id": key_id,
                    "project": project_id,
                },
            )
        return None if row is None else key_of(row)


async def insert_key(conn: Connection, key: ApiKey) -> None:
    """A new key's row."""
    await conn.execute(
        """
        INSERT INTO api_keys (id, project_id, name, hash, hint, created_at, revoked_at, last_used_at, cap, scopes,
                              expires_at, rotated_at, previous_hash, previous_until)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        [
            key.id,
            key.project_id,
            key.name,
            key.hash,
            key.hint,
            key.created_at,
            key.revoked_at,
            key.last_used_at,
            key.cap,
            scope_names(key.scopes),
            key.expires_at,
            key.rotated_at,
            key.previous_hash,
            key.previous_until,
        ],
    )
