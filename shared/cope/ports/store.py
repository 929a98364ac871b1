"""The store: Postgres is the truth, and these are the only ways to change it.

Two protocols, because they run under two database roles. `ApiStore` sees one project at a time (row-level security);
`WorkerStore` sees every project's work and enforces fences and caps. Both use the database's clock for leases, due
times and months. Every method is one transaction unless it says otherwise; an error leaves nothing half-written.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Generic, NamedTuple, Protocol, TypeVar

from cope.core.audit import Audit, AuditState, StratumCounts
from cope.core.audit_sampling import Auditable
from cope.core.budget import AUDIT_SCOPE, PROJECT_SCOPE, Scope
from cope.core.errors import ErrorInfo
from cope.core.eta import PaceSample
from cope.core.history import FinishedStep, History
from cope.core.ids import AttemptId, BatchId, DeliveryId, EndpointId, FileId, KeyId, ProjectId, TaskId
from cope.core.key_scopes import ALL_SCOPES, KeyScope
from cope.core.lifecycle import BatchStatus, HoldReason, TaskState
from cope.core.line_retry import LineRetry
from cope.core.money import NanoUSD, Price, PriceTier, TokenUsage
from cope.core.quote import Past
from cope.core.records import (
    ApiKey,
    Batch,
    Budget,
    Delivery,
    LineError,
    Project,
    StoredFile,
    TaskDetail,
    WebhookEndpoint,
)
from cope.core.task import OnBudget, TaskSpec
from cope.core.webhook_lanes import LaneRoom
from cope.ports.answer_pool import AnswerPool
from cope.ports.events import EventLog, RelayStore
from cope.ports.ledger import LedgerReads, Reconciling
from cope.ports.operations import Operations
from cope.ports.prices import PriceKeeper, PriceReader
from cope.ports.retention import Deleted, RetentionReads, RetentionStore
from cope.ports.spend import SpendStore
from cope.ports.webhooks import WebhookDesk

T = TypeVar("T")

# ---- claiming ------------------------------------------------------------------------------------------------------

NO_END_S = 1e9


@dataclass(frozen=True, slots=True)
class ClaimedTask:
    """A task under lease. `fence` rises with each claim: a commit with an older one changes nothing.

    `crashes` counts leases that ran out; `tries` counts provider errors. `batch_id` is None for a live call and for an
    audit, for which nobody waits; so is `window_left_s`: what is left of the batch's completion window, negative once
    it is over, `NO_END_S` where it never is. `batch_off` names the step that no longer waits for the provider's batch
    (empty: none).
    """

    spec: TaskSpec
    history: History
    project_id: ProjectId
    batch_id: BatchId | None
    key_id: KeyId | None
    fence: int
    tries: int
    crashes: int
    lease_until: datetime
    window_left_s: float | None = None
    batch_off: str = ""

    @property
    def task_id(self) -> TaskId:
        """The task's id."""
        return self.spec.task_id

    @property
    def is_audit(self) -> bool:
        """Whether this is a shadow audit of another task."""
        return self.key_id == AUDIT_SCOPE


@dataclass(frozen=True, slots=True)
class Lease:
    """A held lease, named by task and fence."""

    task_id: TaskId
    fence: int


# ---- money ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReserveRequest:
    """The worst case of one paid call that a task is about to make. `task_cap` bounds what the task may cost in all."""

    task_id: TaskId
    fence: int
    project_id: ProjectId
    batch_id: BatchId | None
    step: str
    model: str
    price_version: str
    amount: NanoUSD
    request_id: str
    price_id: str = ""
    price_tier: PriceTier = "standard"
    task_cap: NanoUSD | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """The money is set aside under `attempt_id`, in the budget of `month`."""

    attempt_id: AttemptId
    month: str


