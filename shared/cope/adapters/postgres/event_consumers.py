"""Consumer groups: one row each. Everything that decides is one conditional UPDATE, so that two members can race."""

from cope.adapters.postgres.database import Connection, Database, Row, fetch, fetch_one
from cope.core.event_log import Consumer
from cope.core.event_refusals import MOST_GROUPS, busy, refused_commit, too_many, unknown
from cope.core.ids import ProjectId

_SEE = """
SELECT c.*, CASE WHEN c.member_until > now() THEN c.member END AS reader,
  coalesce((SELECT last FROM event_heads WHERE project_id = c.project_id), 0) AS head,
  (SELECT min("offset") FROM event_log WHERE project_id = c.project_id) AS start
FROM event_consumers c WHERE c.project_id = %s
"""

_JOIN = """
UPDATE event_consumers SET generation = generation + CASE WHEN member = %(member)s THEN 0 ELSE 1 END,
  member = %(member)s, member_until = now() + %(session)s * interval '1 second'
WHERE project_id = %(project)s AND name = %(name)s
  AND (member IS NULL OR member = %(member)s OR member_until <= now())
"""

# A commit also proves that its member lives.
_COMMIT = """
UPDATE event_consumers SET committed = %(offset)s, committed_at = now()
WHERE project_id = %(project)s AND name = %(name)s AND committed <= %(offset)s
  AND %(offset)s <= coalesce((SELECT last FROM event_heads WHERE project_id = %(project)s), 0)
  AND CASE WHEN %(generation)s::int IS NULL THEN member IS NULL OR member_until <= now()
      ELSE generation = %(generation)s END
"""


class ApiEventConsumers:
    """`EventLog`'s consumer groups, as role `cope_api`."""

    _db: Database

    async def put_consumer(
        self, project_id: ProjectId, name: str, *, types: frozenset[str] | None, committed: int
    ) -> Consumer:
        """An existing group keeps its place."""
        async with self._db.transaction(project=project_id) as conn:
            others = await fetch_one(
                conn, "SELECT count(*) AS n FROM event_consumers WHERE project_id = %s AND name <> %s",
                [project_id, name],
            )  # fmt: skip
            if others is not None and others["n"] >= MOST_GROUPS:
                raise too_many()
            await conn.execute(
                """
                INSERT INTO event_consumers (project_id, name, types, committed) VALUES (%s, %s, %s, %s)
                ON CONFLICT (project_id, name) DO UPDATE SET types = excluded.types
                """,
                [project_id, name, None if types is None else sorted(types), committed],
            )
            return await _need(conn, project_id, name)

    async def get_consumer(self, project_id: ProjectId, name: str) -> Consumer | None:
        """This project's group, or None."""
        async with self._db.transaction(project=project_id) as conn:
            return await _see(conn, project_id, name)

    async def list_consumers(self, project_id: ProjectId) -> tuple[Consumer, ...]:
        """By name."""
        async with self._db.transaction(project=project_id) as conn:
            rows = await fetch(conn, _SEE + "ORDER BY c.name", [project_id])
        return tuple(_consumer(row) for row in rows)

    async def delete_consumer(self, project_id: ProjectId, name: str) -> bool:
        """Its place is forgotten."""
        async with self._db.transaction(project=project_id) as conn:
            gone = await conn.execute(
                "DELETE FROM event_consumers WHERE project_id = %s AND name = %s", [project_id, name]
            )
        return gone.rowcount == 1

    async def join_consumer(self, project_id: ProjectId, name: str, *, member: str, session_s: float) -> Consumer:
        """The same member goes on in its generation, even after its time was over, unless another came between."""
        async with self._db.transaction(project=project_id) as conn:
            values = {"project": project_id, "name": name, "member": member, "session": session_s}
            joined = await conn.execute(_JOIN, values)
            consumer = await _need(conn, project_id, name)
            if not joined.rowcount:
                raise busy(consumer)
            return consumer

    async def commit_offset(self, project_id: ProjectId, name: str, *, offset: int, generation: int | None) -> Consumer:
        """All conditions in one statement; a refusal then says which it was."""
        async with self._db.transaction(project=project_id) as conn:
            values = {"project": project_id, "name": name, "offset": offset, "generation": generation}
            done = await conn.execute(_COMMIT, values)
            consumer = await _need(conn, project_id, name)
            if not done.rowcount:
                raise refused_commit(consumer, offset, generation)
            return consumer

    async def seek_consumer(self, project_id: ProjectId, name: str, *, committed: int) -> Consumer:
        """Whoever was reading has to join again."""
        async with self._db.transaction(project=project_id) as conn:
            await conn.execute(
                """
                UPDATE event_consumers SET committed = %s, committed_at = now(), generation = generation + 1,
                  member = NULL, member_until = NULL WHERE project_id = %s AND name = %s
                """,
                [committed, project_id, name],
            )
            return await _need(conn, project_id, name)


async def _see(conn: Connection, project_id: ProjectId, name: str) -> Consumer | None:
    row = await fetch_one(conn, _SEE + "AND c.name = %s", [project_id, name])
    return None if row is None else _consumer(row)


async def _need(conn: Connection, project_id: ProjectId, name: str) -> Consumer:
    consumer = await _see(conn, project_id, name)
    if consumer is None:
        raise unknown(name)
    return consumer


def _consumer(row: Row) -> Consumer:
    return Consumer(
        project_id=ProjectId(row["project_id"]),
        name=row["name"],
        types=None if row["types"] is None else frozenset(row["types"]),
        committed=row["committed"],
        generation=row["generation"],
        member=row["reader"],
        member_until=row["member_until"] if row["reader"] is not None else None,
        created_at=row["created_at"],
        committed_at=row["committed_at"],
        start=row["head"] + 1 if row["start"] is None else row["start"],
        head=row["head"],
    )
