"""What an open batch takes, and what it refuses: said alike whatever the store."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from cope.core.errors import Conflict, TooLarge
from cope.core.lifecycle import BatchStatus
from cope.core.records import Batch


class _Named(Protocol):
    @property
    def custom_id(self) -> str: ...


class _Line(Protocol):
    @property
    def task(self) -> _Named: ...
    @property
    def digest(self) -> bytes: ...


L = TypeVar("L", bound=_Line)


def check_repeats(lines: Sequence[L], known: Mapping[str, bytes]) -> list[L]:
    """Those that are not among `known` (digests by custom id). Raises `Conflict` for one that differs from its own."""
    new = []
    for line in lines:
        before = known.get(line.task.custom_id)
        if before is None:
            new.append(line)
        elif before != line.digest:
            raise Conflict(
                f"The batch has a line {line.task.custom_id!r} already, and it is another: give this one a custom_id "
                "of its own. Nothing of this request was added.",
                code="custom_id_reused",
            )
    return new


def refuse_sealed(batch: Batch) -> None:
    """Raises `Conflict` unless the batch takes further lines."""
    if not batch.open or batch.status is not BatchStatus.IN_PROGRESS:
        raise Conflict(
            f"The batch takes no further lines: it is sealed, and {batch.status.value}. Lines are added to a batch "
            'that was created with `cope: {"open": true}`, until it is sealed.',
            code="batch_not_open",
        )


def refuse_too_many(batch: Batch, added: int, most: int) -> None:
    """Raises `TooLarge`."""
    if batch.total + added > most:
        raise TooLarge(f"A batch may have at most {most} lines; this one has {batch.total}: seal it and open another.")
