"""The tables as SQLModel rows: what Alembic compares the migrations with, and what the statements here write to.

Hot paths are written in SQL, so these classes are read more than they are run. Storage settings, row-level security
and grants are in the migrations. Money is BIGINT nano-dollars; ids sort by byte order.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    text,
)
from sqlmodel import Field, SQLModel

METADATA = SQLModel.metadata


def _column(type_: Any, *, null: bool = False, key: bool = False, default: str | None = None, of: str = "") -> Any:
    references = [ForeignKey(of)] if of else []
    server_default = None if default is None else text(default)
    column: Column[Any] = Column(
        type_, *references, primary_key=key, nullable=null and not key, server_default=server_default
    )
    return Field(default=None, sa_column=column)


def _id(*, null: bool = False, key: bool = False, of: str = "") -> Any:
    return _column(Text(collation="C"), null=null, key=key, of=of)


def _text(*, null: bool = False, key: bool = False, default: str | None = None) -> Any:
    return _column(Text(), null=null, key=key, default=default)


def _int(*, null: bool = False, default: str | None = None) -> Any:
    return _column(Integer(), null=null, default=default)


def _big(*, null: bool = False, default: str | None = None) -> Any:
    return _column(BigInteger(), null=null, default=default)


def _time(*, null: bool = False, default: str | None = None) -> Any:
    return _column(DateTime(timezone=True), null=null, default=default)


def _bytes(*, null: bool = False) -> Any:
    return _column(LargeBinary(), null=null)


def _sequence() -> Any:
    return Field(default=None, sa_column=Column(BigInteger(), Identity(always=True), primary_key=True))


def _project() -> Any:
    return _id(of="projects.id")


class ProjectRow(SQLModel, table=True):
    """`cap` NULL is unlimited; `webhook_secret` is sealed."""

    __tablename__ = "projects"
    __table_args__ = (CheckConstraint("cap >= 0", name="projects_cap_check"),)
    id: str = _id(key=True)
    name: str = _text()
    created_at: datetime = _time()
    time_zone: str = _text()
    cap: int | None = _big(null=True)
    default_kind: str = _text()
    paused: bool = _column(Boolean(), default="false")
    archived_at: datetime | None = _time(null=True)
    webhook_secret: str = _text()


class ApiKeyRow(SQLModel, table=True):
    """`hash` is SHA-256 of the secret."""

    __tablename__ = "api_keys"
    __table_args__ = (Index("api_keys_hash", "hash", unique=True), Index("api_keys_project", "project_id", "id"))
    id: str = _id(key=True)
    project_id: str = _project()
    name: str = _text()
    hash: bytes = _bytes()
    hint: str = _text()
    created_at: datetime = _time()
    revoked_at: datetime | None = _time(null=True)
    last_used_at: datetime | None = _time(null=True)


class FileRow(SQLModel, table=True):
    """The bytes lie in the file store."""

    __tablename__ = "files"
    __table_args__ = (Index("files_project", "project_id", "id"),)
    id: str = _id(key=True)
    project_id: str = _project()
    filename: str = _text()
    purpose: str = _text()
    bytes: int = _big()
    lines: int | None = _big(null=True)
    sha256: str = _text()
    created_at: datetime = _time()
    expires_at: datetime | None = _time(null=True)


class PolicyRow(SQLModel, table=True):
    """One row per distinct policy; the id is its hash, so a row never changes."""

    __tablename__ = "policies"
    id: str = _id(key=True)
    spec: str = _text()


class BatchRow(SQLModel, table=True):
    """Counters change with every commit. `ending` is the state that unfinished tasks end in, once cancelled or
    expired. `job_fence` and `job_until` lease the upkeep job; `counted_at` is the last recount."""

    __tablename__ = "batches"
    __table_args__ = (
        Index("batches_project", "project_id", "id"),
        Index("batches_body", "project_id", "body_hash"),
        Index(
            "batches_idempotency",
            "project_id",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        Index(
            "batches_open",
            "status",
            "id",
            postgresql_where=text("status IN ('validating', 'in_progress', 'finalizing', 'cancelling')"),
        ),
    )
    id: str = _id(key=True)
    project_id: str = _project()
    key_id: str | None = _id(null=True)
    endpoint: str = _text()
    input_file_id: str = _id()
    completion_window: str = _text()
    status: str = _text()
    created_at: datetime = _time()
    defaults: str = _text()
    # `metadata` is taken in a declarative class; the attribute differs, the column does not.
    metadata_: str | None = Field(default=None, sa_column=Column("metadata", Text(), nullable=True))
    webhook_url: str | None = _text(null=True)
    model: str | None = _text(null=True)
    output_file_id: str | None = _id(null=True)
    error_file_id: str | None = _id(null=True)
    output_expires_after_s: int | None = _int(null=True)
    errors: str = _text(default="'[]'")
    in_progress_at: datetime | None = _time(null=True)
    expires_at: datetime | None = _time(null=True)
    finalizing_at: datetime | None = _time(null=True)
    completed_at: datetime | None = _time(null=True)
    failed_at: datetime | None = _time(null=True)
    expired_at: datetime | None = _time(null=True)
    cancelling_at: datetime | None = _time(null=True)
    cancelled_at: datetime | None = _time(null=True)
    ending: str | None = _text(null=True)
    total: int = _int(default="0")
    done: int = _int(default="0")
    failed: int = _int(default="0")
    stage1: int = _int(default="0")
    stage2: int = _int(default="0")
    stage3: int = _int(default="0")
    held_budget: int = _int(default="0")
    held_quota: int = _int(default="0")
    held_paused: int = _int(default="0")
    held_unparsable: int = _int(default="0")
    held_since: datetime | None = _time(null=True)
    spent: int = _big(default="0")
    prompt_tokens: int = _big(default="0")
    cached_tokens: int = _big(default="0")
    completion_tokens: int = _big(default="0")
    reasoning_tokens: int = _big(default="0")
    body_hash: bytes = _bytes()
    idempotency_key: str | None = _text(null=True)
    job_fence: int = _int(default="0")
    job_until: datetime | None = _time(null=True)
    counted_at: datetime | None = _time(null=True)


class BatchErrorRow(SQLModel, table=True):
    """How many of a batch's tasks ended with which error code."""

    __tablename__ = "batch_errors"
    batch_id: str = _id(key=True)
    code: str = _text(key=True)
    project_id: str = _id()
    count: int = _big()


