"""Ids are types with prefixes, sortable by the time they were made (the layout of ULID: 48 bits ms, 80 bits random)."""

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
_RANDOM_BITS = 80
_LENGTH = 26


def make_id(prefix: str, *, now_ms: int, random_bits: int) -> str:
    """`prefix` plus 26 characters that sort by `now_ms` (milliseconds since 1970, below 2**48).

    `random_bits` is an integer in [0, 2**80), drawn by the caller. Raises `ValueError` outside those ranges.
    """
    if not 0 <= now_ms < 1 << 48 or not 0 <= random_bits < 1 << _RANDOM_BITS:
        raise ValueError("now_ms must be below 2**48 and random_bits below 2**80")
    value = now_ms << _RANDOM_BITS | random_bits
    return prefix + "".join(_ALPHABET[value >> 5 * place & 31] for place in range(_LENGTH - 1, -1, -1))
