"""The answer pool's side of the store: ended tasks found by what was asked of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cope.core.history import FinishedStep
from cope.core.ids import ProjectId, TaskId

MOST_FOUND = 3
"""Tasks found for one key: the latest may have been cut short, or its prompts be others by now, where others fit."""


@dataclass(frozen=True, slots=True)
class PoolQuestion:
    """Whose pool is read, by which `cope.core.answer_pool.pool_key`."""

    project_id: ProjectId
    key: bytes


@dataclass(frozen=True, slots=True)
class Pooled:
    """A task that was answered, with the steps it carried out, as far as they are kept."""

    task_id: TaskId
    steps: tuple[FinishedStep, ...]


class AnswerPool(Protocol):
    """Reading stored results."""

    async def pooled(self, questions: Sequence[PoolQuestion]) -> list[tuple[Pooled, ...]]:
        """For each question, in order, up to `MOST_FOUND` answered tasks of that project and key, the latest first.
        Never another project's, one that keeps no texts, or one that was itself answered from the pool."""
        ...
