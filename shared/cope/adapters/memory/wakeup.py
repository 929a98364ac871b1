"""Wake-ups that are only counted."""


class MemoryWakeUp:
    """Keeps the names of the queues poked, in order. A test may hand it `broken=True`: then every hint is lost."""

    def __init__(self, *, broken: bool = False) -> None:
        self.poked: list[str] = []
        self._broken = broken

    async def poke(self, queue: str) -> None:
        """Note the hint."""
        if not self._broken:
            self.poked.append(queue)
