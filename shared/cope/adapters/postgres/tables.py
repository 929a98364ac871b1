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
    ForeignKeyConstraint,
    Index,
    Integer,
    SmallInteger,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from cope.adapters.postgres.columns import (
    big,
    column,
    generated,
    identifier,
    moment,
    octets,
    of_project,
    sequence,
    whole,
    words,
)

METADATA = SQLModel.metadata


class ProjectRow(SQLModel, table=True):
    """`cap` NULL is unlimited; `webhook_secret` is sealed; `audit_share` is in millionths, 0 is off."""

    __tablename__ = "projects"
    __table_args__ = (
        CheckConstraint("cap >= 0", name="projects_cap_check"),
        CheckConstraint("keep_days BETWEEN 1 AND 36500", name="projects_keep_check"),
        Index("projects_paused", "id", postgresql_where=text("paused")),
        CheckConstraint("audit_share BETWEEN 0 AND 1000000 AND audit_cap >= 0", name="projects_audit_check"),
    )
    id: str = identifier(key=True)
    name: str = words()
    created_at: datetime = moment()
    time_zone: str = words()
    cap: int | None = big(null=True)
    default_kind: str = words()
    paused: bool = column(Boolean(), default="false")
    pause_unparsable: bool = column(Boolean(), default="true")
    archived_at: datetime | None = moment(null=True)
    webhook_secret: str = words()
    audit_share: int = whole(default="0")
    audit_cap: int | None = big(null=True, default="0")
    keep_days: int | None = whole(null=True)


class ApiKeyRow(SQLModel, table=True):
    """`hash` is SHA-256 of the secret; `cap` is per month, NULL is none of its own. `scopes` holds `all` where nothing
    is restricted. `previous_hash` is of the secret before a rotation, good until `previous_until`."""

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint("cap >= 0", name="api_keys_cap_check"),
        CheckConstraint(
            "scopes <> '{}' AND scopes <@ ARRAY['all', 'read', 'submit', 'files', 'webhooks', 'spend']",
            name="api_keys_scopes_check",
        ),
        CheckConstraint("(previous_hash IS NULL) = (previous_until IS NULL)", name="api_keys_previous_check"),
        Index("api_keys_hash", "hash", unique=True),
        Index("api_keys_previous", "previous_hash", unique=True, postgresql_where=text("previous_hash IS NOT NULL")),
        Index("api_keys_project", "project_id", "id"),
    )
    id: str = identifier(key=True)
    project_id: str = of_project()
    name: str = words()
    hash: bytes = octets()
    hint: str = words()
    created_at: datetime = moment()
    revoked_at: datetime | None = moment(null=True)
    last_used_at: datetime | None = moment(null=True)
    cap: int | None = big(null=True)
    scopes: list[str] = column(ARRAY(Text()), default="'{all}'")
    expires_at: datetime | None = moment(null=True)
    rotated_at: datetime | None = moment(null=True)
    previous_hash: bytes | None = octets(null=True)
    previous_until: datetime | None = moment(null=True)


