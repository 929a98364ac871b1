"""The shadow audit within a commit: answers counted and sampled, audits made and closed.

Nothing here runs a statement for a project whose share is 0: the share comes with the rows that the commit locks.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cope.adapters.postgres.database import Connection, Row, fetch
from cope.adapters.postgres.identity import new_id
from cope.adapters.postgres.journal import Note
from cope.core import ids
from cope.core.audit import AuditState
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
from cope.core.codec import decode_task, policy_id
from cope.core.ids import ProjectId, TaskId
from cope.core.policies.spec import PolicySpec
from cope.core.stages import Tier
from cope.core.task import OnBudget
from cope.ports.store import StepCommit, ToDone, ToFailed


class _Place(NamedTuple):
    """A row of `audit_population`, in the month that the statement finds; sorts in locking order."""

    project_id: str
    batch_id: str
    stage: int
    votes: int
    n: int
    stopped_early: bool
    share: int


@dataclass(frozen=True, slots=True)
class _New:
    """An audit to make, and the task that asks."""

    row: Row
    place: _Place
    about: Auditable
    audit_task_id: str
    policy: str
    payload: str


@dataclass(frozen=True, slots=True)
class _Closed:
    task_id: str
    state: AuditState
    reason: str | None
    answer: str | None
    key: str | None
    cost: int


async def lock_audits(conn: Connection, audit_task_ids: Sequence[str]) -> dict[str, Row]:
    """The open audits that these tasks ask for, by task, locked; no statement where there is no such task."""
    if not audit_task_ids:
        return {}
    rows = await fetch(
        conn,
        """
        SELECT audit_task_id, task_id, batch_id, small_key FROM audits
        WHERE audit_task_id = ANY (%s) AND state = 'pending' ORDER BY task_id FOR NO KEY UPDATE
        """,
        [list(audit_task_ids)],
    )
    return {row["audit_task_id"]: row for row in rows}


class AuditWork:
    """What one group of commits means for audits. `audited` are the open audits among its tasks."""

    def __init__(self, audited: dict[str, Row]) -> None:
        self._audited = audited
        self._population: Counter[_Place] = Counter()
        self._new: list[_New] = []
        self._closed: list[_Closed] = []
        self.notes: list[Note] = []

    def look_at(self, row: Row, policy: PolicySpec | None, one: StepCommit) -> None:
        """A commit that counts, by its task's locked row; `policy` is the task's, needed where it may be audited."""
        audit = self._audited.pop(one.task_id, None)
        if audit is not None and isinstance(one.next, (ToDone, ToFailed)):
            self._close(row, audit, one)
        if one.audit is not None and policy is not None and isinstance(one.next, ToDone) and row["share"]:
            self._consider(row, policy, one.audit)

    def _consider(self, row: Row, policy: PolicySpec, about: Auditable) -> None:
        s = about.stratum
        place = _Place(row["project_id"], row["batch_id"] or "", s.stage, s.votes, s.n, s.stopped_early, row["share"])
        self._population[place] += 1
        if not is_sampled(TaskId(row["id"]), ProjectId(row["project_id"]), row["share"]):
            return
        spec = decode_task(
            TaskId(row["id"]), payload=row["payload"], policy=policy, seed=row["seed"], on_budget=row["on_budget"]
        )
        self._new.append(_New(row, place, about, new_id(ids.TASK), audit_policy(policy), audit_payload(spec)))

    def _close(self, row: Row, audit: Row, one: StepCommit) -> None:
        failed = one.next.error.code if isinstance(one.next, ToFailed) else None
        state = AuditState.DROPPED if failed is not None else verdict(audit["small_key"], one.finished)
        sample = one.finished.arrived[0] if one.finished is not None and one.finished.arrived else None
        self._closed.append(
            _Closed(
                audit["task_id"],
                state,
                failed,
                None if sample is None or sample.answer is None else storable(sample.answer),
                None if sample is None or sample.key is None else storable(sample.key),
                0 if one.finished is None else one.finished.cost,
            )
        )
        self.notes.append(
            Note(row["project_id"], f"audit.{state.value}", audit["batch_id"], audit["task_id"], {"code": failed})
        )

    async def write(self, conn: Connection) -> None:
        """Audits, their tasks and the population. Comes after the tasks' own rows and before batches (lock order)."""
        if self._closed:
            await conn.execute(_CLOSE, [list(column) for column in zip(*map(_closed_row, self._closed), strict=True)])
        if self._new:
            policies = {policy_id(new.policy): new.policy for new in self._new}
            await conn.execute(_PUT_POLICIES, [sorted(policies), [policies[name] for name in sorted(policies)]])
            await conn.execute(_NEW_TASKS, [list(column) for column in zip(*map(_task_row, self._new), strict=True)])
            await conn.execute(_NEW_AUDITS, [list(column) for column in zip(*map(_audit_row, self._new), strict=True)])
        if self._population:
            rows = [(*place, accepted) for place, accepted in sorted(self._population.items())]
            await conn.execute(_COUNT, [list(column) for column in zip(*rows, strict=True)])


