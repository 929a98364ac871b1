"""The rows behind the in-memory store, and the few ways of looking at them.

Rows are mutable and never leave this package: callers get the frozen records of `cope.core.records`. All methods that
change rows run without an await, so that under asyncio each is one transaction.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cope.adapters.memory.blobs import Blobs
from cope.adapters.memory.ledger import Ledger
from cope.core.alerts import SpendAlert
from cope.core.audit import Audit, Stratum
from cope.core.budget import AUDIT_SCOPE, PROJECT_SCOPE, WHOLE_LIFE, Scope, month_of, scope_kind, scopes_of
from cope.core.codec import decode_task
from cope.core.deliveries import DeliveryAttempt, DeliveryState, EndpointTrouble
from cope.core.errors import ErrorInfo
from cope.core.eta import PaceSample
from cope.core.history import History
from cope.core.ids import (
    AlertId,
    AttemptId,
    BatchId,
    DeliveryId,
    EndpointId,
    EventId,
    FileId,
    KeyId,
    ProjectId,
    ProviderBatchId,
    TaskId,
    UsageId,
)
from cope.core.lifecycle import (
    TERMINAL_BATCH_STATUSES,
    TERMINAL_TASK_STATES,
    AttemptState,
    BatchStatus,
    HoldReason,
    TaskState,
)
from cope.core.line_retry import LineRetry
from cope.core.money import ZERO, NanoUSD, Price, PriceTier, TokenUsage
from cope.core.parse_watch import ParseWatch
from cope.core.records import ApiKey, Attempt, Batch, Budget, Event, Project, StoredFile, UsageRecord, WebhookEndpoint
from cope.core.restored import RestoreNotice
from cope.core.task import OnBudget, TaskSpec
from cope.ports.provider_batches import ProviderState
from cope.ports.store import NO_END_S, NewTask
from cope.ports.support import Clock, IdMaker


@dataclass(slots=True)
class ProjectRow:
    """A project and the secret that signs its per-batch webhooks."""

    project: Project
    webhook_secret: str


@dataclass(slots=True)
class BatchRow:
    """A batch with its upkeep lease. `ending` is set by cancel or expiry: the state that unfinished tasks end in.

    `unfinished` counts tasks that have not ended, `ended` those that have, `needs` what its held tasks wait for.
    """

    batch: Batch
    body_hash: bytes
    idempotency_key: str | None
    fence: int = 0
    job_until: datetime | None = None
    ending: TaskState | None = None
    unfinished: int = 0
    ended: int = 0
    needs: Counter[NanoUSD] = field(default_factory=Counter)
    judged: int = 0
    parsed: int = 0
    watch: ParseWatch = ParseWatch.WATCHING
    retries: int = 0
    survey: str | None = None
    small_steps: int = 0
    large_steps: int = 0
    pace: list[PaceSample] = field(default_factory=list)
    retry: LineRetry | None = None
    appended: dict[str, bytes] = field(default_factory=dict)
    """Digests of an open batch's lines, by custom id."""

    @property
    def lacks_files(self) -> bool:
        """Whether its tasks have all ended and its files are not written."""
        over = self.unfinished == 0 and not self.batch.open and self.batch.status is not BatchStatus.VALIDATING
        return over and self.batch.status not in TERMINAL_BATCH_STATUSES

    @property
    def needs_upkeep(self) -> bool:
        """Whether it waits to be validated or closed."""
        return self.batch.status is BatchStatus.VALIDATING or self.lacks_files

    def job_free(self, now: datetime) -> bool:
        """Whether nobody holds its upkeep job."""
        return self.job_until is None or self.job_until <= now


@dataclass(slots=True)
class TaskRow:
    """A task. `ending` is set where it must end once its paid call under way has committed; `turn` orders the queue;
    `needed` is what its next paid call may cost, from a refusal until a grant; `rank` is the order in which tasks of a
    batch ended; `retried_in` is the batch that took it over."""

    id: TaskId
    project_id: ProjectId
    batch_id: BatchId | None
    key_id: KeyId | None
    new: NewTask
    spec: TaskSpec
    queue: str
    turn: int
    created_at: datetime
    not_before: datetime
    body_hash: bytes | None = None
    state: TaskState = TaskState.READY
    fence: int = 0
    lease_until: datetime | None = None
    hold: HoldReason | None = None
    needed: NanoUSD | None = None
    tries: int = 0
    crashes: int = 0
    history: History = ()
    ending: TaskState | None = None
    stage: int | None = None
    accepted: bool | None = None
    status: int | None = None
    body: str | None = None
    error: ErrorInfo | None = None
    finished_at: datetime | None = None
    rank: int = 0
    batch_off: str = ""
    retried_in: BatchId | None = None

    @property
    def order(self) -> tuple[bool, int, int, TaskId]:
        """Live calls first, then the lower priority number, then the earlier turn; audits last."""
        return (self.batch_id is not None or self.is_audit, self.new.priority, self.turn, self.id)

    @property
    def is_audit(self) -> bool:
        """Whether this is a shadow audit of another task."""
        return self.key_id == AUDIT_SCOPE

    @property
    def ended(self) -> bool:
        """Whether its state is never left again."""
        return self.state in TERMINAL_TASK_STATES