class FileRow(SQLModel, table=True):
    """The bytes lie in the file store, under `blob_id`; NULL: under its own id."""

    __tablename__ = "files"
    __table_args__ = (
        Index("files_project", "project_id", "id"),
        Index("files_expiry", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
    )
    id: str = identifier(key=True)
    project_id: str = of_project()
    filename: str = words()
    purpose: str = words()
    bytes: int = big()
    lines: int | None = big(null=True)
    sha256: str = words()
    created_at: datetime = moment()
    expires_at: datetime | None = moment(null=True)
    blob_id: str | None = identifier(null=True)


class BlobRow(SQLModel, table=True):
    """One run of bytes in the file store, under its own name. `refs` files read it; at 0 it is dead for good, and its
    name with it. `shared` ones are found by their content. `emptied_at`: its bytes are deleted."""

    __tablename__ = "blobs"
    __table_args__ = (
        CheckConstraint("refs >= 0", name="blobs_refs_check"),
        Index("blobs_content", "project_id", "sha256", unique=True, postgresql_where=text("refs > 0 AND shared")),
        Index("blobs_project", "project_id", postgresql_include=["bytes"], postgresql_where=text("refs > 0")),
        Index("blobs_freed", "emptied_at", "freed_at", postgresql_where=text("refs = 0")),
    )
    id: str = identifier(key=True)
    project_id: str = identifier()
    sha256: str = words()
    bytes: int = big()
    refs: int = whole()
    shared: bool = column(Boolean())
    freed_at: datetime | None = moment(null=True)
    emptied_at: datetime | None = moment(null=True)


class UpkeepNoteRow(SQLModel, table=True):
    """What upkeep remembers over all processes: whose turn a job was (`turn …`), which file store is this database's
    (`home`), and what the last look at retention found (`retention`)."""

    __tablename__ = "upkeep_notes"
    name: str = words(key=True)
    value: str | None = words(null=True)
    at: datetime = moment(default="now()")


class PolicyRow(SQLModel, table=True):
    """One row per distinct policy; the id is its hash, so a row never changes."""

    __tablename__ = "policies"
    id: str = identifier(key=True)
    spec: str = words()


class BatchRow(SQLModel, table=True):
    """Counters change with every commit. `ending` is the state that unfinished tasks end in, once cancelled or
    expired. `job_fence` and `job_until` lease the upkeep job; `counted_at` is the last recount. `judged` lines of
    which `parsed` could be read decide what `parse_watch` becomes; `retries` is the highest SDK retry that found it.
    `cap` bounds the batch's whole life, NULL is none of its own. `paused`: somebody said to hold it. `audit_share`
    NULL is the project's. `ends` counts the lines in `batch_ends`, NULL until the sweep has numbered those of a batch
    from before there was that table. `at_large` unfinished tasks have a step of the large model before them."""

    __tablename__ = "batches"
    __table_args__ = (
        CheckConstraint("cap >= 0", name="batches_cap_check"),
        CheckConstraint("audit_share BETWEEN 0 AND 1000000", name="batches_audit_check"),
        CheckConstraint("parse_watch IN ('watching', 'passed', 'paused')", name="batches_parse_watch_check"),
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
        Index("batches_paused", "id", postgresql_where=text("paused")),
        Index("batches_unnumbered", "id", postgresql_where=text("ends IS NULL")),
        Index(
            "batches_kept",
            "id",
            postgresql_where=text(
                "pruned_at IS NULL AND total > 0 AND status IN ('completed', 'failed', 'expired', 'cancelled')"
            ),
        ),
    )
    id: str = identifier(key=True)
    project_id: str = of_project()
    key_id: str | None = identifier(null=True)
    endpoint: str = words()
    input_file_id: str = identifier()
    completion_window: str = words()
    status: str = words()
    created_at: datetime = moment()
    defaults: str = words()
    # `metadata` is taken in a declarative class; the attribute differs, the column does not.
    metadata_: str | None = Field(default=None, sa_column=Column("metadata", Text(), nullable=True))
    webhook_url: str | None = words(null=True)
    model: str | None = words(null=True)
    output_file_id: str | None = identifier(null=True)
    error_file_id: str | None = identifier(null=True)
    output_expires_after_s: int | None = whole(null=True)
    errors: str = words(default="'[]'")
    in_progress_at: datetime | None = moment(null=True)
    expires_at: datetime | None = moment(null=True)
    finalizing_at: datetime | None = moment(null=True)
    completed_at: datetime | None = moment(null=True)
    failed_at: datetime | None = moment(null=True)
    expired_at: datetime | None = moment(null=True)
    cancelling_at: datetime | None = moment(null=True)
    cancelled_at: datetime | None = moment(null=True)
    ending: str | None = words(null=True)
    total: int = whole(default="0")
    done: int = whole(default="0")
    failed: int = whole(default="0")
    stage1: int = whole(default="0")
    stage2: int = whole(default="0")
    stage3: int = whole(default="0")
    held_budget: int = whole(default="0")
    held_quota: int = whole(default="0")
    held_paused: int = whole(default="0")
    held_unparsable: int = whole(default="0")
    held_since: datetime | None = moment(null=True)
    spent: int = big(default="0")
    prompt_tokens: int = big(default="0")
    cached_tokens: int = big(default="0")
    completion_tokens: int = big(default="0")
    reasoning_tokens: int = big(default="0")
    body_hash: bytes = octets()
    idempotency_key: str | None = words(null=True)
    job_fence: int = whole(default="0")
    job_until: datetime | None = moment(null=True)
    counted_at: datetime | None = moment(null=True)
    judged: int = whole(default="0")
    parsed: int = whole(default="0")
    parse_watch: str = words(default="'watching'")
    paused_at: datetime | None = moment(null=True)
    retries: int = whole(default="0")
    cap: int | None = big(null=True)
    paused: bool = column(Boolean(), default="false")
    audit_share: int | None = whole(null=True)
    ends: int | None = whole(null=True, default="0")
    at_large: int = whole(default="0")
    first_large: int = whole(default="0")
    small_steps: int = big(default="0")
    large_steps: int = big(default="0")
    pruned_at: datetime | None = moment(null=True)
    open: bool = column(Boolean(), default="false")


class BatchRetryRow(SQLModel, table=True):
    """What makes a batch a retry: the batch whose lines it takes up, and which, as JSON text."""

    __tablename__ = "batch_retries"
    __table_args__ = (Index("batch_retries_parent", "parent_id", "batch_id"),)
    batch_id: str = identifier(key=True)
    project_id: str = identifier()
    parent_id: str = identifier()
    lines: str = words()


class AppendedLineRow(SQLModel, table=True):
    """A line of a batch that was open, until it ends: `name` is a hash of its custom id, `digest` of the whole line."""

    __tablename__ = "appended_lines"
    batch_id: str = identifier(key=True)
    name: bytes = octets(key=True)
    project_id: str = identifier()
    digest: bytes = octets()


class QuoteRow(SQLModel, table=True):
    """What makes a batch a dry run: the most lines of its pilot. `survey` is what its file came to, `quote` the result;
    both are JSON text."""

    __tablename__ = "quotes"
    batch_id: str = identifier(key=True)
    project_id: str = identifier()
    pilot_lines: int = whole()
    survey: str | None = words(null=True)
    quote: str | None = words(null=True)


class BatchErrorRow(SQLModel, table=True):
    """How many of a batch's tasks ended with which error code, and what the first of them said."""

    __tablename__ = "batch_errors"
    batch_id: str = identifier(key=True)
    code: str = words(key=True)
    project_id: str = identifier()
    count: int = big()
    message: str | None = words(null=True)


class BatchEndsRow(SQLModel, table=True):
    """The lines of a batch that one commit ended; `upto` is how many had ended with them. Without a gap, and in the
    order of the commits: given under the batch's row lock."""

    __tablename__ = "batch_ends"
    batch_id: str = identifier(key=True)
    upto: int = column(Integer(), key=True)
    project_id: str = identifier()
    lines: list[int] = column(ARRAY(Integer()))


class BatchPaceRow(SQLModel, table=True):
    """A batch in progress as a sweep saw it, every few seconds for the last minutes: what its ETA is reckoned from."""

    __tablename__ = "batch_pace"
    __table_args__ = {"prefixes": ["UNLOGGED"]}
    batch_id: str = identifier(key=True)
    at: datetime = column(DateTime(timezone=True), key=True, default="now()")
    project_id: str = identifier()
    small_steps: int = big()
    large_steps: int = big()
    leased: int = whole()


class TaskRow(SQLModel, table=True):
    """One problem. `ending` is set where it must end once its paid call under way has committed; `needed` is what its
    next paid call may cost, from a refusal until a grant. `result` and `error` are JSON text. `retried_in` is the batch
    that took it over; `pool` is the key its result is found by (none: it is in no pool)."""

    __tablename__ = "tasks"
    __table_args__ = (
        CheckConstraint(
            "state IN ('ready', 'leased', 'held', 'submitted', 'done', 'failed', 'cancelled', 'expired')",
            name="tasks_state_check",
        ),
        Index("tasks_submitted", "batch_id", postgresql_where=text("state = 'submitted'")),
        Index("tasks_claim", "queue", "priority", "turn", "id", postgresql_where=text("state = 'ready'")),
        Index("tasks_leased", "lease_until", postgresql_where=text("state = 'leased'")),
        Index(
            "tasks_held",
            *("project_id", "hold", "batch_id", "priority", "turn", "id"),
            postgresql_where=text("state = 'held'"),
        ),
        Index(
            "tasks_needing",
            "project_id",
            postgresql_where=text("needed IS NOT NULL AND state IN ('ready', 'leased')"),
        ),
        Index("tasks_batch", "batch_id", "line", postgresql_where=text("batch_id IS NOT NULL")),
        Index(
            "tasks_unsuccessful",
            *("batch_id", "state", "line"),
            postgresql_where=text("state IN ('failed', 'cancelled', 'expired')"),
        ),
        Index("tasks_live", "project_id", "body_hash", postgresql_where=text("body_hash IS NOT NULL")),
        Index("tasks_solo", "finished_at", postgresql_where=text("batch_id IS NULL AND finished_at IS NOT NULL")),
        Index(
            "tasks_pool",
            *("project_id", "pool", "id"),
            postgresql_where=text("pool IS NOT NULL AND state = 'done'"),
        ),
        Index(
            "tasks_unwiped",
            "finished_at",
            postgresql_where=text(
                'batch_id IS NULL AND finished_at IS NOT NULL AND payload LIKE \'%"st":"none"%\''
                ' AND payload NOT LIKE \'%"m":[],"r":"","st":"none"}\''
            ),
        ),
    )
    id: str = identifier(key=True)
    project_id: str = identifier()
    batch_id: str | None = identifier(null=True)
    key_id: str | None = identifier(null=True)
    policy_id: str = identifier()
    queue: str = words()
    state: str = words(default="'ready'")
    hold: str | None = words(null=True)
    ending: str | None = words(null=True)
    on_budget: str = words()
    custom_id: str | None = words(null=True)
    turn: int = big()
    seed: int = big()
    needed: int | None = big(null=True)
    not_before: datetime = moment(default="now()")
    lease_until: datetime | None = moment(null=True)
    created_at: datetime = moment(default="now()")
    finished_at: datetime | None = moment(null=True)
    priority: int = whole()
    line: int = whole()
    fence: int = whole(default="0")
    tries: int = whole(default="0")
    crashes: int = whole(default="0")
    status: int | None = whole(null=True)
    stage: int | None = column(SmallInteger(), null=True)
    accepted: bool | None = column(Boolean(), null=True)
    lease_owner: str | None = words(null=True)
    body_hash: bytes | None = octets(null=True)
    payload: str = words()
    result: str | None = words(null=True)
    error: str | None = words(null=True)
    note: str | None = words(null=True)
    batch_off: str | None = words(null=True)
    retried_in: str | None = identifier(null=True)
    pool: bytes | None = octets(null=True)


class StepRow(SQLModel, table=True):
    """A finished step with all its samples, as `cope.core.codec.encode_step` writes it. In weekly partitions: a task's
    id begins with its time."""

    __tablename__ = "steps"
    __table_args__ = {"postgresql_partition_by": "RANGE (task_id)"}
    task_id: str = identifier(key=True)
    name: str = words(key=True)
    at: datetime = moment(default="clock_timestamp()")
    data: str = words()


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
        Index("attempts_unconfirmed", "sent_at", "id", postgresql_where=text("state = 'unconfirmed'")),
    )
    id: str = identifier(key=True)
    task_id: str = identifier()
    project_id: str = identifier()
    batch_id: str | None = identifier(null=True)
    step: str = words()
    model: str = words()
    state: str = words()
    month: str = words()
    price_version: str = words()
    request_id: str = words()
    reserved: int = big()
    cost: int | None = big(null=True)
    overrun: int = big(default="0")
    created_at: datetime = moment(default="now()")
    sent_at: datetime | None = moment(null=True)
    settled_at: datetime | None = moment(null=True)
    fence: int = whole()
    usage: list[int] | None = column(ARRAY(Integer()), null=True)
    flag: str | None = words(null=True)
    provider_id: str | None = words(null=True)
    answer: str | None = words(null=True)
    key_id: str | None = identifier(null=True)
    price_id: str = words(default="''")
    price_tier: str = words(default="'standard'")


