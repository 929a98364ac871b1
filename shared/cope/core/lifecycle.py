"""The states of tasks, batches and attempts, each as one diagram.

Task::

      ready ──claim──▶ leased ──commit──▶ ready (next step) │ done │ failed
        ▲                │ ├─ reserve refused, quota, pause ──▶ held ──sweep──▶ ready
        │                │ └─ gathered for the provider's batch ──▶ submitted ──▶ as after `commit` │ ready
        └── lease ends ──┘      ready │ leased │ held │ submitted ──▶ cancelled │ expired

A submitted task holds no lease: its attempt is `reserved` while it is gathered and `sent` from just before the
provider's batch is created.

Batch::

      validating ──▶ in_progress ──▶ finalizing ──▶ completed
          └──▶ failed      ├──▶ cancelling ──▶ cancelled
                           └──▶ (expiring) ──▶ expired

An open batch begins `in_progress` and can't be `finalizing` before it is sealed; cancelling and expiring seal it. A
retry is a batch of its own, which takes lines that have ended without an answer, or are held, into its own tasks.

Attempt (one paid call)::

      reserved ──▶ sent ──▶ settled
          └──▶ released └──▶ unconfirmed ──▶ settled (late answer, reconciliation)
"""

from enum import StrEnum


class TaskState(StrEnum):
    """`done`, `failed`, `cancelled` and `expired` are terminal and never left."""

    READY = "ready"
    LEASED = "leased"
    HELD = "held"
    SUBMITTED = "submitted"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


TERMINAL_TASK_STATES = frozenset({TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED})


class BatchStatus(StrEnum):
    """OpenAI's batch statuses. A held batch stays `in_progress`; its hold is shown in the `cope` block."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


TERMINAL_BATCH_STATUSES = frozenset(
    {BatchStatus.FAILED, BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLED}
)


class HoldReason(StrEnum):
    """Why a task waits though a worker is free. Time in a hold does not count against the completion window."""

    BUDGET = "budget"
    PROVIDER_QUOTA = "provider_quota"
    PAUSED = "paused"
    UNPARSABLE = "unparsable"


class AttemptState(StrEnum):
    """The life of one paid call's money."""

    RESERVED = "reserved"
    SENT = "sent"
    SETTLED = "settled"
    RELEASED = "released"
    UNCONFIRMED = "unconfirmed"