@dataclass(slots=True)
class AttemptRow:
    """One paid call's money. `fence` is the lease under which it was reserved."""

    id: AttemptId
    task_id: TaskId
    project_id: ProjectId
    batch_id: BatchId | None
    key_id: KeyId | None
    step: str
    fence: int
    model: str
    price_version: str
    month: str
    reserved: NanoUSD
    request_id: str
    created_at: datetime
    state: AttemptState = AttemptState.RESERVED
    cost: NanoUSD | None = None
    overrun: NanoUSD = ZERO
    usage: TokenUsage | None = None
    flag: str | None = None
    provider_id: str | None = None
    sent_at: datetime | None = None
    doubted_at: datetime | None = None
    settled_at: datetime | None = None
    answer: str | None = None
    price_id: str = ""
    price_tier: PriceTier = "standard"

    def record(self) -> Attempt:
        """As it is shown."""
        return Attempt(
            id=self.id,
            task_id=self.task_id,
            step=self.step,
            model=self.model,
            state=self.state,
            month=self.month,
            reserved=self.reserved,
            cost=self.cost,
            price_version=self.price_version,
            created_at=self.created_at,
            sent_at=self.sent_at,
            settled_at=self.settled_at,
            flag=self.flag,
            price_id=self.price_id,
            price_tier=self.price_tier,
        )


@dataclass(slots=True)
class ProviderBatchRow:
    """A batch of the provider's, as a leased job."""

    id: ProviderBatchId
    model: str
    created_at: datetime
    due_at: datetime
    job_until: datetime | None
    fence: int
    state: ProviderState = ProviderState.FORMING
    file_id: str | None = None
    provider_id: str | None = None
    status: str = ""
    doubt_at: datetime | None = None
    cancelling_at: datetime | None = None
    polls: int = 0
    creates: int = 0
    note: str | None = None


@dataclass(slots=True)
class ProviderLineRow:
    """One call that is gathered (`provider_batch` None) or part of a batch, until it is settled."""

    attempt_id: AttemptId
    task_id: TaskId
    fence: int
    model: str
    step: str
    order: str
    gathered_at: datetime
    provider_batch: ProviderBatchId | None = None


@dataclass(slots=True)
class BudgetRow:
    """What one scope has spent and set aside. `cap` None is unlimited."""

    project_id: ProjectId
    scope: str
    month: str
    cap: NanoUSD | None
    spent: int = 0
    reserved: int = 0
    unconfirmed: int = 0
    overrun: int = 0

    @property
    def left(self) -> int | None:
        """What may still be granted, negative where the cap was lowered below its sums; None is without limit."""
        return None if self.cap is None else self.cap - self.spent - self.reserved - self.unconfirmed

    def record(self) -> Budget:
        """As it is shown."""
        return Budget(
            project_id=self.project_id,
            scope=self.scope,
            month=self.month,
            cap=self.cap,
            spent=NanoUSD(self.spent),
            reserved=NanoUSD(self.reserved),
            unconfirmed=NanoUSD(self.unconfirmed),
            overrun=NanoUSD(self.overrun),
        )


@dataclass(slots=True)
class DeliveryRow:
    """One webhook message for one address. `over` once it was delivered or given up; `sending_until` is the lease of
    the attempt under way; `attempts` counts in the present run of the schedule, `log` holds the latest of all runs."""

    id: DeliveryId
    event_id: EventId
    project_id: ProjectId
    endpoint_id: EndpointId | None
    url: str
    body: str
    secret: str
    due_at: datetime
    attempts: int = 0
    over: bool = False
    delivered: bool = False
    last_status: int | None = None
    last_error: str | None = None
    excerpt: str = ""
    created_at: datetime | None = None
    ended_at: datetime | None = None
    sending_until: datetime | None = None
    log: tuple[DeliveryAttempt, ...] = ()

    @property
    def lane(self) -> str:
        """Its endpoint, or its host within its project."""
        return self.endpoint_id or f"{self.project_id} {self.url.split('/')[2]}"

    @property
    def state(self) -> DeliveryState:
        """As it is shown."""
        if not self.over:
            return DeliveryState.PENDING
        return DeliveryState.DELIVERED if self.delivered else DeliveryState.DEAD