def _closed_row(one: _Closed) -> tuple[object, ...]:
    return one.task_id, one.state.value, one.reason, one.answer, one.key, one.cost


def _task_row(new: _New) -> tuple[object, ...]:
    return new.audit_task_id, new.row["project_id"], policy_id(new.policy), new.row["seed"], new.payload


def _audit_row(new: _New) -> tuple[object, ...]:
    place, about = new.place, new.about
    return (
        new.row["id"], new.row["project_id"], new.row["batch_id"], new.audit_task_id, place.stage,
        place.votes, place.n, place.stopped_early, place.share, storable(about.answer), storable(about.key),
    )  # fmt: skip


_PUT_POLICIES = "INSERT INTO policies (id, spec) SELECT * FROM unnest(%s::text[], %s::text[]) ON CONFLICT DO NOTHING"

# No batch and no body hash: no counter counts it, no list of a batch's tasks shows it, no retry joins it.
_NEW_TASKS = f"""
INSERT INTO tasks (id, project_id, policy_id, seed, payload, key_id, queue, on_budget, turn, priority, line)
SELECT n.*, '{AUDIT_SCOPE}', '{Tier.LARGE.value}', '{OnBudget.FAIL.value}', 0, {AUDIT_PRIORITY}, 0
FROM unnest(%b::text[], %b::text[], %b::text[], %s::bigint[], %b::text[])
  AS n (id, project_id, policy_id, seed, payload)
"""  # noqa: S608

# The month is that of the project's zone, as every budget's.
_MONTH = "(SELECT to_char(now() AT TIME ZONE p.time_zone, 'YYYY-MM') FROM projects p WHERE p.id = w.project_id)"

_NEW_AUDITS = f"""
INSERT INTO audits (task_id, project_id, batch_id, audit_task_id, stage, votes, n, stopped_early, share, small_answer,
                    small_key, month)
SELECT w.*, {_MONTH}
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::smallint[], %s::smallint[], %s::smallint[], %s::bool[],
            %s::int[], %b::text[], %b::text[])
  AS w (task_id, project_id, batch_id, audit_task_id, stage, votes, n, stopped_early, share, small_answer, small_key)
"""  # noqa: S608

_CLOSE = """
UPDATE audits a SET state = c.state, reason = c.reason, large_answer = c.answer, large_key = c.key, cost = c.cost,
  finished_at = now()
FROM unnest(%s::text[], %s::text[], %s::text[], %b::text[], %b::text[], %s::bigint[])
  AS c (task_id, state, reason, answer, key, cost)
WHERE a.task_id = c.task_id
"""

# Rows are taken in the order given: two commits that count the same strata must not wait for each other crosswise.
_COUNT = f"""
INSERT INTO audit_population AS known
  (project_id, batch_id, stage, votes, n, stopped_early, share, accepted, month)
SELECT w.project_id, w.batch_id, w.stage, w.votes, w.n, w.stopped_early, w.share, w.accepted, {_MONTH}
FROM unnest(%s::text[], %s::text[], %s::smallint[], %s::smallint[], %s::smallint[], %s::bool[], %s::int[],
            %s::bigint[]) WITH ORDINALITY
  AS w (project_id, batch_id, stage, votes, n, stopped_early, share, accepted, place)
ORDER BY w.place
ON CONFLICT (project_id, month, batch_id, stage, votes, n, stopped_early, share)
  DO UPDATE SET accepted = known.accepted + excluded.accepted
"""  # noqa: S608