class TaskRow(SQLModel, table=True):
    """One problem. `ending` is set where it must end once its paid call under way has committed; `needed` is what its
    next paid call may cost, from a refusal until a grant. `result` and `error` are JSON text."""

    __tablename__ = "tasks"
    __table_args__ = (
        CheckConstraint(
            "state IN ('ready', 'leased', 'held', 'done', 'failed', 'cancelled', 'expired')", name="tasks_state_check"
        ),
        Index("tasks_claim", "queue", "priority", "turn", "id", postgresql_where=text("state = 'ready'")),
        Index("tasks_leased", "lease_until", postgresql_where=text("state = 'leased'")),
        Index("tasks_held", "project_id", "hold", "priority", "turn", "id", postgresql_where=text("state = 'held'")),
        Index(
            "tasks_needing",
            "project_id",
            postgresql_where=text("needed IS NOT NULL AND state IN ('ready', 'leased')"),
        ),
        Index("tasks_batch", "batch_id", "line", postgresql_where=text("batch_id IS NOT NULL")),
        Index("tasks_live", "project_id", "body_hash", postgresql_where=text("body_hash IS NOT NULL")),
    )
    id: str = _id(key=True)
    project_id: str = _id()
    batch_id: str | None = _id(null=True)
    key_id: str | None = _id(null=True)
    policy_id: str = _id()
    queue: str = _text()
    state: str = _text(default="'ready'")
    hold: str | None = _text(null=True)
    ending: str | None = _text(null=True)
    on_budget: str = _text()
    custom_id: str | None = _text(null=True)
    turn: int = _big()
    seed: int = _big()
    needed: int | None = _big(null=True)
    not_before: datetime = _time(default="now()")
    lease_until: datetime | None = _time(null=True)
    created_at: datetime = _time(default="now()")
    finished_at: datetime | None = _time(null=True)
    priority: int = _int()
    line: int = _int()
    fence: int = _int(default="0")
    tries: int = _int(default="0")
    crashes: int = _int(default="0")
    status: int | None = _int(null=True)
    stage: int | None = _column(SmallInteger(), null=True)
    accepted: bool | None = _column(Boolean(), null=True)
    lease_owner: str | None = _text(null=True)
    body_hash: bytes | None = _bytes(null=True)
    payload: str = _text()
    result: str | None = _text(null=True)
    error: str | None = _text(null=True)
    note: str | None = _text(null=True)


class StepRow(SQLModel, table=True):
    """A finished step with all its samples, as `cope.core.codec.encode_step` writes it."""

    __tablename__ = "steps"
    task_id: str = _id(key=True)
    name: str = _text(key=True)
    at: datetime = _time(default="clock_timestamp()")
    data: str = _text()


class AttemptRow(SQLModel, table=True):
    """One paid call's money. `fence` is the lease it was reserved under; `answer` came late and waits to be
    adopted by the next attempt of the same step."""

    __tablename__ = "attempts"
    __table_args__ = (
        CheckConstraint(
            "state IN ('reserved', 'sent', 'settled', 'released', 'unconfirmed')", name="attempts_state_check"
        ),
        CheckConstraint("reserved >= 0 AND cost >= 0 AND overrun >= 0", name="attempts_money_check"),
        Index("attempts_task", "task_id"),
        Index(
            "attempts_open",
            "batch_id",
            postgresql_include=["state", "reserved"],
            postgresql_where=text("state IN ('reserved', 'sent', 'unconfirmed')"),
        ),
    )
    id: str = _id(key=True)
    task_id: str = _id()
    project_id: str = _id()
    batch_id: str | None = _id(null=True)
    step: str = _text()
    model: str = _text()
    state: str = _text()
    month: str = _text()
    price_version: str = _text()
    request_id: str = _text()
    reserved: int = _big()
    cost: int | None = _big(null=True)
    overrun: int = _big(default="0")
    created_at: datetime = _time(default="now()")
    sent_at: datetime | None = _time(null=True)
    settled_at: datetime | None = _time(null=True)
    fence: int = _int()
    usage: list[int] | None = _column(ARRAY(Integer()), null=True)
    flag: str | None = _text(null=True)
    provider_id: str | None = _text(null=True)
    answer: str | None = _text(null=True)


