"""Provider quotas with the limiter's live state: what all workers together have used of them."""

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from cope.adapters.configured_quotas import ConfiguredQuotas, called
from cope.core.limits.types import Headroom
from cope.core.models import ModelCatalog
from cope.core.stages import Tier
from cope.ports.quota import ProviderQuota
from cope.ports.support import Clock

logger = logging.getLogger(__name__)


class Looks(Protocol):
    """A limiter that can be looked at."""

    async def headroom(self) -> tuple[Headroom, ...]:
        """Every endpoint as it stands."""
        ...


class LiveQuotas:
    """One row per endpoint of each paid model; as configured while the limiter's books can't be read."""

    def __init__(self, catalog: ModelCatalog, limiter: Looks, clock: Clock) -> None:
        self._catalog = catalog
        self._limiter = limiter
        self._clock = clock

    async def quotas(self) -> Sequence[ProviderQuota]:
        """By model and endpoint."""
        try:
            rows = await self._limiter.headroom()
        except Exception as away:  # whatever is wrong with it: the caller is told the rest
            logger.warning("the limiter's books can't be read (%s)", type(away).__name__)
            return await ConfiguredQuotas(self._catalog).quotas()
        paid = [row for row in rows if self._catalog.entries[row.model].tier is Tier.LARGE]
        return [self._quota(row) for row in sorted(paid, key=lambda row: (row.model, row.endpoint))]

    def _quota(self, row: Headroom) -> ProviderQuota:
        now, limits = self._clock.now(), row.effective
        stopped_s = max(row.blocked_s, row.opens_s if row.state == "open" else 0.0)
        return ProviderQuota(
            model=called(self._catalog, row.model, row.endpoint),
            rpm=limits.rpm,
            tpm=limits.tpm,
            concurrency=limits.concurrency,
            rpm_left=_left(limits.rpm, row.used_calls),
            tpm_left=_left(limits.tpm, row.used_tokens),
            concurrency_left=_left(limits.concurrency, row.used_slots),
            blocked_until=now + timedelta(seconds=stopped_s) if stopped_s > 0 else None,
            as_of=now,
        )


def _left(limit: int | None, used: float) -> int | None:
    return None if limit is None else max(0, int(limit * (1 - used)))
