"""What is kept: projects, keys, files, batches, endpoints, events. Frozen rows; each field says when it changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from cope.core.deliveries import DEFAULT_CONCURRENCY, EndpointTrouble
from cope.core.errors import ErrorInfo
from cope.core.eta import Workload
from cope.core.history import History
from cope.core.ids import (
    AttemptId,
    BatchId,
    DeliveryId,
    EndpointId,
    EventId,
    FileId,
    KeyId,
    ProjectId,
    TaskId,
    UsageId,
)
from cope.core.key_scopes import ALL_SCOPES, KeyScope
from cope.core.lifecycle import AttemptState, BatchStatus, HoldReason, TaskState
from cope.core.money import NanoUSD, PriceTier


@dataclass(frozen=True, slots=True)
class Project:
    """A customer of the service. `cap` is per calendar month in `time_zone`; None is unlimited, said explicitly.

    `default_kind` is the kind of tasks that name none; `paused` stops claims of its tasks (an operator, or an
    overrun by the provider); `pause_unparsable` has batches wait whose first answers can't be read. `audit_share`
    millionths of confident small-model answers are also sent to the large model, under `audit_cap` a month. `keep_days`
    after their end its batches and live calls are pruned; None: as the settings say.
    """

    id: ProjectId
    name: str
    created_at: datetime
    time_zone: str
    cap: NanoUSD | None
    default_kind: str
    paused: bool
    archived_at: datetime | None = None
    pause_unparsable: bool = True
    audit_share: int = 0
    audit_cap: NanoUSD | None = NanoUSD(0)
    keep_days: int | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as stored: `hash` is SHA-256 of the secret, `hint` its last four characters. The secret is shown once.

    `cap` bounds what its calls may spend in a calendar month of the project; None: only the project's cap does.
    `expires_at` None is never. Once rotated (`rotated_at`), the secret before it is known by `previous_hash` and good
    until `previous_until`; both are None where it ended at once.
    """

    id: KeyId
    project_id: ProjectId
    name: str
    hash: bytes
    hint: str
    created_at: datetime
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    cap: NanoUSD | None = None
    scopes: frozenset[KeyScope] = ALL_SCOPES
    expires_at: datetime | None = None
    rotated_at: datetime | None = None
    previous_hash: bytes | None = None
    previous_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An uploaded or produced file; its bytes lie in the file store under `bytes_id`. `sha256` is of those bytes.

    `blob` is the file whose bytes it shares: the first of the same content in its project; None: they are its own.
    """

    id: FileId
    project_id: ProjectId
    filename: str
    purpose: str
    bytes: int
    lines: int | None
    sha256: str
    created_at: datetime
    expires_at: datetime | None = None
    blob: FileId | None = None

    @property
    def bytes_id(self) -> FileId:
        """The name of its bytes in the file store."""
        return self.id if self.blob is None else self.blob


@dataclass(frozen=True, slots=True)
class LineError:
    """One refused line of an input file (`line` counts from 1; None: the file as a whole)."""

    code: str
    message: str
    param: str | None
    line: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """One submission. Counters are kept by commits and repaired by the sweep.

    `defaults` is the `cope` block at the top of the batch, as JSON text; `by_stage` counts accepted tasks by stage
    1..3 plus `"failed"`; `held` counts tasks in state held by reason, `submitted` those that wait in a provider's
    batch. Money is this batch's share of its project's;
    `cap` bounds it over the batch's whole life (None: only the project's and the key's caps do). `paused` is set and
    taken away by hand: none of its tasks is claimed meanwhile.
    `dry_run` is the most lines a dry run tries on the small model (its tasks are these lines), None for a real batch;
    `quote` is what it found out, as JSON text, once it has ended.
    `audit_share` (in millionths) takes the place of the project's; None: the project's holds.
    `error_messages` has what the first line of each code said; `workload` is what an ETA is reckoned from.
    `pruned_at`: since then its tasks, with their results and samples, are no longer kept.
    `open` batches take further lines and do not end before they are sealed. `retry_of` is the batch whose lines this
    one takes up again, `retried_by` are those that took up some of this one's, the first first.
    """

    id: BatchId
    project_id: ProjectId
    key_id: KeyId | None
    endpoint: str
    input_file_id: FileId
    completion_window: str
    status: BatchStatus
    created_at: datetime
    defaults: str = "{}"
    metadata: Mapping[str, str] | None = None
    webhook_url: str | None = None
    model: str | None = None
    output_file_id: FileId | None = None
    error_file_id: FileId | None = None
    output_expires_after_s: int | None = None
    errors: tuple[LineError, ...] = ()
    in_progress_at: datetime | None = None
    expires_at: datetime | None = None
    finalizing_at: datetime | None = None
    completed_at: datetime | None = None
    failed_at: datetime | None = None
    expired_at: datetime | None = None
    cancelling_at: datetime | None = None
    cancelled_at: datetime | None = None
    total: int = 0
    done: int = 0
    failed: int = 0
    by_stage: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[HoldReason, int] = field(default_factory=dict)
    held_since: datetime | None = None
    paused: bool = False
    submitted: int = 0
    needed: NanoUSD | None = None
    cap: NanoUSD | None = None
    spent: NanoUSD = NanoUSD(0)
    reserved: NanoUSD = NanoUSD(0)
    unconfirmed: NanoUSD = NanoUSD(0)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    error_counts: Mapping[str, int] = field(default_factory=dict)
    error_messages: Mapping[str, str] = field(default_factory=dict)
    workload: Workload | None = None
    dry_run: int | None = None
    quote: str | None = None
    audit_share: int | None = None
    pruned_at: datetime | None = None
    open: bool = False
    retry_of: BatchId | None = None
    retried_by: tuple[BatchId, ...] = ()


@dataclass(frozen=True, slots=True)
class Budget:
    """What one scope may spend and has spent: `spent + reserved + unconfirmed ≤ cap` held at each grant; `overrun` is
    apart. `scope` is ``"project"``, ``"audit"``, a key's id or a batch's id; `month` is empty for a batch: it has one
    budget for its whole life. `cap` None is no limit."""

    project_id: ProjectId
    scope: str
    month: str
    cap: NanoUSD | None
    spent: NanoUSD
    reserved: NanoUSD
    unconfirmed: NanoUSD
    overrun: NanoUSD

    @property
    def headroom(self) -> NanoUSD | None:
        """What may still be granted, ≥ 0; None without a cap."""
        if self.cap is None:
            return None
        return NanoUSD(max(0, self.cap - self.spent - self.reserved - self.unconfirmed))


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """Spend measured elsewhere, counted in `month`, the one it was reported in. Never changes; `reference` is the
    caller's own id, unique in the project; `key_id` is None where the operator reported it."""

    id: UsageId
    project_id: ProjectId
    key_id: KeyId | None
    month: str
    amount: NanoUSD
    reported_at: datetime
    occurred_at: datetime | None = None
    model: str | None = None
    description: str | None = None
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One paid call's money, from its reservation to its settlement. `price_id`, `price_tier` and `price_version` name
    the row it was priced by; the id is empty for attempts from before it was recorded."""

    id: AttemptId
    task_id: TaskId
    step: str
    model: str
    state: AttemptState
    month: str
    reserved: NanoUSD
    cost: NanoUSD | None
    price_version: str
    created_at: datetime
    sent_at: datetime | None
    settled_at: datetime | None
    flag: str | None
    price_id: str = ""
    price_tier: PriceTier = "standard"


@dataclass(frozen=True, slots=True)
class ProviderBatchView:
    """The provider's batch that a task waits in. `id` is the provider's own, None until it is known; `status` is the
    provider's word, and ``gathering`` or ``submitting`` before it has one."""

    id: str | None
    status: str