@dataclass(frozen=True, slots=True)
class Adopted:
    """An earlier attempt of this (task, step) was answered late: use that answer, make no call.

    `answer` is what `store_late_answer` was given.
    """

    attempt_id: AttemptId
    answer: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The cap of `scope` leaves `headroom` (≥ 0), less than `needed`. Where several refuse, the narrowest is named."""

    needed: NanoUSD
    headroom: NanoUSD
    month: str
    scope: Scope = Scope.PROJECT


@dataclass(frozen=True, slots=True)
class Paused:
    """Paid calls wait until somebody says go on: the project is paused, or the batch's answers can't be read."""

    reason: HoldReason


@dataclass(frozen=True, slots=True)
class Fenced:
    """The lease was lost: someone else owns the task now."""


ReserveResult = Granted | Adopted | Refused | Paused | Fenced


@dataclass(frozen=True, slots=True)
class Settlement:
    """What one attempt came to. `overrun` is what a provider billed beyond the reserve: recorded apart, and the
    project is paused."""

    attempt_id: AttemptId
    cost: NanoUSD
    overrun: NanoUSD
    usage: TokenUsage | None
    flag: str | None = None
    provider_id: str | None = None


# ---- committing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToQueue:
    """The task goes on: ready in `queue` (`small` or `large`), at once."""

    queue: str


@dataclass(frozen=True, slots=True)
class ToDone:
    """The task has its answer. `body` is the response body as JSON text, `stage` the accepting stage 1..3; `cached`: it
    is another task's stored result, and so no result for the pool itself."""

    body: str
    stage: int
    accepted: bool
    cached: bool = False


@dataclass(frozen=True, slots=True)
class ToFailed:
    """The task ends in the error file. `body` is the error response body as JSON text and `status` its HTTP status."""

    error: ErrorInfo
    body: str
    status: int


NextState = ToQueue | ToDone | ToFailed


@dataclass(frozen=True, slots=True)
class StepCommit:
    """One step's end. `finished` is None where the task fails before any step was done.

    `settlements` are this step's paid calls; `released` attempts were reserved and never sent. `parses` is
    `cope.core.parse_watch.line_parses` of the step, counted for the batch. `audit` is set where the task ends with an
    answer that may be audited: whether it is, the store decides by the share now set.
    """

    task_id: TaskId
    fence: int
    finished: FinishedStep | None
    next: NextState
    settlements: tuple[Settlement, ...] = ()
    released: tuple[AttemptId, ...] = ()
    parses: bool | None = None
    audit: Auditable | None = None


class CommitStatus(StrEnum):
    """`FENCED`: the lease was lost and nothing was written. `CANCELLED`: the task was cancelled or expired meanwhile;
    paid settlements were still recorded."""

    COMMITTED = "committed"
    FENCED = "fenced"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class GiveBack:
    """A claimed task returns without a finished step: ready again after `delay_s`, or held with a reason.

    A hold is looked at again by the sweep (`budget`: when headroom covers `needed`; `provider_quota`: after
    `delay_s`). `count_try` adds one to `tries`. `released` and `settlements` as in `StepCommit`. `submitted` returns a
    task from the provider's batch, which holds no lease; `batch_off` names the step that is called live from now on.
    """

    task_id: TaskId
    fence: int
    delay_s: float = 0.0
    hold: HoldReason | None = None
    needed: NanoUSD | None = None
    count_try: bool = False
    note: str | None = None
    settlements: tuple[Settlement, ...] = ()
    released: tuple[AttemptId, ...] = ()
    submitted: bool = False
    batch_off: str = ""


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What one sweep did, and which queues have work due (for wake-ups)."""

    reclaimed: int
    released: int
    unconfirmed: int
    resumed: int
    expired: int
    sequenced: int
    repaired: int
    due: Mapping[str, int]
    alerted: int = 0


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A leased upkeep job on one batch: validate and ingest it, or write its files and close it."""

    batch: Batch
    fence: int


PAST_CALLS = 300


class PilotTask(NamedTuple):
    """One line of a pilot. `result` is the response body as JSON text."""

    id: TaskId
    state: TaskState
    history: History
    result: str | None


@dataclass(frozen=True, slots=True)
class PilotRun:
    """A dry run so far. `survey` is None until its file was read."""

    survey: str | None
    tasks: tuple[PilotTask, ...]


class OldLine(NamedTuple):
    """A line that a retry takes up again, as its task's row has it. `late` are paid steps whose answers came when the
    task was no longer theirs; `whole` says that nothing was pruned from `history`."""

    task_id: TaskId
    line: int
    custom_id: str
    payload: str
    policy: str
    seed: int
    priority: int
    on_budget: OnBudget
    history: History
    late: tuple[FinishedStep, ...]
    whole: bool


