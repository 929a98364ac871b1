"""The answer pool over the memory store: all its tasks are looked at, which is for tests only."""

from collections.abc import Sequence

from cope.adapters.memory.tables import Tables
from cope.core.lifecycle import TaskState
from cope.ports.answer_pool import MOST_FOUND, Pooled, PoolQuestion


class AnswerPoolMixin:
    """Part of `MemoryStore`."""

    _db: Tables

    async def pooled(self, questions: Sequence[PoolQuestion]) -> list[tuple[Pooled, ...]]:
        """The latest first."""
        return [self._pooled(question) for question in questions]

    def _pooled(self, question: PoolQuestion) -> tuple[Pooled, ...]:
        mine = [
            row
            for row in self._db.tasks.values()
            if row.new.pool == question.key and row.project_id == question.project_id and row.state is TaskState.DONE
        ]
        latest = sorted(mine, key=lambda row: row.id, reverse=True)[:MOST_FOUND]
        return tuple(Pooled(row.id, row.history) for row in latest)
