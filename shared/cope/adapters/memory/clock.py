"""Time and chance that a test holds in its hand."""

import hashlib
from datetime import UTC, datetime, timedelta

from cope.core.ids import RANDOM_LETTERS, make_id


class FixedClock:
    """Stands still until it is told to move. `now` is aware, UTC."""

    def __init__(self, now: datetime = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)) -> None:
        self._now = now

    def now(self) -> datetime:
        """The present, as set."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let `seconds` (≥ 0) pass."""
        if seconds < 0:
            raise ValueError("time does not run backwards")
        self._now += timedelta(seconds=seconds)

    def set(self, now: datetime) -> None:
        """Move to an aware moment that is not before the present."""
        self.advance((now - self._now).total_seconds())


class SequentialIds:
    """Ids that count up and so sort in the order they were made; jitter that is always the middle; known secrets."""

    def __init__(self, start: int = 1) -> None:
        self._next = start

    def new(self, prefix: str) -> str:
        """`prefix` and the next number in the layout of real ids."""
        number, self._next = self._next, self._next + 1
        return make_id(prefix, now_ms=0, random_part=f"{number:0{RANDOM_LETTERS}d}")

    def jitter(self) -> float:
        """0.5: `cope.core.retry` then waits its middle."""
        return 0.5

    def secret(self, num_bytes: int) -> bytes:
        """The next number, stretched to `num_bytes` by SHAKE-256: distinct and reproducible, never for real use."""
        number, self._next = self._next, self._next + 1
        return hashlib.shake_256(number.to_bytes(8, "big")).digest(num_bytes)
