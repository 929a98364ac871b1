"""Consumer groups over the memory store."""

from cope.adapters.memory.tables import ConsumerRow, Tables
from cope.core.event_log import Consumer
from cope.core.event_refusals import MOST_GROUPS, busy, refused_commit, too_many, unknown
from cope.core.ids import ProjectId


class EventConsumersMixin:
    """As `EventLog` describes them. No method awaits: each is one transaction."""

    _db: Tables

    async def put_consumer(
        self, project_id: ProjectId, name: str, *, types: frozenset[str] | None, committed: int
    ) -> Consumer:
        """An existing group keeps its place."""
        row = self._db.consumers.get((project_id, name))
        if row is None:
            if sum(1 for owner, _ in self._db.consumers if owner == project_id) >= MOST_GROUPS:
                raise too_many()
            now = self._db.now()
            self._db.consumers[project_id, name] = ConsumerRow(types, committed, now, now)
        else:
            row.types = types
        return self._consumer(project_id, name)

    async def get_consumer(self, project_id: ProjectId, name: str) -> Consumer | None:
        """This project's group, or None."""
        return self._consumer(project_id, name) if (project_id, name) in self._db.consumers else None

    async def list_consumers(self, project_id: ProjectId) -> tuple[Consumer, ...]:
        """By name."""
        names = sorted(name for owner, name in self._db.consumers if owner == project_id)
        return tuple(self._consumer(project_id, name) for name in names)

    async def delete_consumer(self, project_id: ProjectId, name: str) -> bool:
        """Its place is forgotten."""
        return self._db.consumers.pop((project_id, name), None) is not None

    async def join_consumer(self, project_id: ProjectId, name: str, *, member: str, session_s: float) -> Consumer:
        """The same member goes on in its generation, even after its time was over, unless another came between."""
        row = self._need(project_id, name)
        if row.member not in {None, member} and row.member_until is not None and row.member_until > self._db.now():
            raise busy(self._consumer(project_id, name))
        if row.member != member:
            row.generation += 1
        row.member, row.member_until = member, self._db.later(session_s)
        return self._consumer(project_id, name)

    async def commit_offset(self, project_id: ProjectId, name: str, *, offset: int, generation: int | None) -> Consumer:
        """All conditions at once."""
        row, seen = self._need(project_id, name), self._consumer(project_id, name)
        current = seen.member is None if generation is None else generation == row.generation
        if not current or not row.committed <= offset <= seen.head:
            raise refused_commit(seen, offset, generation)
        row.committed, row.committed_at = offset, self._db.now()
        return self._consumer(project_id, name)

    async def seek_consumer(self, project_id: ProjectId, name: str, *, committed: int) -> Consumer:
        """Whoever was reading has to join again."""
        row = self._need(project_id, name)
        row.committed, row.committed_at = committed, self._db.now()
        row.generation, row.member, row.member_until = row.generation + 1, None, None
        return self._consumer(project_id, name)

    def _need(self, project_id: ProjectId, name: str) -> ConsumerRow:
        row = self._db.consumers.get((project_id, name))
        if row is None:
            raise unknown(name)
        return row

    def _consumer(self, project_id: ProjectId, name: str) -> Consumer:
        row, log = self._need(project_id, name), self._db.logs[project_id]
        lives = row.member_until is not None and row.member_until > self._db.now()
        return Consumer(
            project_id=project_id,
            name=name,
            types=row.types,
            committed=row.committed,
            generation=row.generation,
            member=row.member if lives else None,
            member_until=row.member_until if lives else None,
            created_at=row.created_at,
            committed_at=row.committed_at,
            start=log.start,
            head=log.head,
        )
