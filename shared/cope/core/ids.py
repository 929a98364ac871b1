"""Ids are types with prefixes, sortable by the time they were made (the layout of ULID: 48 bits ms, 80 bits random)."""

import hashlib
from functools import lru_cache
from typing import NewType

ProjectId = NewType("ProjectId", str)
KeyId = NewType("KeyId", str)
FileId = NewType("FileId", str)
BatchId = NewType("BatchId", str)
TaskId = NewType("TaskId", str)
AttemptId = NewType("AttemptId", str)
EventId = NewType("EventId", str)
EndpointId = NewType("EndpointId", str)
DeliveryId = NewType("DeliveryId", str)
PolicyId = NewType("PolicyId", str)

PROJECT, KEY, FILE, BATCH, TASK, ATTEMPT = "proj_", "key_", "file-", "batch_", "task_", "att_"
EVENT, ENDPOINT, DELIVERY = "evt_", "we_", "whd_"

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32: no i, l, o, u
# Ten bits at a time: an id is made for every line of a million-line batch.
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)


def make_id(prefix: str, *, now_ms: int, random_bits: int) -> str:
    """`prefix` plus 26 characters that sort by `now_ms` (milliseconds since 1970, below 2**48).

    `random_bits` is an integer in [0, 2**80), drawn by the caller. Raises `ValueError` outside those ranges.
    """
    if not 0 <= now_ms < 1 << 48 or not 0 <= random_bits < 1 << 80:
        raise ValueError("now_ms must be below 2**48 and random_bits below 2**80")
    r, pairs = random_bits, _PAIRS
    return (
        f"{prefix}{_time_part(now_ms)}{pairs[r >> 70]}{pairs[r >> 60 & 1023]}{pairs[r >> 50 & 1023]}"
        f"{pairs[r >> 40 & 1023]}{pairs[r >> 30 & 1023]}{pairs[r >> 20 & 1023]}{pairs[r >> 10 & 1023]}{pairs[r & 1023]}"
    )


def compact(custom_id: str) -> str | bytes:
    """What stands for a caller's id in a set of a million: short ones themselves, long ones 12 bytes of hash."""
    return custom_id if len(custom_id) <= 24 else hashlib.blake2b(custom_id.encode(), digest_size=12).digest()


@lru_cache(maxsize=8)
def _time_part(now_ms: int) -> str:
    return "".join(_PAIRS[now_ms >> shift & 1023] for shift in (40, 30, 20, 10, 0))
