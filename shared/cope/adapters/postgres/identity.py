"""Ids of rows that the store itself makes: attempts, events, deliveries."""

import secrets
import time

from cope.core.ids import make_id


def new_id(prefix: str) -> str:
    """A new id, sortable by the time it was made."""
    return make_id(prefix, now_ms=time.time_ns() // 1_000_000, random_bits=secrets.randbits(80))


def new_ids(prefix: str, count: int) -> list[str]:
    """`count` new ids."""
    return [new_id(prefix) for _ in range(count)]
