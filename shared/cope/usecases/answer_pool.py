"""A task that reads the answer pool: ended by an identical one's steps, before anything is asked or charged."""

from typing import Protocol

from cope.core.answer_pool import answered_by, pool_key_of
from cope.core.history import History
from cope.core.ids import TaskId
from cope.core.models import ModelCatalog
from cope.core.policies.decision import Accept
from cope.core.problem import Kind
from cope.core.stages import Step
from cope.core.task import Cache
from cope.ports.answer_pool import Pooled, PoolQuestion
from cope.ports.store import ClaimedTask


class PoolLedger(Protocol):
    """The store's part, grouped with other tasks' by the drainer."""

    async def pooled(self, question: PoolQuestion) -> tuple[Pooled, ...]: ...


async def from_pool(
    ledger: PoolLedger, task: ClaimedTask, catalog: ModelCatalog
) -> tuple[TaskId, History, Accept] | None:
    """Whose result answers the task, its steps at no cost, and the decision; None where it has to be worked out. Only
    tasks that ask for it, and of which no step has been carried out, read the pool."""
    if task.spec.cache is Cache.OFF or task.history:
        return None

    def version(step: Step) -> str | None:
        return prompt_version(catalog, step, task.spec.problem.kind)

    for found in await ledger.pooled(PoolQuestion(task.project_id, pool_key_of(task.spec))):
        answer = answered_by(task.spec, found.task_id, found.steps, version=version)
        if answer is not None:
            return found.task_id, *answer
    return None


def prompt_version(catalog: ModelCatalog, step: Step, kind: Kind) -> str | None:
    """The version of the prompts that the step would be sent with today; None where its model or prompts are gone."""
    if step.model not in catalog.entries or (step.prompt_set or "") not in {"", *catalog.prompt_sets}:
        return None
    return catalog.prompts(step.model, step.prompt_set).version(kind)