class ProviderBatchRow(SQLModel, table=True):
    """Calls of many tasks in one batch of their provider's; `note` is what was last learnt about it. `doubt_at` is when
    a creation may have left whose fate is unknown, `cancelling_at` when its end was first asked for."""

    __tablename__ = "provider_batches"
    __table_args__ = (
        CheckConstraint("state IN ('forming', 'submitting', 'working', 'ended')", name="provider_batches_state_check"),
        Index("provider_batches_open", "due_at", postgresql_where=text("state <> 'ended'")),
    )
    id: str = identifier(key=True)
    model: str = words()
    state: str = words(default="'forming'")
    file_id: str | None = words(null=True)
    provider_id: str | None = words(null=True)
    status: str = words(default="''")
    created_at: datetime = moment(default="now()")
    due_at: datetime = moment(default="now()")
    job_until: datetime | None = moment(null=True)
    doubt_at: datetime | None = moment(null=True)
    cancelling_at: datetime | None = moment(null=True)
    ended_at: datetime | None = moment(null=True)
    job_fence: int = whole(default="0")
    polls: int = whole(default="0")
    creates: int = whole(default="0")
    note: str | None = words(null=True)


class ProviderLineRow(SQLModel, table=True):
    """One gathered or sent call, until it is settled. `fence` is its task's; `data` is the call as it is sent, and what
    its reserve was reckoned from; `size` its bytes."""

    __tablename__ = "provider_lines"
    __table_args__ = (
        Index("provider_lines_gathered", "model", "attempt_id", postgresql_where=text("provider_batch IS NULL")),
        Index(
            "provider_lines_batch", "provider_batch", "attempt_id", postgresql_where=text("provider_batch IS NOT NULL")
        ),
        Index("provider_lines_task", "task_id"),
    )
    attempt_id: str = identifier(key=True)
    task_id: str = identifier()
    project_id: str = identifier()
    provider_batch: str | None = identifier(null=True)
    model: str = words()
    step: str = words()
    gathered_at: datetime = moment(default="now()")
    fence: int = whole()
    size: int = whole()
    data: str = words()


