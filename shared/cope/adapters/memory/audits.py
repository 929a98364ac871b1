"""The shadow audit over the memory store: answers counted and sampled, audits closed and shown."""

from collections import Counter
from dataclasses import replace

from cope.adapters.memory.api_batches import ApiBatchesMixin
from cope.adapters.memory.api_projects import page_of
from cope.adapters.memory.journal import note
from cope.adapters.memory.tables import Tables, TaskRow
from cope.core import ids
from cope.core.audit import Audit, AuditCounts, AuditState, StratumCounts
from cope.core.audit_sampling import (
    AUDIT_PRIORITY,
    Auditable,
    audit_payload,
    audit_policy,
    is_sampled,
    storable,
    verdict,
)
from cope.core.budget import AUDIT_SCOPE
from cope.core.history import FinishedStep
from cope.core.ids import BatchId, KeyId, ProjectId, TaskId
from cope.core.money import ZERO
from cope.core.records import Project
from cope.core.stages import Tier
from cope.core.task import OnBudget
from cope.ports.store import NewTask, Page


def consider(db: Tables, row: TaskRow, about: Auditable) -> None:
    """Count an accepted answer, and make its audit if it is sampled. Nothing while the share is 0, nor of a dry run."""
    project = db.project(row.project_id)
    batch = None if row.batch_id is None else db.batches[row.batch_id].batch
    if batch is not None and batch.dry_run is not None:
        return
    own = None if batch is None else batch.audit_share
    share = project.audit_share if own is None else own
    if not share:
        return
    month = db.month(row.project_id)
    db.audit_population[row.project_id, month, row.batch_id, about.stratum, share] += 1
    if not is_sampled(row.id, row.project_id, share):
        return
    task = NewTask(
        task_id=TaskId(db.ids.new(ids.TASK)),
        line=0,
        custom_id="",
        payload=audit_payload(row.spec),
        policy=audit_policy(row.spec.policy),
        seed=row.spec.seed,
        queue=Tier.LARGE.value,
        priority=AUDIT_PRIORITY,
        on_budget=OnBudget.FAIL,
    )
    db.add_task(task, project_id=row.project_id, batch_id=None, key_id=KeyId(AUDIT_SCOPE))
    db.audits[row.id] = Audit(
        task_id=row.id,
        project_id=row.project_id,
        batch_id=row.batch_id,
        audit_task_id=task.task_id,
        month=month,
        stratum=about.stratum,
        share=share,
        small_answer=storable(about.answer),
        small_key=storable(about.key),
        created_at=db.now(),
        custom_id=None if row.batch_id is None else row.new.custom_id,
    )


def close(db: Tables, row: TaskRow, finished: FinishedStep | None, failed: str | None) -> None:
    """An audit's task has ended: with the large model's answer, or `failed` with this code."""
    audit = next((a for a in db.audits.values() if a.audit_task_id == row.id and a.state is AuditState.PENDING), None)
    if audit is None:
        return
    state = AuditState.DROPPED if failed is not None else verdict(audit.small_key, finished)
    sample = finished.arrived[0] if finished is not None and finished.arrived else None
    db.audits[audit.task_id] = replace(
        audit,
        state=state,
        reason=failed,
        large_answer=None if sample is None or sample.answer is None else storable(sample.answer),
        large_key=None if sample is None or sample.key is None else storable(sample.key),
        cost=ZERO if finished is None else finished.cost,
        finished_at=db.now(),
    )
    note(db, audit.project_id, f"audit.{state.value}", batch_id=audit.batch_id, task_id=audit.task_id, code=failed)


class AuditsMixin(ApiBatchesMixin):
    """What may be seen of audits."""

    async def set_audit_share(self, project_id: ProjectId, share: int) -> Project | None:
        """The project as it is then, or None."""
        owner = self._db.projects.get(project_id)
        if owner is None:
            return None
        owner.project = replace(owner.project, audit_share=share)
        return owner.project

    async def audit_counts(
        self, project_id: ProjectId, *, month: str | None = None, batch_id: BatchId | None = None
    ) -> tuple[StratumCounts, ...]:
        """In the order of strata."""
        found: dict[tuple[object, ...], StratumCounts] = {}
        for (project, at, batch, stratum, share), accepted in self._db.audit_population.items():
            if project == project_id and (at == month if batch_id is None else batch == batch_id):
                before = found.get((stratum, share), StratumCounts(stratum, share, AuditCounts())).counts
                found[stratum, share] = StratumCounts(stratum, share, before + AuditCounts(accepted=accepted))
        for audit in self._db.audits.values():
            of = audit.stratum, audit.share
            mine = audit.month == month if batch_id is None else audit.batch_id == batch_id
            if audit.project_id == project_id and mine:
                one = AuditCounts(cost=audit.cost, **Counter({audit.state.value: 1}))
                found[of] = replace(found[of], counts=found[of].counts + one)
        return tuple(sorted(found.values(), key=lambda s: (s.stratum, s.share)))

    async def list_audits(
        self,
        project_id: ProjectId,
        *,
        batch_id: BatchId | None,
        state: AuditState | None,
        after: TaskId | None,
        limit: int,
    ) -> Page[Audit]:
        """Oldest first."""
        mine = (
            audit
            for audit in self._db.audits.values()
            if audit.project_id == project_id
            and (batch_id is None or audit.batch_id == batch_id)
            and (state is None or audit.state is state)
        )
        return page_of(mine, after=after, limit=limit, ascending=True, id_of=lambda audit: audit.task_id)
