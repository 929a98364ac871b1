"""The shadow audit as the API sees it: the share, counts by stratum, and the audited pairs."""

from cope.adapters.postgres.api_tasks import ApiTasks
from cope.adapters.postgres.database import Row, fetch, fetch_one
from cope.adapters.postgres.paging import page_of
from cope.adapters.postgres.records import project_of
from cope.core.answers.model import AnswerKey
from cope.core.audit import Audit, AuditCounts, AuditState, Stratum, StratumCounts
from cope.core.ids import BatchId, ProjectId, TaskId
from cope.core.money import NanoUSD
from cope.core.records import Project
from cope.ports.store import Page

_STRATUM = "stage, votes, n, stopped_early, share"

# Every audit's answer was counted, so the population has a row for each stratum that an audit is in.
_COUNTS = f"""
SELECT {_STRATUM}, p.accepted, coalesce(a.pending, 0) AS pending, coalesce(a.agreed, 0) AS agreed,
  coalesce(a.disagreed, 0) AS disagreed, coalesce(a.unparsable, 0) AS unparsable, coalesce(a.dropped, 0) AS dropped,
  coalesce(a.cost, 0) AS cost
FROM (
  SELECT {_STRATUM}, sum(accepted)::bigint AS accepted FROM audit_population
  WHERE project_id = %(project)s AND {{}} = %(of)s GROUP BY {_STRATUM}
) p LEFT JOIN (
  SELECT {_STRATUM}, count(*) FILTER (WHERE state = 'pending') AS pending,
    count(*) FILTER (WHERE state = 'agreed') AS agreed, count(*) FILTER (WHERE state = 'disagreed') AS disagreed,
    count(*) FILTER (WHERE state = 'unparsable') AS unparsable, count(*) FILTER (WHERE state = 'dropped') AS dropped,
    sum(cost)::bigint AS cost
  FROM audits WHERE project_id = %(project)s AND {{}} = %(of)s GROUP BY {_STRATUM}
) a USING ({_STRATUM})
ORDER BY {_STRATUM}
"""  # noqa: S608

_LIST = """
SELECT a.*, t.custom_id FROM audits a LEFT JOIN tasks t ON t.id = a.task_id
WHERE a.project_id = %(project)s AND {} (%(state)s::text IS NULL OR a.state = %(state)s)
  AND (%(after)s::text IS NULL OR a.task_id > %(after)s)
ORDER BY a.task_id LIMIT %(limit)s
"""


class ApiAudits(ApiTasks):
    """What may be seen of audits; only a worker writes them."""

    async def set_audit_share(self, project_id: ProjectId, share: int) -> Project | None:
        """The project as it is then, or None."""
        async with self._db.transaction(project=project_id) as conn:
            row = await fetch_one(
                conn, "UPDATE projects SET audit_share = %s WHERE id = %s RETURNING *", [share, project_id]
            )
        return None if row is None else project_of(row)

    async def audit_counts(
        self, project_id: ProjectId, *, month: str | None = None, batch_id: BatchId | None = None
    ) -> tuple[StratumCounts, ...]:
        """In the order of strata."""
        column, of = ("month", month) if batch_id is None else ("batch_id", batch_id)
        async with self._db.transaction(project=project_id) as conn:
            rows = await fetch(conn, _COUNTS.format(column, column), {"project": project_id, "of": of})
        return tuple(_counts_of(row) for row in rows)

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
        of_batch = "" if batch_id is None else "a.batch_id = %(batch)s AND"
        async with self._db.transaction(project=project_id) as conn:
            rows = await fetch(
                conn,
                _LIST.format(of_batch),
                {"project": project_id, "batch": batch_id, "state": state, "after": after, "limit": limit + 1},
            )
        return page_of([_audit_of(row) for row in rows], limit)


def _stratum_of(row: Row) -> Stratum:
    return Stratum(row["stage"], row["votes"], row["n"], row["stopped_early"])


def _counts_of(row: Row) -> StratumCounts:
    counts = AuditCounts(
        accepted=row["accepted"],
        pending=row["pending"],
        agreed=row["agreed"],
        disagreed=row["disagreed"],
        unparsable=row["unparsable"],
        dropped=row["dropped"],
        cost=NanoUSD(row["cost"]),
    )
    return StratumCounts(_stratum_of(row), row["share"], counts)


def _audit_of(row: Row) -> Audit:
    return Audit(
        task_id=TaskId(row["task_id"]),
        project_id=ProjectId(row["project_id"]),
        batch_id=None if row["batch_id"] is None else BatchId(row["batch_id"]),
        audit_task_id=TaskId(row["audit_task_id"]),
        month=row["month"],
        stratum=_stratum_of(row),
        share=row["share"],
        small_answer=row["small_answer"],
        small_key=AnswerKey(row["small_key"]),
        created_at=row["created_at"],
        custom_id=row["custom_id"],
        state=AuditState(row["state"]),
        large_answer=row["large_answer"],
        large_key=None if row["large_key"] is None else AnswerKey(row["large_key"]),
        reason=row["reason"],
        cost=NanoUSD(row["cost"]),
        finished_at=row["finished_at"],
    )