@dataclass(slots=True)
class EventsOf:
    """One project's log. `events` are kept from offset `start` on; `logged` holds when each entered the log."""

    events: list[Event] = field(default_factory=list)
    logged: list[datetime] = field(default_factory=list)
    start: int = 1

    @property
    def head(self) -> int:
        """The newest offset."""
        return self.start - 1 + len(self.events)

    def after(self, offset: int) -> list[Event]:
        """What is kept beyond `offset`."""
        return self.events[max(0, offset + 1 - self.start) :]


@dataclass(slots=True)
class ConsumerRow:
    """A consumer group."""

    types: frozenset[str] | None
    committed: int
    created_at: datetime
    committed_at: datetime
    generation: int = 0
    member: str | None = None
    member_until: datetime | None = None


@dataclass(slots=True)
class Tables:
    """Everything the store knows. `clock` stands for the database's clock and `ids` for its id maker."""

    clock: Clock
    ids: IdMaker
    projects: dict[ProjectId, ProjectRow] = field(default_factory=dict)
    keys: dict[KeyId, ApiKey] = field(default_factory=dict)
    files: dict[FileId, StoredFile] = field(default_factory=dict)
    batches: dict[BatchId, BatchRow] = field(default_factory=dict)
    tasks: dict[TaskId, TaskRow] = field(default_factory=dict)
    batch_tasks: dict[BatchId, list[TaskRow]] = field(default_factory=lambda: defaultdict(list))
    attempts: dict[AttemptId, AttemptRow] = field(default_factory=dict)
    task_attempts: dict[TaskId, list[AttemptRow]] = field(default_factory=lambda: defaultdict(list))
    budgets: dict[tuple[ProjectId, str, str], BudgetRow] = field(default_factory=dict)
    prices: dict[tuple[str, PriceTier, str], Price] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    provider_batches: dict[ProviderBatchId, ProviderBatchRow] = field(default_factory=dict)
    provider_lines: dict[AttemptId, ProviderLineRow] = field(default_factory=dict)
    endpoints: dict[EndpointId, WebhookEndpoint] = field(default_factory=dict)
    deliveries: dict[DeliveryId, DeliveryRow] = field(default_factory=dict)
    logs: dict[ProjectId, EventsOf] = field(default_factory=lambda: defaultdict(EventsOf))
    consumers: dict[tuple[ProjectId, str], ConsumerRow] = field(default_factory=dict)
    listeners: set[asyncio.Queue[frozenset[ProjectId]]] = field(default_factory=set)
    relayed: dict[ProjectId, int] = field(default_factory=dict)
    old_secrets: dict[EndpointId, list[tuple[datetime, str]]] = field(default_factory=lambda: defaultdict(list))
    troubles: dict[str, EndpointTrouble] = field(default_factory=dict)
    unsequenced: list[Event] = field(default_factory=list)
    turns: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    alerts: dict[AlertId, SpendAlert] = field(default_factory=dict)
    usage: dict[UsageId, tuple[UsageRecord, bytes]] = field(default_factory=dict)
    bookings: dict[ProjectId, list[tuple[datetime, int]]] = field(default_factory=lambda: defaultdict(list))
    """When money was spent and how much, in order."""
    told_holds: dict[tuple[ProjectId, str], tuple[BatchId | None, datetime]] = field(default_factory=dict)
    """The scopes that were said to wait for money, and since when."""
    audits: dict[TaskId, Audit] = field(default_factory=dict)
    audit_population: Counter[tuple[ProjectId, str, BatchId | None, Stratum, int]] = field(default_factory=Counter)
    blobs: Blobs = field(default_factory=Blobs)
    turns_taken: dict[str, datetime] = field(default_factory=dict)
    """When an upkeep job was last begun."""
    retention_report: str | None = None

    restored: RestoreNotice | None = None

    def now(self) -> datetime:
        """The present, aware, UTC."""
        return self.clock.now()

    def later(self, seconds: float) -> datetime:
        """`seconds` from now."""
        return self.clock.now() + timedelta(seconds=seconds)

    def project(self, project_id: ProjectId) -> Project:
        """A project that must exist."""
        return self.projects[project_id].project

    def working(self, project_id: ProjectId) -> bool:
        """Whether tasks of this project may be claimed and may spend."""
        project = self.project(project_id)
        return not project.paused and project.archived_at is None

    def workable(self, row: TaskRow) -> bool:
        """Whether this task may be claimed and may spend: neither its project nor its batch was stopped by hand."""
        paused = row.batch_id is not None and self.batches[row.batch_id].batch.paused
        return not paused and self.working(row.project_id)

    def month(self, project_id: ProjectId) -> str:
        """The present one in the project's zone."""
        return month_of(self.now(), self.project(project_id).time_zone)

    def budget(self, project_id: ProjectId, month: str | None = None, scope: str = PROJECT_SCOPE) -> BudgetRow:
        """A scope's row of a month (None: the present one), begun under the scope's own cap."""
        kind = scope_kind(scope)
        month = WHOLE_LIFE if kind is Scope.BATCH else month or self.month(project_id)
        key = (project_id, scope, month)
        if key not in self.budgets:
            self.budgets[key] = BudgetRow(project_id, scope, month, self._cap_of(project_id, scope, kind))
        return self.budgets[key]

    def budgets_of(self, row: "TaskRow | AttemptRow", month: str) -> list[BudgetRow]:
        """Every budget that a paid call of this task counts in, narrowest first."""
        return [
            self.budget(row.project_id, at or None, scope) for scope, at in scopes_of(row.batch_id, row.key_id, month)
        ]

    def _cap_of(self, project_id: ProjectId, scope: str, kind: Scope) -> NanoUSD | None:
        if kind is Scope.BATCH:
            return self.batches[BatchId(scope)].batch.cap
        if kind is Scope.AUDIT:
            return self.project(project_id).audit_cap
        if kind is Scope.KEY:
            key = self.keys.get(KeyId(scope))
            return None if key is None else key.cap
        return self.project(project_id).cap

    def window_left_s(self, row: TaskRow) -> float | None:
        """What is left of its batch's completion window; a batch that stands still stands still here too."""
        batch = None if row.batch_id is None else self.batches[row.batch_id].batch
        if batch is None:
            return None
        if batch.expires_at is None:
            return NO_END_S
        return (batch.expires_at - (batch.held_since or self.now())).total_seconds()

    def attempts_of(self, row: TaskRow, *states: AttemptState) -> Iterator[AttemptRow]:
        """This task's attempts that are in one of `states`."""
        return (attempt for attempt in self.task_attempts.get(row.id, ()) if attempt.state in states)

    def add_task(
        self,
        new: NewTask,
        *,
        project_id: ProjectId,
        batch_id: BatchId | None,
        key_id: KeyId | None,
        body_hash: bytes | None = None,
        distance: int = 0,
    ) -> TaskRow:
        """A ready task, `distance` turns after the queue's current turn.

        Turns are per queue and priority: were they shared, an urgent million would push newcomers of another priority
        a million places back.
        """
        now = self.now()
        row = TaskRow(
            id=new.task_id,
            project_id=project_id,
            batch_id=batch_id,
            key_id=key_id,
            new=new,
            spec=decode_task(
                new.task_id, payload=new.payload, policy=new.policy, seed=new.seed, on_budget=OnBudget(new.on_budget)
            ),
            queue=new.queue,
            turn=self.turns[new.queue, new.priority] + distance,
            created_at=now,
            not_before=now,
            body_hash=body_hash,
        )
        self.tasks[row.id] = row
        if batch_id is not None:
            self.batch_tasks[batch_id].append(row)
        return row

    def due_tasks(self, queue: str) -> Iterator[TaskRow]:
        """Tasks that could be claimed now, in no order."""
        now = self.now()
        for row in self.tasks.values():
            if row.state is TaskState.READY and row.queue == queue and row.not_before <= now and self.workable(row):
                yield row


def in_progress(db: Tables, project_id: ProjectId) -> int:
    """How many batches of this project are in progress."""
    batches = (row.batch for row in db.batches.values())
    return sum(b.project_id == project_id and b.status is BatchStatus.IN_PROGRESS for b in batches)


def is_open(status: BatchStatus) -> bool:
    """Whether a batch of this status may be cancelled: it is being validated or carried out."""
    return status in {BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS}
