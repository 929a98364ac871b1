"""The machine's own clock and chance, for every process that runs for real."""

import os
import secrets
import time
from datetime import UTC, datetime

from cope.core.ids import make_id


class SystemClock:
    """The wall clock. Leases and months use the database's instead; this one stamps files, steps and API objects."""

    def now(self) -> datetime:
        """The present, aware, UTC."""
        return datetime.now(UTC)


class SystemIds:
    """Ids and randomness from the operating system's generator."""

    def new(self, prefix: str) -> str:
        """A new id with this prefix; ids made in different milliseconds sort by time."""
        return make_id(prefix, now_ms=time.time_ns() // 1_000_000, random_bits=int.from_bytes(os.urandom(10)))

    def jitter(self) -> float:
        """A number in [0, 1) with 53 random bits."""
        return secrets.randbits(53) / (1 << 53)

    def secret(self, num_bytes: int) -> bytes:
        """Cryptographically strong random bytes; `num_bytes` ≥ 0."""
        return secrets.token_bytes(num_bytes)
