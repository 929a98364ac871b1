"""Wake-ups that are only counted."""

from collections.abc import Sequence

from cope.core.ids import BatchId, TaskId


class MemoryWakeUp:
    """Keeps the names of the queues poked and what was announced, in order. `broken=True` loses every hint."""

    def __init__(self, *, broken: bool = False) -> None:
        self.poked: list[str] = []
        self.announced: list[TaskId | BatchId] = []
        self._broken = broken

    async def poke(self, queue: str) -> None:
        """Note the hint."""
        if not self._broken:
            self.poked.append(queue)

    async def announce(self, ended: Sequence[TaskId | BatchId]) -> None:
        """Note them."""
        if not self._broken:
            self.announced.extend(ended)
