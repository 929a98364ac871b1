"""What a provider allows, as far as is known here."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ProviderQuota:
    """Limits of one paid model, or one of its endpoints, over all workers and projects; None: no limit we know of.

    The `*_left` fields and `blocked_until` are a limiter's live state as of `as_of`; None where nobody publishes it.
    """

    model: str
    rpm: int | None
    tpm: int | None
    concurrency: int | None
    rpm_left: int | None = None
    tpm_left: int | None = None
    concurrency_left: int | None = None
    blocked_until: datetime | None = None
    as_of: datetime | None = None


class ProviderQuotas(Protocol):
    """Tells the quotas. Never raises: who asks for limits is told the rest if a provider's are not known."""

    async def quotas(self) -> Sequence[ProviderQuota]:
        """By model and endpoint."""
        ...
