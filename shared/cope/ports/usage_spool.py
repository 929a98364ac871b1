"""A provider's usage export laid out to be looked up: it may have millions of rows, and memory does not."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from cope.core.ids import TaskId
from cope.core.money import NanoUSD, TokenUsage
from cope.core.reconcile import BilledCall


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was not counted; `line` counts from 1."""

    line: int
    message: str


@dataclass(frozen=True, slots=True)
class Foreign:
    """What was billed under request ids that are none of ours, or under none. `cost` sums what is told in dollars;
    `unpriced_calls` told only tokens."""

    calls: int
    cost: NanoUSD
    usage: TokenUsage
    unpriced_calls: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a file held. `nameless` rows have no request id; `repeated` ones came twice and count once. `bad` are the
    first of `bad_count`."""

    rows: int
    repeated: int
    nameless: int
    bad_count: int
    bad: tuple[BadRow, ...]
    foreign: Foreign


class UsageSpool(Protocol):
    """One file's rows, until `aclose`."""

    async def write(self, data: bytes) -> None:
        """The file's next bytes."""
        ...

    async def load(self) -> Loaded:
        """Read what was written, as CSV. Raises `BadRequest` where its header can't be used."""
        ...

    def tasks(self) -> AsyncIterator[Sequence[tuple[TaskId, Sequence[BilledCall]]]]:
        """Pages of what was billed under our own ids, all calls of a task together."""
        ...

    async def mentioned(self, request_ids: Sequence[str]) -> set[str]:
        """Those steps of which any call has a row, readable or not."""
        ...

    async def foreign_calls(self, limit: int) -> list[BilledCall]:
        """The dearest under each id that is none of ours."""
        ...

    async def aclose(self) -> None:
        """Forget all of it."""
        ...