class LedgerRow(SQLModel, table=True):
    """Append-only; every budget can be rebuilt from it. `amount` enters the sum that `kind` names, `freed` leaves
    `reserved` (or `unconfirmed`, for kind `late`). Of kind `refunded`, `amount` leaves `spent` and `freed` leaves
    `overrun`. An attempt comes to each kind once, but for corrections, which `nth` counts. Partitioned by `month`."""

    __tablename__ = "ledger"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('reserved', 'settled', 'released', 'unconfirmed', 'late', 'overrun', 'external', 'refunded')",
            name="ledger_kind_check",
        ),
        CheckConstraint("amount >= 0 AND freed >= 0", name="ledger_money_check"),
        Index("ledger_project", "project_id", "at"),
        {"postgresql_partition_by": "LIST (month)"},
    )
    at: datetime = moment(default="now()")
    project_id: str = identifier()
    month: str = words(key=True)
    key_id: str | None = identifier(null=True)
    batch_id: str | None = identifier(null=True)
    attempt_id: str = identifier(key=True)
    kind: str = words(key=True)
    amount: int = big()
    freed: int = big()
    price_version: str = words()
    nth: int = column(SmallInteger(), key=True, default="0")


class BudgetRow(SQLModel, table=True):
    """What one scope has spent and set aside: `scope` is ``project``, ``audit`` or a key's id, in one month, or a
    batch's id over its whole life (`month` is empty). `cap` is what grants look at; `ceiling` the cap under which the
    present sums were granted."""

    __tablename__ = "budgets"
    __table_args__ = (
        CheckConstraint("spent + reserved + unconfirmed <= ceiling", name="budgets_ceiling_check"),
        CheckConstraint(
            "spent >= 0 AND reserved >= 0 AND unconfirmed >= 0 AND overrun >= 0", name="budgets_sums_check"
        ),
    )
    project_id: str = identifier(key=True, of="projects.id")
    scope: str = identifier(key=True)
    month: str = words(key=True)
    cap: int | None = big(null=True)
    ceiling: int | None = big(null=True)
    spent: int = big(default="0")
    reserved: int = big(default="0")
    unconfirmed: int = big(default="0")
    overrun: int = big(default="0")


