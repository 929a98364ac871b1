"""A sink that keeps what the relay publishes."""

from collections.abc import Sequence

from cope.core.errors import SinkUnavailable
from cope.core.records import Event


class RecordingSink:
    """`taken` keeps every event in order. `fail_after` holds, for publications to come, after how many events each
    fails; then they all succeed."""

    def __init__(self, *, fail_after: Sequence[int] = ()) -> None:
        self.taken: list[Event] = []
        self.opened = 0
        self._fail_after = list(fail_after)

    def open(self) -> "RecordingSink":
        """As a new sink over the same other side."""
        self.opened += 1
        return self

    async def publish(self, events: Sequence[Event]) -> None:
        """Take them, or the first few of them."""
        some = self._fail_after.pop(0) if self._fail_after else None
        self.taken += events[:some]
        if some is not None:
            raise SinkUnavailable(f"only {some} were taken")

    async def aclose(self) -> None:
        """Nothing to close."""
