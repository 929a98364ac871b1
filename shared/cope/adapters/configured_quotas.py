"""Provider quotas as configured: what each paid model's entry says, without anybody's live state."""

from collections.abc import Sequence

from cope.core.models import ModelCatalog
from cope.core.stages import Tier
from cope.ports.quota import ProviderQuota


class ConfiguredQuotas:
    """Over the catalog alone."""

    def __init__(self, catalog: ModelCatalog) -> None:
        self._catalog = catalog

    async def quotas(self) -> Sequence[ProviderQuota]:
        """One per paid model, by name."""
        paid = (entry for entry in self._catalog.entries.values() if entry.tier is Tier.LARGE)
        return [
            ProviderQuota(entry.name, entry.rpm, entry.tpm, entry.concurrency)
            for entry in sorted(paid, key=lambda entry: entry.name)
        ]