class LedgerRow(SQLModel, table=True):
    """Append-only; every budget can be rebuilt from it. `amount` enters the sum that `kind` names, `freed` leaves
    `reserved` (or `unconfirmed`, for kind `late`)."""

    __tablename__ = "ledger"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('reserved', 'settled', 'released', 'unconfirmed', 'late', 'overrun')", name="ledger_kind_check"
        ),
        CheckConstraint("amount >= 0 AND freed >= 0", name="ledger_money_check"),
    )
    id: int = _sequence()
    at: datetime = _time(default="now()")
    project_id: str = _id()
    month: str = _text()
    batch_id: str | None = _id(null=True)
    task_id: str = _id()
    attempt_id: str = _id()
    kind: str = _text()
    amount: int = _big()
    freed: int = _big()
    price_version: str = _text()


class BudgetRow(SQLModel, table=True):
    """A project's month. `cap` is what grants look at; `ceiling` the cap under which the present sums were granted."""

    __tablename__ = "budgets"
    __table_args__ = (
        CheckConstraint("spent + reserved + unconfirmed <= ceiling", name="budgets_ceiling_check"),
        CheckConstraint(
            "spent >= 0 AND reserved >= 0 AND unconfirmed >= 0 AND overrun >= 0", name="budgets_sums_check"
        ),
    )
    project_id: str = _id(key=True, of="projects.id")
    month: str = _text(key=True)
    cap: int | None = _big(null=True)
    ceiling: int | None = _big(null=True)
    spent: int = _big(default="0")
    reserved: int = _big(default="0")
    unconfirmed: int = _big(default="0")
    overrun: int = _big(default="0")


class PriceRow(SQLModel, table=True):
    """Nano-dollars per million tokens; a dated row never changes."""

    __tablename__ = "prices"
    price_id: str = _text(key=True)
    version: str = _text(key=True)
    input_per_mtok: int = _big()
    cached_input_per_mtok: int = _big()
    output_per_mtok: int = _big()
    effective_at: datetime = _time()


class EventRow(SQLModel, table=True):
    """`offset` is NULL until the sequencer has assigned it."""

    __tablename__ = "events"
    __table_args__ = (
        Index("events_unsequenced", "seq", postgresql_where=text('"offset" IS NULL')),
        Index("events_offset", "project_id", "offset", unique=True, postgresql_where=text('"offset" IS NOT NULL')),
    )
    seq: int = _sequence()
    offset: int | None = _big(null=True)
    id: str = _id()
    project_id: str = _id()
    batch_id: str | None = _id(null=True)
    task_id: str | None = _id(null=True)
    type: str = _text()
    at: datetime = _time(default="now()")
    data: str = _text()


class EventHeadRow(SQLModel, table=True):
    """The last offset given out; a single row."""

    __tablename__ = "event_head"
    __table_args__ = (CheckConstraint("id = 1", name="event_head_single"),)
    id: int = Field(default=1, sa_column=Column(Integer(), primary_key=True, autoincrement=False))
    last: int = _big()


class WebhookEndpointRow(SQLModel, table=True):
    """`secret` is sealed."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (Index("webhook_endpoints_project", "project_id", "id"),)
    id: str = _id(key=True)
    project_id: str = _project()
    name: str = _text()
    url: str = _text()
    event_types: list[str] = _column(ARRAY(Text()))
    created_at: datetime = _time()
    updated_at: datetime = _time()
    secret: str = _text()
    disabled_at: datetime | None = _time(null=True)


class DeliveryRow(SQLModel, table=True):
    """One message for one address; `endpoint_id` NULL is a batch's own `webhook_url`."""

    __tablename__ = "deliveries"
    __table_args__ = (
        CheckConstraint("state IN ('pending', 'delivered', 'dead')", name="deliveries_state_check"),
        Index("deliveries_due", "due_at", "id", postgresql_where=text("state = 'pending'")),
        Index("deliveries_endpoint", "endpoint_id"),
    )
    id: str = _id(key=True)
    project_id: str = _id()
    event_id: str = _id()
    endpoint_id: str | None = _id(null=True)
    url: str = _text()
    body: str = _text()
    attempt: int = _int(default="0")
    state: str = _text(default="'pending'")
    due_at: datetime = _time(default="now()")
    created_at: datetime = _time(default="now()")
    finished_at: datetime | None = _time(null=True)
    status: int | None = _int(null=True)
    error: str | None = _text(null=True)
    excerpt: str | None = _text(null=True)
