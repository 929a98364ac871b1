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
AlertId = NewType("AlertId", str)
UsageId = NewType("UsageId", str)
ProviderBatchId = NewType("ProviderBatchId", str)

PROJECT, KEY, FILE, BATCH, TASK, ATTEMPT = "proj_", "key_", "file-", "batch_", "task_", "att_"
EVENT, ENDPOINT, DELIVERY, PROVIDER_BATCH = "evt_", "we_", "whd_", "pbat_"
ALERT, USAGE = "alert_", "usage_"

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32: no i, l, o, u
_LETTERS = frozenset(_ALPHABET)
_LETTER_OF_BYTE = bytes(ord(_ALPHABET[byte & 31]) for byte in range(256))
RANDOM_LETTERS = 16


def letters(drawn: bytes) -> str:
    """One letter for each random byte, all 32 equally likely: an id takes `RANDOM_LETTERS` of them (80 bits)."""
    return drawn.translate(_LETTER_OF_BYTE).decode()


def make_id(prefix: str, *, now_ms: int, random_part: str) -> str:
    """`prefix` plus 26 characters that sort by `now_ms` (milliseconds since 1970, below 2**48).

    `random_part` is `RANDOM_LETTERS` letters drawn by the caller. Raises `ValueError` for any other length or time.
    """
    if len(random_part) != RANDOM_LETTERS or not 0 <= now_ms < 1 << 48:
        raise ValueError(f"now_ms must be below 2**48 and random_part have {RANDOM_LETTERS} letters")
    return f"{prefix}{_time_part(now_ms)}{random_part}"


def made_at_s(made: str) -> int:
    """The Unix second at which an id of `make_id` was made."""
    return _ms_of(made[-26:-RANDOM_LETTERS]) // 1000


def ms_of(some_id: str) -> int | None:
    """Milliseconds since 1970 at which an id was made; None if it is not of `make_id`."""
    body = some_id[-26:]
    if len(some_id) <= 26 or not set(body) <= _LETTERS:
        return None
    ms = _ms_of(body[:10])
    return ms if ms < 1 << 48 else None


def _ms_of(time_part: str) -> int:
    ms = 0
    for letter in time_part:
        ms = ms << 5 | _ALPHABET.index(letter)
    return ms


def compact(custom_id: str) -> str | bytes:
    """What stands for a caller's id in a set of a million: short ones themselves, long ones 12 bytes of hash."""
    return custom_id if len(custom_id) <= 24 else hashlib.blake2b(custom_id.encode(), digest_size=12).digest()


@lru_cache(maxsize=8)
def _time_part(now_ms: int) -> str:
    return "".join(_ALPHABET[now_ms >> shift & 31] for shift in range(45, -1, -5))
