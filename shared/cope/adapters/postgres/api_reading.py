"""What is read of a batch beside its row: its lines as they end, its pace, and whether it is over."""

from collections.abc import Mapping, Sequence

from cope.adapters.postgres import pace, results
from cope.adapters.postgres.api_tasks import ApiTasks
from cope.adapters.postgres.database import fetch
from cope.core.eta import PaceSample
from cope.core.ids import BatchId, ProjectId
from cope.ports.store import ResultLine, ResultWindow

_OVER = "SELECT id FROM batches WHERE id = ANY (%s) AND status IN ('completed', 'failed', 'expired', 'cancelled')"


class ApiReading(ApiTasks):
    """The reading side of batches."""

    async def result_window(
        self, project_id: ProjectId, batch_id: BatchId, *, after: int, limit: int, by_input: bool
    ) -> ResultWindow | None:
        """None if there is no such batch."""
        async with self._db.transaction(project=project_id) as conn:
            return await results.window(conn, project_id, batch_id, after=after, limit=limit, by_input=by_input)

    async def result_page(
        self, project_id: ProjectId, batch_id: BatchId, *, after: int, last: int, by_input: bool
    ) -> Sequence[ResultLine]:
        """At most 500 lines, or 4 MiB of them."""
        async with self._db.transaction(project=project_id) as conn:
            return await results.page(conn, batch_id, after=after, last=last, by_input=by_input)

    async def paces(
        self, project_id: ProjectId, batch_ids: Sequence[BatchId]
    ) -> Mapping[BatchId, tuple[PaceSample, ...]]:
        """By time; a batch without samples is left out."""
        async with self._db.transaction(project=project_id) as conn:
            return await pace.paces(conn, project_id, batch_ids)

    async def ended_batches(self, batch_ids: Sequence[BatchId]) -> set[BatchId]:
        """One query for all of them."""
        if not batch_ids:
            return set()
        async with self._db.transaction(awaited=",".join(batch_ids)) as conn:
            return {BatchId(row["id"]) for row in await fetch(conn, _OVER, [list(batch_ids)])}