class AuditRow(SQLModel, table=True):
    """One sampled answer of the small model and what the large one said. Written when the answer is accepted, closed
    when the task `audit_task_id` ends; `month` is that of the acceptance, `share` in millionths."""

    __tablename__ = "audits"
    __table_args__ = (
        CheckConstraint(
            "state IN ('pending', 'agreed', 'disagreed', 'unparsable', 'dropped')", name="audits_state_check"
        ),
        Index("audits_task", "audit_task_id", unique=True),
        Index("audits_project", "project_id", "task_id"),
        Index("audits_month", "project_id", "month"),
        Index("audits_batch", "batch_id", "task_id", postgresql_where=text("batch_id IS NOT NULL")),
    )
    task_id: str = identifier(key=True)
    project_id: str = identifier()
    batch_id: str | None = identifier(null=True)
    audit_task_id: str = identifier()
    month: str = words()
    stage: int = column(SmallInteger())
    votes: int = column(SmallInteger())
    n: int = column(SmallInteger())
    stopped_early: bool = column(Boolean())
    share: int = whole()
    state: str = words(default="'pending'")
    reason: str | None = words(null=True)
    small_answer: str = words()
    small_key: str = words()
    large_answer: str | None = words(null=True)
    large_key: str | None = words(null=True)
    cost: int = big(default="0")
    created_at: datetime = moment(default="now()")
    finished_at: datetime | None = moment(null=True)