@dataclass(frozen=True, slots=True)
class TaskDetail:
    """A task with its whole history, for `GET /v1/tasks/{id}`. `result` is the response body as JSON text."""

    id: TaskId
    project_id: ProjectId
    batch_id: BatchId | None
    custom_id: str | None
    state: TaskState
    hold: HoldReason | None
    queue: str
    policy: str
    created_at: datetime
    finished_at: datetime | None
    tries: int
    crashes: int
    payload: str
    history: History
    result: str | None
    error: ErrorInfo | None
    attempts: tuple[Attempt, ...] = ()
    provider_batch: ProviderBatchView | None = None


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """A project's webhook address. `secret` is the plain signing secret (`whsec_…`), encrypted at rest. At most
    `concurrency` messages are under way to it; `disabled_reason` is ``gone`` (its own 410), ``failing`` or ``by_hand``.
    `trouble` is None unless its last attempt failed."""

    id: EndpointId
    project_id: ProjectId
    name: str
    url: str
    event_types: tuple[str, ...]
    created_at: datetime
    updated_at: datetime
    secret: str = field(repr=False, default="")
    disabled_at: datetime | None = None
    disabled_reason: str | None = None
    concurrency: int = DEFAULT_CONCURRENCY
    old_secrets_until: datetime | None = None
    trouble: EndpointTrouble | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One webhook message for one address. `message_id` is constant over its attempts, of which this is number
    `attempt`. Of its lane `concurrency` may be under way at once. Signed with `secret` and with those of `old_secrets`;
    no secret at all: none could be opened."""

    id: DeliveryId
    message_id: EventId
    url: str
    body: str
    attempt: int
    secret: str = field(repr=False)
    endpoint_id: EndpointId | None = None
    old_secrets: tuple[str, ...] = field(repr=False, default=())
    lane: str = ""
    concurrency: int = DEFAULT_CONCURRENCY


@dataclass(frozen=True, slots=True)
class Event:
    """One state change. `offset` is assigned by the sequencer: 1, 2, 3 … in its project's log, None until then."""

    offset: int | None
    id: EventId
    project_id: ProjectId
    batch_id: BatchId | None
    task_id: TaskId | None
    type: str
    at: datetime
    data: str