class NewTask(NamedTuple):
    """One validated line, ready for COPY. `payload` is `cope.core.codec.encode_payload`; `policy` the encoded policy
    (stored once per distinct text); `queue` the first step's; `pool` is `cope.core.answer_pool.pool_key`, None where
    its result is not for the pool. A tuple: made for every line, three times as fast."""

    task_id: TaskId
    line: int
    custom_id: str
    payload: str
    policy: str
    seed: int
    queue: str
    priority: int
    on_budget: OnBudget
    pool: bytes | None = None


@dataclass(frozen=True, slots=True)
class ResultLine:
    """One finished task of a batch, in the order asked for. `body` is JSON text; `status` None: never executed.
    `failed`: it belongs in the error file. `place` is what `after` must be to go on behind it."""

    task_id: TaskId
    custom_id: str
    line: int
    status: int | None
    body: str | None
    error: ErrorInfo | None
    failed: bool = False
    place: int = 0


@dataclass(frozen=True, slots=True)
class ResultWindow:
    """How far the lines behind an offset go: the last one that has ended (in the order asked for), the greatest offset
    there can be, and whether there are, or will be, more behind `last`."""

    last: int
    known: int
    incomplete: bool


@dataclass(frozen=True, slots=True)
class WebhookOutcome:
    """How one delivery attempt went. Exactly one of `delivered`, `retry_in_s` (another attempt) or neither (dead).

    `attempt` is the claim's: a failure of an older one than the latest is not recorded; None says nothing of it.
    `block_s`: its whole lane is left alone for so long.
    """

    delivery_id: DeliveryId
    delivered: bool
    retry_in_s: float | None
    status: int | None
    error: str | None
    excerpt: str
    disable_endpoint: bool = False
    attempt: int | None = None
    took_ms: int = 0
    block_s: float | None = None


MakeRetried = Callable[[Sequence[OldLine]], Sequence[tuple[NewTask, History]]]
"""From lines of the parent to tasks of the retry with the steps that they take over, one for each, in order."""