class AuditPopulationRow(SQLModel, table=True):
    """How many answers were accepted while audits were on: what the sample was drawn from. A live call's batch is
    empty."""

    __tablename__ = "audit_population"
    __table_args__ = (Index("audit_population_batch", "batch_id"),)
    project_id: str = identifier(key=True)
    month: str = words(key=True)
    batch_id: str = identifier(key=True)
    stage: int = column(SmallInteger(), key=True)
    votes: int = column(SmallInteger(), key=True)
    n: int = column(SmallInteger(), key=True)
    stopped_early: bool = column(Boolean(), key=True)
    share: int = column(Integer(), key=True)
    accepted: int = big()


class PriceRow(SQLModel, table=True):
    """Nano-dollars per million tokens; a dated row never changes."""

    __tablename__ = "prices"
    __table_args__ = (
        CheckConstraint("tier IN ('standard', 'batch')", name="prices_tier_check"),
        CheckConstraint("origin IN ('shipped', 'file', 'operator')", name="prices_origin_check"),
        CheckConstraint(
            "input_per_mtok >= 0 AND cached_input_per_mtok >= 0 AND output_per_mtok >= 0", name="prices_amounts_check"
        ),
        CheckConstraint("effective_until > effective_at", name="prices_dates_check"),
    )
    price_id: str = words(key=True)
    tier: str = words(key=True, default="'standard'")
    version: str = words(key=True)
    input_per_mtok: int = big()
    cached_input_per_mtok: int = big()
    output_per_mtok: int = big()
    effective_at: datetime = moment()
    effective_until: datetime | None = moment(null=True)
    origin: str = words(default="'shipped'")
    source: str = words(default="''")
    added_by: str = words(default="''")
    added_at: datetime = moment(default="now()")
    reason: str = words(default="''")


class LimitBookRow(SQLModel, table=True):
    """The limiter's state of one limit group (``g:…``) or account (``a:…``) while Redis is away, as JSON."""

    __tablename__ = "limit_books"
    __table_args__ = {"prefixes": ["UNLOGGED"]}
    name: str = identifier(key=True)
    state: str = words()


class EventRow(SQLModel, table=True):
    """The outbox: written with what it tells of, until the sequencer moves it into the log. `offset` is of versions
    before the log."""

    __tablename__ = "events"
    seq: int = sequence()
    offset: int | None = big(null=True)
    id: str = identifier()
    project_id: str = identifier()
    batch_id: str | None = identifier(null=True)
    task_id: str | None = identifier(null=True)
    type: str = words()
    at: datetime = moment(default="now()")
    data: str = words()


class EventHeadRow(SQLModel, table=True):
    """A single row: when the last event entered the log, which never goes back. `last` is of versions before it."""

    __tablename__ = "event_head"
    __table_args__ = (CheckConstraint("id = 1", name="event_head_single"),)
    id: int = Field(default=1, sa_column=Column(Integer(), primary_key=True, autoincrement=False))
    last: int = big()
    logged_at: datetime = moment(default="now()")


