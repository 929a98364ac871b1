"""`ProviderBatchStore` on Postgres: the part that `WorkerStore` lacks, each method one transaction."""

from collections.abc import Sequence

from cope.adapters.postgres import provider_jobs, provider_lines
from cope.adapters.postgres.budgets import KnownBudgets
from cope.adapters.postgres.claim import Policies
from cope.adapters.postgres.database import Database
from cope.core.ids import AttemptId, ProviderBatchId
from cope.ports.provider_batches import Gathered, GatherRequest, JobChange, ProviderJob, ProviderLine
from cope.ports.store import ReserveResult


class ProviderBatchMethods:
    """Over the connections and caches of the worker's store."""

    _db: Database
    _policies: Policies
    _budgets: KnownBudgets

    async def gather(self, requests: Sequence[GatherRequest]) -> list[ReserveResult]:
        """One result per request, in order."""
        if not requests:
            return []
        async with self._db.transaction() as conn:
            return await provider_lines.gather(conn, self._budgets, requests)

    async def gathered(self) -> list[Gathered]:
        """What waits to be sent, by model."""
        async with self._db.connection() as conn:
            return await provider_jobs.gathered(conn)

    async def return_gathered(self, model: str, *, window_below_s: float | None) -> int:
        """A page of them; the next call returns the next."""
        async with self._db.transaction() as conn:
            return await provider_lines.return_gathered(conn, self._policies, model, below=window_below_s)

    async def form_provider_batch(
        self, batch_id: ProviderBatchId, model: str, *, lines: int, size: int, lease_s: float
    ) -> ProviderJob | None:
        """None where nothing can be sent, or another process is forming one of this model."""
        async with self._db.transaction() as conn:
            return await provider_jobs.form(conn, batch_id, model, lines=lines, size=size, lease_s=lease_s)

    async def claim_provider_job(self, *, lease_s: float) -> ProviderJob | None:
        """The longest due one."""
        async with self._db.transaction() as conn:
            return await provider_jobs.claim(conn, lease_s=lease_s)

    async def renew_provider_job(self, job: ProviderJob, *, lease_s: float) -> bool:
        """False if it was lost."""
        async with self._db.transaction() as conn:
            return await provider_jobs.renew(conn, job, lease_s=lease_s)

    async def provider_lines(
        self, job: ProviderJob, *, after: AttemptId | None, limit: int, only: Sequence[AttemptId] | None = None
    ) -> list[ProviderLine]:
        """A page of unsettled lines."""
        async with self._db.transaction() as conn:
            return await provider_lines.lines(conn, self._policies, job, after=after, limit=limit, only=only)

    async def send_provider_batch(self, job: ProviderJob, attempts: Sequence[AttemptId]) -> bool:
        """Committed when this returns."""
        async with self._db.transaction() as conn:
            return await provider_lines.send(conn, job, attempts)

    async def change_provider_job(self, job: ProviderJob, change: JobChange) -> bool:
        """False if it was lost."""
        async with self._db.transaction() as conn:
            return await provider_jobs.change(conn, job, change)

    async def close_provider_lines(self, job: ProviderJob, attempts: Sequence[AttemptId]) -> bool:
        """False if the job was lost."""
        async with self._db.transaction() as conn:
            return await provider_lines.close(conn, job, attempts)

    async def disband_provider_batch(self, job: ProviderJob, *, live: bool) -> bool:
        """False if the job was lost."""
        async with self._db.transaction() as conn:
            return await provider_lines.disband(conn, self._policies, job, live=live)
