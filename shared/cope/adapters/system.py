"""The machine's own clock and chance, for every process that runs for real."""

import os
import secrets
import time
from datetime import UTC, datetime, timedelta

from cope.core.ids import RANDOM_LETTERS, letters, make_id

_DRAWN_AT_ONCE = 256  # a large batch would make a system call for every line


class SystemClock:
    """The wall clock. Leases and months use the database's instead; this one stamps files, steps and API objects.

    `ahead_s` is how wrong it goes, in tests.
    """

    def __init__(self, *, ahead_s: float = 0.0) -> None:
        self._ahead = timedelta(seconds=ahead_s)

    def now(self) -> datetime:
        """The present, aware, UTC."""
        return datetime.now(UTC) + self._ahead


class SystemIds:
    """Ids and randomness from the operating system's generator."""

    def __init__(self) -> None:
        self._drawn = ""
        self._at = 0
        self._pid = 0

    def new(self, prefix: str) -> str:
        """A new id with this prefix; ids made in different milliseconds sort by time."""
        at = self._at
        # A forked child would otherwise give out its parent's ids again.
        if at == len(self._drawn) or self._pid != os.getpid():
            self._drawn, self._pid, at = letters(os.urandom(_DRAWN_AT_ONCE * RANDOM_LETTERS)), os.getpid(), 0
        self._at = at + RANDOM_LETTERS
        return make_id(prefix, now_ms=time.time_ns() // 1_000_000, random_part=self._drawn[at : self._at])

    def jitter(self) -> float:
        """A number in [0, 1) with 53 random bits."""
        return secrets.randbits(53) / (1 << 53)

    def secret(self, num_bytes: int) -> bytes:
        """Cryptographically strong random bytes; `num_bytes` ≥ 0."""
        return secrets.token_bytes(num_bytes)