class EventHeadsRow(SQLModel, table=True):
    """The last offset given out in each project's log."""

    __tablename__ = "event_heads"
    project_id: str = identifier(key=True)
    last: int = big()


class EventLogRow(SQLModel, table=True):
    """Append-only; `offset` counts 1, 2, 3 … in each project. Partitioned by the day of `logged_at`, which rises with
    the offsets."""

    __tablename__ = "event_log"
    __table_args__ = (
        Index("event_log_batch", "batch_id", "offset", postgresql_where=text("batch_id IS NOT NULL")),
        {"postgresql_partition_by": "RANGE (logged_at)"},
    )
    project_id: str = identifier(key=True)
    offset: int = column(BigInteger(), key=True)
    logged_at: datetime = column(DateTime(timezone=True), key=True)
    at: datetime = moment()
    id: str = identifier()
    batch_id: str | None = identifier(null=True)
    task_id: str | None = identifier(null=True)
    type: str = words()
    data: str = words()


class EventConsumerRow(SQLModel, table=True):
    """A consumer group: `committed` is the last offset it is done with, `generation` what fences its commits."""

    __tablename__ = "event_consumers"
    __table_args__ = (CheckConstraint("committed >= 0", name="event_consumers_committed_check"),)
    project_id: str = identifier(key=True, of="projects.id")
    name: str = identifier(key=True)
    types: list[str] | None = column(ARRAY(Text()), null=True)
    committed: int = big()
    generation: int = whole(default="0")
    member: str | None = words(null=True)
    member_until: datetime | None = moment(null=True)
    created_at: datetime = moment(default="now()")
    committed_at: datetime = moment(default="now()")


class RelayPlaceRow(SQLModel, table=True):
    """How far the relay has published each project's log."""

    __tablename__ = "relay_places"
    project_id: str = identifier(key=True)
    committed: int = big()


