"""The limiter port: who may call a provider now, through which of a model's endpoints."""

from typing import Protocol

from cope.core.limits.types import Ask, Grant, Headroom, Report, Wait


class Limiter(Protocol):
    """Calls and tokens a minute and calls in flight, all or nothing, shared by every worker of the installation."""

    async def acquire(self, model: str, ask: Ask) -> Grant | Wait:
        """A place at one of the model's endpoints, charged by the estimate, or how long to wait. Never sleeps, and
        never raises for a store that is away."""
        ...

    async def give_back(self, grant: Grant, report: Report) -> None:
        """The granted call ended, or was never made (`UNUSED`): correct its charge, and learn from what was said."""
        ...

    async def headroom(self) -> tuple[Headroom, ...]:
        """Every endpoint of every model as it stands now. One round trip."""
        ...