class WorkerStore(PriceReader, RelayStore, RetentionStore, AnswerPool, Protocol):
    """What workers, upkeep and the sweep may do, over all projects."""

    async def claim(self, queue: str, *, worker: str, limit: int, lease_s: float) -> list[ClaimedTask]:
        """Up to `limit` due tasks of `queue`, live calls first, then by priority and turn. Never a paused project's,
        an archived one's, or a cancelled batch's. A task with two crashes or more is only ever returned alone."""
        ...

    async def renew(self, leases: Sequence[Lease], *, lease_s: float) -> set[TaskId]:
        """Extend these leases; returns the tasks that are *no longer* held (lost, cancelled or expired)."""
        ...

    async def lost(self, leases: Sequence[Lease]) -> set[TaskId]:
        """The tasks of these that are not to go on: no longer held, or of a batch that is being ended. Changes nothing,
        and is cheap enough for twice a second."""
        ...

    async def reserve(self, requests: Sequence[ReserveRequest]) -> list[ReserveResult]:
        """One result per request, in order. Grants as many as all caps together cover (task, batch, key's month,
        project's month), in the order given, each in full; never more. The month is that of the database's now in the
        project's time zone. Near a cap a later, smaller request may fit where an earlier one did not."""
        ...

    async def mark_sent(self, attempts: Sequence[AttemptId]) -> set[AttemptId]:
        """Committed before any byte leaves. Returns those marked; one missing lost its reservation: do not call."""
        ...

    async def commit(self, commits: Sequence[StepCommit]) -> list[CommitStatus]:
        """Each step exactly once, fenced; money settled in the same transaction, the budget row last. The last task
        of a batch moves it to `finalizing`. An answer that is sampled for the shadow audit gets its audit here, and an
        audit's own end is written to it. One status per commit, in order."""
        ...

    async def give_back(self, returns: Sequence[GiveBack]) -> None:
        """Release leases without a finished step. A lost lease is passed over; its settlements still count."""
        ...

    async def store_late_answer(self, settlement: Settlement, answer: str) -> None:
        """A fenced-off worker's paid answer: its money is settled and the answer kept for the next attempt of the same
        (task, step) to adopt. Idempotent. Where a reconciliation has settled it already, only the answer is kept."""
        ...

    async def sweep(self, *, lease_s: float, quota_is_back: bool = False) -> SweepReport:
        """Crashed leases → ready (crashes + 1); orphan attempts → released or unconfirmed; holds → ready as far as the
        headroom covers; expired batches; counters repaired; events sequenced. Safe to run anywhere, twice at once.
        `quota_is_back` ends every `provider_quota` hold at once, instead of each at its own time."""
        ...

    async def sequence_events(self) -> int:
        """The sweep's last part alone: new events get their offsets; how many. Cheap enough for every 100 ms."""
        ...

    async def try_lead(self) -> bool:
        """Whether this process is (now) the elected sweeper: an advisory lock on a session of its own."""
        ...

    async def claim_validation(self, *, lease_s: float) -> BatchJob | None:
        """A batch in `validating` that nobody works on."""
        ...

    async def claim_finalisation(self, *, lease_s: float) -> BatchJob | None:
        """A batch whose tasks are all terminal and whose files are not written."""
        ...

    async def renew_batch_job(self, job: BatchJob, *, lease_s: float) -> bool:
        """Keep the job; False if it was lost."""
        ...

    async def ingest(
        self,
        job: BatchJob,
        rows: AsyncIterator[Sequence[NewTask]],
        *,
        model: Callable[[], str | None],
        expires_in: timedelta | None,
    ) -> int | None:
        """COPY all rows and set the batch `in_progress`, in one transaction; the number of tasks, or None if the job
        was lost or the batch cancelled (then nothing is written). `model` is asked after the last row. An error from
        `rows` rolls all of it back and is raised again. `expires_in` None: the batch never expires."""
        ...

    async def line_retry(self, job: BatchJob) -> LineRetry:
        """What a batch that is a retry takes up again."""
        ...

    async def take_lines(self, job: BatchJob, make: MakeRetried, *, expires_in: timedelta | None) -> int | None:
        """A retry's `ingest`: its lines are read from its parent's tasks a page at a time, in their order, `make` says
        what becomes of them, and in the same transaction each is marked as retried, a held one ends in the parent (code
        `moved_to_retry`), and the batch is `in_progress`. So each line is taken over at most once. How many, 0 leaves
        the batch as it is; None as for `ingest`. An error from `make` rolls all of it back and is raised again."""
        ...

    async def put_survey(self, job: BatchJob, survey: str) -> None:
        """What a dry run learnt of its file (`cope.core.survey.encode_survey`). Nothing happens if the job was lost."""
        ...

    async def pilot(self, batch_id: BatchId) -> PilotRun:
        """A dry run's survey and its tasks with their histories, in the order of their lines."""
        ...

    async def past(self, project_id: ProjectId, *, models: Sequence[str], policies: Sequence[str]) -> Past:
        """What this project has seen of these models (output tokens of settled calls, at most `PAST_CALLS` by model and
        step, the latest) and of these policies (as encoded). Looks no further back than it can without effort."""
        ...

    async def fail_validation(
        self, job: BatchJob, errors: Sequence[LineError], *, output: StoredFile | None = None
    ) -> bool:
        """The batch ends as `failed` with these errors and an (empty) output file; event and webhooks are written with
        it. False if the job was lost."""
        ...

    def results(self, batch_id: BatchId, *, by_input: bool) -> AsyncIterator[Sequence[ResultLine]]:
        """Pages of the batch's lines that have ended, never all in memory: in the order of the input, or of their
        commits, which never changes afterwards."""
        ...

    async def finish_batch(
        self, job: BatchJob, *, output: StoredFile | None, error: StoredFile | None, quote: str | None = None
    ) -> BatchStatus | None:
        """Files recorded (a dry run has none, and a `quote`), terminal status set, event and webhook deliveries
        written. None if the job was lost."""
        ...

    async def claim_deliveries(
        self,
        *,
        limit: int,
        lease_s: float,
        room: LaneRoom | None = None,
        ended: Sequence[WebhookOutcome] = (),
    ) -> list[Delivery]:
        """Up to `limit` deliveries that are due, each lane's longest due first, lanes in turns. Of no lane more than
        its class allows (`LaneRoom.most`), of each class no more than `room` has. A lane of which another process has
        something in hand is passed over, so that who keeps to `Delivery.concurrency` keeps an endpoint's. So are lanes
        that are left alone; what was due to a disabled or deleted endpoint is given up here. `ended` is recorded first,
        as by `finish_deliveries`."""
        ...

    async def give_back_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        """They were claimed and not attempted: due at once, as if they had not been claimed."""
        ...

    async def finish_deliveries(self, outcomes: Sequence[WebhookOutcome]) -> None:
        """Record attempts and schedule or end them. An endpoint that is gone, or has failed for days
        (`cope.core.webhooks.to_be_disabled`), is disabled, with an event."""
        ...

    async def file(self, file_id: FileId) -> StoredFile | None:
        """A file's row, of any project."""
        ...

    async def project(self, project_id: ProjectId) -> Project | None:
        """A project's row."""
        ...

    async def put_prices(self, prices: Sequence[Price]) -> None:
        """Make these dated rows known; an equal row is passed over, a different one under the same key refused
        (`Conflict`)."""
        ...

    async def due(self) -> Mapping[str, int]:
        """How many tasks are due per queue, capped at 1,000 each."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: a project's key, or the operator's admin key (then `project_id` is None)."""

    project_id: ProjectId | None
    key_id: KeyId | None
    scopes: frozenset[KeyScope] = ALL_SCOPES

    @property
    def is_admin(self) -> bool:
        """Whether this is the operator."""
        return self.project_id is None


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch to create, with what its idempotency is judged by: the explicit key, the body's hash, and which retry of
    one call the SDK says this is (0: the first sending). `open_for` is the window of a batch that is open (it begins
    at once, without a file), None for one that never expires and for any other."""

    batch: Batch
    body_hash: bytes
    idempotency_key: str | None
    retry: int
    open_for: timedelta | None = None


class NewLine(NamedTuple):
    """A validated line for an open batch (`task.line` is the store's to give). `digest` is of its canonical JSON: the
    same line again is the same one."""

    task: NewTask
    digest: bytes


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of an append: the batch, and how many of the lines were new to it."""

    batch: Batch
    added: int


@dataclass(frozen=True, slots=True)
class NewLiveTask:
    """A live call to enqueue. `is_retry` joins a running or recently finished task with the same body hash."""

    task: NewTask
    project_id: ProjectId
    key_id: KeyId | None
    body_hash: bytes
    is_retry: bool


@dataclass(frozen=True, slots=True)
class LiveResult:
    """A live task's end: `body` with `status` 200, or an error body with its status."""

    task_id: TaskId
    status: int
    body: str


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list and whether there is more after it."""

    items: tuple[T, ...]
    has_more: bool


class ApiStore(
    PriceKeeper, LedgerReads, Reconciling, SpendStore, Operations, EventLog, WebhookDesk, RetentionReads, Protocol
):
    """What the API may do. Every method that takes a project sees that project's rows only, by row-level security."""

    async def find_key(self, key_hash: bytes) -> ApiKey | None:
        """The live key with this hash, of any project: neither revoked nor expired, by its present secret or, as long
        as the two overlap, by the one before its rotation. `last_used_at` is stamped once a minute at most."""
        ...

    # projects and keys (operator)
    async def create_project(self, project: Project, webhook_secret: str) -> Project: ...
    async def ensure_project(self, project: Project, key: ApiKey, webhook_secret: str) -> None:
        """Create the bootstrap project and key unless either exists: a secret that was rotated away stays dead."""
        ...

    async def list_projects(self, *, after: ProjectId | None, limit: int) -> Page[Project]: ...
    async def get_project(self, project_id: ProjectId) -> Project | None: ...
    async def update_project(
        self,
        project_id: ProjectId,
        *,
        name: str | None = None,
        paused: bool | None = None,
        pause_unparsable: bool | None = None,
        default_kind: str | None = None,
        time_zone: str | None = None,
        archived: bool | None = None,
    ) -> Project | None: ...
    async def set_cap(self, project_id: ProjectId, cap: NanoUSD | None, *, scope: str = PROJECT_SCOPE) -> Budget:
        """New cap of the project, its audits, one of its keys (`scope` is its id) or a batch, from now on, this month
        included. `NotFound` if there is no such thing. Holds resume by the sweep; lowering never fails: what was
        granted stays granted."""
        ...

    async def get_budget(
        self, project_id: ProjectId, month: str | None = None, *, scope: str = PROJECT_SCOPE
    ) -> Budget:
        """A scope's budget, or its zero state; month None is the current one. `NotFound` if there is no such scope."""
        ...

    async def list_budgets(self, project_id: ProjectId) -> tuple[Budget, ...]:
        """This month's of the project, its audits (where they are on) and its keys, and those of its batches that have
        not ended and have a cap."""
        ...

    async def create_key(self, key: ApiKey) -> ApiKey: ...
    async def list_keys(self, project_id: ProjectId) -> tuple[ApiKey, ...]: ...
    async def revoke_key(self, project_id: ProjectId, key_id: KeyId) -> bool: ...
    async def rotate_key(
        self,
        project_id: ProjectId,
        key_id: KeyId,
        *,
        new_hash: bytes,
        hint: str,
        overlap_s: int,
        expires_at: datetime | None = None,
    ) -> ApiKey | None:
        """The key with a new secret. The present secret works `overlap_s` ≥ 0 seconds longer.

        Where two secrets work already, the newer one is replaced at once (its answer got lost, or it leaked) and the
        older one, which is in use, lives `overlap_s` from now.
        Id, scopes and caps stay; so does the expiry unless `expires_at` is given. None where the project has no such
        live key.
        """
        ...

    # files
    async def create_file(self, file: StoredFile, *, most_bytes: int | None = None) -> StoredFile:
        """The row as stored. Where the project has the same content already, its `blob` says whose bytes it reads and
        those of its own are to be deleted. `TooLarge` if the project's files would take over `most_bytes`; `Conflict`
        if it came so late that its bytes were collected."""
        ...

    async def get_file(self, project_id: ProjectId, file_id: FileId) -> StoredFile | None:
        """None for one whose time has come, too, though its row may still be there."""
        ...

    async def list_files(
        self, project_id: ProjectId, *, after: FileId | None, limit: int, ascending: bool, purpose: str | None
    ) -> Page[StoredFile]: ...
    async def delete_file(self, project_id: ProjectId, file_id: FileId) -> Deleted | None:
        """None if there is no such file. `Conflict` while a batch that is not terminal reads it."""
        ...

    # batches
    async def create_batch(self, new: NewBatch) -> Batch:
        """Idempotent: the same explicit key and body, or an SDK retry of the same body within 15 minutes, returns the
        first batch. `Conflict` (code `idempotency_key_reused`) for the same key with another body, or (code
        `file_not_found`) where its input file was deleted meanwhile."""
        ...

    async def retry_batch(self, new: NewBatch, retry: LineRetry) -> Batch:
        """A batch (`validating`) that takes up lines of another of the same project; idempotent as `create_batch`.

        `NotFound` without such a parent; `Conflict` where it ran no line or has none to retry (`nothing_to_retry`), or
        their texts were not kept; `BadRequest` naming custom ids that it does not have, or that can't be retried."""
        ...

    async def append_lines(
        self, project_id: ProjectId, batch_id: BatchId, lines: Sequence[NewLine], *, window: timedelta | None, most: int
    ) -> Appended | None:
        """All of these lines or none. One that the batch has already, by custom id and digest, is passed over.

        `Conflict` (`custom_id_reused`) where the digest differs, and where the batch is not open and a line is new;
        `TooLarge` beyond `most` lines in all. None if the project has no such batch."""
        ...

    async def seal_batch(self, project_id: ProjectId, batch_id: BatchId) -> Batch | None:
        """An open batch takes no further line, and ends once those it has do. Any other is returned as it is."""
        ...

    async def get_batch(self, project_id: ProjectId, batch_id: BatchId) -> Batch | None: ...
    async def list_batches(self, project_id: ProjectId, *, after: BatchId | None, limit: int) -> Page[Batch]: ...
    async def cancel_batch(self, project_id: ProjectId, batch_id: BatchId) -> Batch | None:
        """`cancelling`: tasks not under a paid call become cancelled at once; the rest when their call has committed.
        A terminal batch is returned as it is (`Conflict` is the API's to raise)."""
        ...

    async def hold_batch(self, project_id: ProjectId, batch_id: BatchId) -> Batch | None:
        """No task of it is claimed and no paid call begun until it is resumed; its completion window stands still. What
        is under way commits. A batch that has ended, or is ending, is returned as it is."""
        ...

    async def resume_batch(self, project_id: ProjectId, batch_id: BatchId) -> Batch | None:
        """A batch that was held by hand, or whose answers could not be read, goes on; any other stays as it is."""
        ...

    # tasks
    async def get_task(self, project_id: ProjectId, task_id: TaskId) -> TaskDetail | None: ...
    async def list_tasks(
        self, project_id: ProjectId, batch_id: BatchId, *, state: str | None, after: TaskId | None, limit: int
    ) -> Page[TaskDetail]: ...
    async def create_live_task(self, new: NewLiveTask) -> TaskId: ...

    # what is read of a batch
    async def result_window(
        self, project_id: ProjectId, batch_id: BatchId, *, after: int, limit: int, by_input: bool
    ) -> ResultWindow | None:
        """Up to `limit` lines behind offset `after`. By completion an offset is the number of lines before it, and what
        stands at one never changes. `by_input` it is the line's number in the input file, and only lines are counted in
        front of which every line has ended."""
        ...

    async def result_page(
        self, project_id: ProjectId, batch_id: BatchId, *, after: int, last: int, by_input: bool
    ) -> Sequence[ResultLine]:
        """The next lines behind `after`, as many as are fit to be held at once, and none behind `last`. Empty: there
        are no more, or they are not kept any longer."""
        ...

    async def paces(
        self, project_id: ProjectId, batch_ids: Sequence[BatchId]
    ) -> Mapping[BatchId, tuple[PaceSample, ...]]:
        """What the sweep saw of these batches in the last minutes, by time."""
        ...

    async def ended_batches(self, batch_ids: Sequence[BatchId]) -> set[BatchId]:
        """Those of these batches that are over, of any project (the ids are the caller's own)."""
        ...

    async def live_results(self, task_ids: Sequence[TaskId]) -> list[LiveResult]:
        """Those of these tasks that have ended, of any project (the ids are unguessable and the caller's own)."""
        ...

    async def cancel_live_task(self, project_id: ProjectId, task_id: TaskId) -> None:
        """No further step is begun; a paid call under way commits first."""
        ...

    async def erase_live_task(self, project_id: ProjectId, task_id: TaskId) -> bool:
        """Forget the texts of a live task that has ended: what was asked, every plan and answer, and the result. That
        it was, its decisions, its events and its money stay. False where the project has no such task."""
        ...

    # the shadow audit
    async def set_audit_share(self, project_id: ProjectId, share: int) -> Project | None:
        """`share` millionths of the answers accepted from now on; 0 is off. The audits' cap is `set_cap`'s."""
        ...

    async def audit_counts(
        self, project_id: ProjectId, *, month: str | None = None, batch_id: BatchId | None = None
    ) -> tuple[StratumCounts, ...]:
        """Of one month or one batch, by stratum and share; empty where nothing was accepted while audits were on."""
        ...

    async def list_audits(
        self,
        project_id: ProjectId,
        *,
        batch_id: BatchId | None,
        state: AuditState | None,
        after: TaskId | None,
        limit: int,
    ) -> Page[Audit]:
        """By the audited task's id, which is by age."""
        ...

    # webhooks
    async def create_endpoint(self, endpoint: WebhookEndpoint) -> WebhookEndpoint: ...
    async def list_endpoints(
        self, project_id: ProjectId, *, after: EndpointId | None, limit: int
    ) -> Page[WebhookEndpoint]: ...
    async def get_endpoint(self, project_id: ProjectId, endpoint_id: EndpointId) -> WebhookEndpoint | None: ...
    async def delete_endpoint(self, project_id: ProjectId, endpoint_id: EndpointId) -> bool: ...

    async def ping(self) -> None:
        """Raises unless the database answers and its schema is this version's."""
        ...

    async def aclose(self) -> None: ...