class WebhookEndpointRow(SQLModel, table=True):
    """`secret` is sealed."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (
        CheckConstraint("concurrency BETWEEN 1 AND 64", name="webhook_endpoints_concurrency_check"),
        Index("webhook_endpoints_project", "project_id", "id"),
    )
    id: str = identifier(key=True)
    project_id: str = of_project()
    name: str = words()
    url: str = words()
    event_types: list[str] = column(ARRAY(Text()))
    created_at: datetime = moment()
    updated_at: datetime = moment()
    secret: str = words()
    disabled_at: datetime | None = moment(null=True)
    disabled_reason: str | None = words(null=True)
    concurrency: int = whole(default="16")


class WebhookOldSecretRow(SQLModel, table=True):
    """A secret that was rotated away and still signs beside the new one `until` then. `secret` is sealed."""

    __tablename__ = "webhook_old_secrets"
    __table_args__ = (ForeignKeyConstraint(["endpoint_id"], ["webhook_endpoints.id"], ondelete="CASCADE"),)
    endpoint_id: str = identifier(key=True)
    project_id: str = identifier()
    secret: str = words(key=True)
    until: datetime = moment()


class WebhookTroubleRow(SQLModel, table=True):
    """A lane whose last attempt failed: since when, how often, and until when it is left alone. Gone with its next
    success."""

    __tablename__ = "webhook_troubles"
    __table_args__ = (Index("webhook_troubles_project", "project_id"),)
    lane: str = identifier(key=True)
    project_id: str = identifier()
    failures: int = whole()
    failing_since: datetime = moment()
    failed_at: datetime = moment()
    blocked_until: datetime | None = moment(null=True)
    status: int | None = whole(null=True)
    error: str | None = words(null=True)


class DeliveryRow(SQLModel, table=True):
    """One message for one address; `endpoint_id` NULL is a batch's own `webhook_url`. `attempt` counts in the present
    run of the schedule, `log` holds the latest attempts, `sending_until` is the lease of the one under way, held by the
    process `sending_by`."""

    __tablename__ = "deliveries"
    __table_args__ = (
        CheckConstraint("state IN ('pending', 'delivered', 'dead')", name="deliveries_state_check"),
        Index("deliveries_due", "due_at", "id", postgresql_where=text("state = 'pending'")),
        Index("deliveries_endpoint", "endpoint_id", "id"),
        Index("deliveries_project", "project_id", "id"),
        Index("deliveries_dead", "project_id", "id", postgresql_where=text("state = 'dead'")),
        Index("deliveries_lane", "lane", "due_at", "id", postgresql_where=text("state = 'pending'")),
        Index("deliveries_sending", "sending_until", postgresql_where=text("sending_until IS NOT NULL")),
        Index("deliveries_over", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
    )
    id: str = identifier(key=True)
    project_id: str = identifier()
    event_id: str = identifier()
    endpoint_id: str | None = identifier(null=True)
    url: str = words()
    body: str = words()
    attempt: int = whole(default="0")
    state: str = words(default="'pending'")
    due_at: datetime = moment(default="now()")
    created_at: datetime = moment(default="now()")
    finished_at: datetime | None = moment(null=True)
    status: int | None = whole(null=True)
    error: str | None = words(null=True)
    excerpt: str | None = words(null=True)
    lane: str = generated("COALESCE(endpoint_id, (project_id || ' '::text) || split_part(url, '/'::text, 3))")
    sending_until: datetime | None = moment(null=True)
    sending_by: str | None = words(null=True)
    log: list[dict[str, Any]] = column(JSONB(), default="'[]'")


class SpendAlertRow(SQLModel, table=True):
    """`threshold` is nano-dollars of kind ``amount`` and a whole percentage of kind ``percent``. The `fired_*` columns
    say when it fired last and decide that it does once: the transaction that sets them writes the event. `changed_at`
    moves whenever it may have to be looked at again."""

    __tablename__ = "spend_alerts"
    __table_args__ = (
        CheckConstraint("kind IN ('amount', 'percent', 'projected')", name="spend_alerts_kind_check"),
        CheckConstraint("threshold > 0 OR kind = 'projected'", name="spend_alerts_threshold_check"),
        Index("spend_alerts_project", "project_id", "id"),
    )
    id: str = identifier(key=True)
    project_id: str = of_project()
    kind: str = words()
    threshold: int | None = big(null=True)
    recipients: list[str] = column(ARRAY(Text()))
    subject_prefix: str | None = words(null=True)
    created_at: datetime = moment()
    changed_at: datetime = moment(default="now()")
    fired_month: str | None = words(null=True)
    fired_at: datetime | None = moment(null=True)
    fired_threshold: int | None = big(null=True)


class UsageRecordRow(SQLModel, table=True):
    """Spend measured elsewhere, in the ledger under its id as kind ``external``. `month` is that of its report."""

    __tablename__ = "usage_records"
    __table_args__ = (
        CheckConstraint("amount > 0", name="usage_records_amount_check"),
        Index("usage_records_project", "project_id", "id"),
        Index(
            "usage_records_reference",
            "project_id",
            "reference",
            unique=True,
            postgresql_where=text("reference IS NOT NULL"),
        ),
    )
    id: str = identifier(key=True)
    project_id: str = of_project()
    key_id: str | None = identifier(null=True)
    month: str = words()
    amount: int = big()
    occurred_at: datetime | None = moment(null=True)
    reported_at: datetime = moment(default="now()")
    model: str | None = words(null=True)
    description: str | None = words(null=True)
    reference: str | None = words(null=True)
    body_hash: bytes = octets()


class BudgetHoldRow(SQLModel, table=True):
    """A project (scope ``project``) or batch some of which waits for money, as it was announced."""

    __tablename__ = "budget_holds"
    project_id: str = identifier(key=True)
    scope: str = identifier(key=True)
    since: datetime = moment(default="now()")


class RestoreRow(SQLModel, table=True):
    """The store was restored from a backup: a single row while its projects wait to be let go on."""

    __tablename__ = "restores"
    __table_args__ = (CheckConstraint("id = 1", name="restores_one_check"),)
    id: int = column(SmallInteger(), key=True, default="1")
    backup_at: datetime = moment()
    restored_at: datetime = moment(default="now()")
    reconciled_at: datetime | None = moment(null=True)
    released_at: datetime | None = moment(null=True)
    held: list[str] = column(ARRAY(Text()), default="'{}'")
