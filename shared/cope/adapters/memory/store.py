"""The whole store in one process: the API's side and the workers' over the same rows."""

from cope.adapters.memory.answer_pool import AnswerPoolMixin
from cope.adapters.memory.api_ledger import ApiLedgerMixin
from cope.adapters.memory.api_spend import ApiSpendMixin
from cope.adapters.memory.audits import AuditsMixin
from cope.adapters.memory.clock import FixedClock, SequentialIds
from cope.adapters.memory.event_consumers import EventConsumersMixin
from cope.adapters.memory.event_log import EventLogMixin
from cope.adapters.memory.operations import OperationsMixin
from cope.adapters.memory.prices import PricesMixin
from cope.adapters.memory.provider import ProviderMixin
from cope.adapters.memory.reading import ReadingMixin
from cope.adapters.memory.retention import RetentionMixin
from cope.adapters.memory.tables import Tables
from cope.ports.provider_batches import ProviderBatchStore
from cope.ports.store import ApiStore
from cope.ports.support import Clock, IdMaker


class MemoryStore(
    AnswerPoolMixin,
    RetentionMixin,
    AuditsMixin,
    ApiSpendMixin,
    ApiLedgerMixin,
    OperationsMixin,
    ProviderMixin,
    PricesMixin,
    ReadingMixin,
    EventLogMixin,
    EventConsumersMixin,
):
    """`ApiStore` and `WorkerStore` without a database: for tests, examples and trying things out.

    Exact under asyncio: no method awaits between reading and writing. Not for threads, and not for millions of tasks:
    a claim looks at all of them. `clock` stands for the database's.
    """

    def __init__(self, clock: Clock | None = None, ids: IdMaker | None = None) -> None:
        super().__init__(Tables(clock or FixedClock(), ids or SequentialIds()))


def _serves_both(store: MemoryStore) -> tuple[ApiStore, ProviderBatchStore]:
    # Only for the type checker: a method that drifts from its protocol fails here.
    return store, store
