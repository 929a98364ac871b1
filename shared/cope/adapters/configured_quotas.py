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
        """By model and endpoint."""
        paid = (entry for entry in self._catalog.entries.values() if entry.tier is Tier.LARGE)
        return [
            ProviderQuota(
                called(self._catalog, place.model, place.endpoint),
                place.limits.rpm,
                place.limits.tpm,
                place.limits.concurrency,
            )
            for entry in sorted(paid, key=lambda entry: entry.name)
            for place in entry.places
        ]


def called(catalog: ModelCatalog, model: str, endpoint: str) -> str:
    """How an endpoint's row is named: by its model alone where that has one place only."""
    return model if len(catalog.entries[model].endpoints) < 2 else f"{model} at {endpoint}"
