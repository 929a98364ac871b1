"""The provider's own Batch API, and what the store keeps about calls that wait in it.

A task that waits there is `submitted`: it holds no lease, its fence stands still, and its attempt keeps the reserve.
The calls of many tasks go in one provider batch, which one upkeep worker at a time takes care of, under a lease and a
fence.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from cope.core.ids import AttemptId, ProviderBatchId
from cope.core.models import ModelEntry
from cope.core.money import NanoUSD
from cope.ports.model import ChatAnswer, ChatRequest
from cope.ports.store import ClaimedTask, ReserveRequest, ReserveResult, WorkerStore

# ---- the provider --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """A batch as its provider shows it. `ended` once its files are final; `completed` is the provider's count of calls
    that were carried out (None: it does not say); `error` is its first complaint about the batch as a whole."""

    id: str
    status: str
    ended: bool
    output_file_id: str | None
    error_file_id: str | None
    completed: int | None
    created_at: datetime
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RemoteLine:
    """One line of a result file. Without an `answer`: `malformed` is True where the provider says it succeeded and its
    answer can't be read, which is paid for; else the call failed, with `error`, and costs nothing."""

    custom_id: str
    answer: ChatAnswer | None
    error: str | None = None
    malformed: bool = False


class BatchProvider(Protocol):
    """A client of every configured model's Batch API. Every method raises a `cope.core.errors.ModelError`."""

    def body(self, request: ChatRequest) -> str:
        """The call as JSON text, exactly as it would be sent live."""
        ...

    async def upload(self, model: ModelEntry, *, name: str, lines: Sequence[tuple[str, str]]) -> str:
        """Upload (custom id, body) lines as one input file; the file's id. Costs nothing and may be done again."""
        ...

    async def create(self, model: ModelEntry, *, file_id: str, marker: str) -> RemoteBatch:
        """Start a batch that carries `marker`. After an error with neither `answered` nor `sent` False nobody knows
        whether it exists: `find` it."""
        ...

    async def find(self, model: ModelEntry, *, marker: str, since: datetime) -> tuple[RemoteBatch, ...]:
        """The batches that carry `marker`, oldest first, among those created at `since` or later."""
        ...

    async def retrieve(self, model: ModelEntry, batch_id: str) -> RemoteBatch:
        """As it is now."""
        ...

    async def cancel(self, model: ModelEntry, batch_id: str) -> RemoteBatch:
        """Ask for its end: what is done stays done, and its files follow."""
        ...

    def results(self, model: ModelEntry, file_id: str) -> AsyncIterator[RemoteLine]:
        """The lines of an output or error file, in its order. What is no line at all is passed over."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


# ---- the store -----------------------------------------------------------------------------------------------------


class ProviderState(StrEnum):
    """`forming`: nothing has been sent, every reserve may still be released. `submitting`: the calls count as sent and
    the batch may or may not exist. `working`: the provider has it. `ended`: every line is settled or given up."""

    FORMING = "forming"
    SUBMITTING = "submitting"
    WORKING = "working"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class GatherRequest:
    """A call to be gathered instead of made: its reservation, and `cope.core.batch_tier.encode_order` of it."""

    reserve: ReserveRequest
    order: str


@dataclass(frozen=True, slots=True)
class Gathered:
    """What waits to be sent to one model: how many lines, and how long the first has waited."""

    model: str
    lines: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class ProviderJob:
    """A leased job on one provider batch.

    `unsettled` lines have no result yet; of these `waiting` tasks wait for theirs, `wanted` of them in a batch of ours
    that is neither cancelled nor expired. `window_left_s` is the least that is left of their windows (None: nobody
    waits). `doubt_s` is how long ago a creation may have left (None: none is in doubt), `cancel_s` how long ago its end
    was first asked for. `polls` counts looks since the last change, `creates` creations that may have left.
    """

    id: ProviderBatchId
    model: str
    state: ProviderState
    fence: int
    file_id: str | None
    provider_id: str | None
    status: str
    created_at: datetime
    unsettled: int
    waiting: int
    wanted: int
    window_left_s: float | None
    doubt_s: float | None
    cancel_s: float | None
    polls: int
    creates: int


@dataclass(frozen=True, slots=True)
class ProviderLine:
    """One call of a provider batch. `waiting` says whether its task still waits for this very result; the task's fence
    is the one it was gathered under."""

    attempt_id: AttemptId
    task: ClaimedTask
    step: str
    reserved: NanoUSD
    order: str
    waiting: bool


@dataclass(frozen=True, slots=True)
class JobChange:
    """What becomes of a provider batch's row; what is None stays. `doubt` and `cancelling` set or clear their clocks.
    `delay_s` ends the lease and says when the job is due again."""

    state: ProviderState | None = None
    file_id: str | None = None
    provider_id: str | None = None
    status: str | None = None
    doubt: bool | None = None
    cancelling: bool | None = None
    polls: int | None = None
    note: str | None = None
    delay_s: float | None = None


class ProviderBatchStore(WorkerStore, Protocol):
    """What the provider's batches need beside a worker's store. Each method is one transaction; what takes a job is
    fenced and says whether the job was still held."""

    async def gather(self, requests: Sequence[GatherRequest]) -> list[ReserveResult]:
        """As `reserve`; a granted one's task becomes `submitted` in the same transaction and its lease ends."""
        ...

    async def gathered(self) -> list[Gathered]:
        """What waits to be sent, by model."""
        ...

    async def return_gathered(self, model: str, *, window_below_s: float | None) -> int:
        """Gathered tasks of `model` whose window leaves less than this (None: all) become ready for a live call, their
        reserves released; how many. Lines whose task is gone go too."""
        ...

    async def form_provider_batch(
        self, batch_id: ProviderBatchId, model: str, *, lines: int, size: int, lease_s: float
    ) -> ProviderJob | None:
        """A new batch of the longest gathered lines, at most `lines` of them and about `size` bytes; None if there is
        none. Lines of a project that is stopped, or of a batch whose answers can't be read, stay where they are."""
        ...

    async def claim_provider_job(self, *, lease_s: float) -> ProviderJob | None:
        """The longest due provider batch that has not ended and that nobody works on."""
        ...

    async def renew_provider_job(self, job: ProviderJob, *, lease_s: float) -> bool: ...

    async def provider_lines(
        self, job: ProviderJob, *, after: AttemptId | None, limit: int, only: Sequence[AttemptId] | None = None
    ) -> list[ProviderLine]:
        """Unsettled lines by attempt id, beyond `after`; of these `only` the named ones."""
        ...

    async def send_provider_batch(self, job: ProviderJob, attempts: Sequence[AttemptId]) -> bool:
        """All of the batch's attempts become `sent`, its state `submitting` and its creation doubtful: committed before
        the creation leaves. False, and nothing is written, unless exactly `attempts` may be sent: some task was
        cancelled, or its project stopped, since they were read; such lines have then left the batch."""
        ...

    async def change_provider_job(self, job: ProviderJob, change: JobChange) -> bool: ...

    async def close_provider_lines(self, job: ProviderJob, attempts: Sequence[AttemptId]) -> bool:
        """These are settled, or nothing more will come of them. An attempt that is still `sent` is then nobody's: the
        sweep leaves it unconfirmed."""
        ...

    async def disband_provider_batch(self, job: ProviderJob, *, live: bool) -> bool:
        """End a batch that was never sent: reserves are released, its tasks become ready, for a live call or to be
        gathered again."""
        ...
