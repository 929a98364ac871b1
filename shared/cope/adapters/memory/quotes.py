"""What a quote is made from, over the memory store."""

from collections import defaultdict
from collections.abc import Sequence

from cope.adapters.memory.tables import Tables
from cope.core.ids import BatchId, ProjectId
from cope.core.lifecycle import AttemptState, TaskState
from cope.core.quote import Past
from cope.ports.store import PAST_CALLS, PilotRun, PilotTask


class QuotesMixin:
    """The worker's view of dry runs, as `WorkerStore` describes it."""

    _db: Tables

    async def pilot(self, batch_id: BatchId) -> PilotRun:
        """By line."""
        rows = sorted(self._db.batch_tasks.get(batch_id, ()), key=lambda row: row.new.line)
        tasks = tuple(PilotTask(row.id, row.state, row.history, row.body) for row in rows)
        return PilotRun(self._db.batches[batch_id].survey, tasks)

    async def past(self, project_id: ProjectId, *, models: Sequence[str], policies: Sequence[str]) -> Past:
        """Over everything there is."""
        outputs: dict[tuple[str, str], list[int]] = defaultdict(list)
        for attempt in reversed(self._db.attempts.values()):
            if attempt.project_id != project_id or attempt.model not in models or attempt.usage is None:
                continue
            known = outputs[attempt.model, attempt.step]
            if attempt.state is AttemptState.SETTLED and len(known) < PAST_CALLS:
                known.append(attempt.usage.completion)
        stage2 = {policy: [0, 0] for policy in policies}
        for row in self._db.tasks.values():
            if row.project_id == project_id and row.state is TaskState.DONE and row.stage in {2, 3}:
                counts = stage2.get(row.new.policy)
                if counts is not None:
                    counts[0 if row.stage == 2 and row.accepted else 1] += 1
        return Past(
            {key: tuple(tokens) for key, tokens in outputs.items() if tokens},
            {policy: (settled, not_settled) for policy, (settled, not_settled) in stage2.items()},
        )
