"""Every port in memory, shipped: tests, examples and a look inside need no server."""

from cope.adapters.memory.batches import MemoryBatches
from cope.adapters.memory.clock import FixedClock, SequentialIds
from cope.adapters.memory.files import MemoryFiles
from cope.adapters.memory.limiter import MemoryLimiter
from cope.adapters.memory.model import ScriptedModel
from cope.adapters.memory.programs import TrustedPrograms
from cope.adapters.memory.store import MemoryStore
from cope.adapters.memory.wakeup import MemoryWakeUp
from cope.adapters.memory.webhooks import RecordingWebhookSender

__all__ = [
    "FixedClock",
    "Limits",
    "MemoryBatches",
    "MemoryFiles",
    "MemoryLimiter",
    "MemoryStore",
    "MemoryWakeUp",
    "RecordingWebhookSender",
    "ScriptedModel",
    "SequentialIds",
    "TrustedPrograms",
]
