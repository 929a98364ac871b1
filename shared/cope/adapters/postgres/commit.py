"""Commit and give back: fenced, grouped, one transaction. Lock order: task → audit → attempt → batch → budget."""

from collections.abc import Sequence
from typing import assert_never

from cope.adapters.postgres.answer_pool import leave_pool
from cope.adapters.postgres.audits import AuditWork, lock_audits
from cope.adapters.postgres.claim import Policies
from cope.adapters.postgres.counters import BatchDeltas
from cope.adapters.postgres.database import Connection, Row, fetch
from cope.adapters.postgres.journal import Note, write_notes
from cope.adapters.postgres.money import Books, lock_attempts
from cope.adapters.postgres.reconciling import keep_reconciled_answer
from cope.adapters.postgres.responses import tell_of_ended
from cope.adapters.postgres.settlement import close_books
from cope.adapters.postgres.steps import insert_steps, prune, prune_ended, update_steps
from cope.adapters.postgres.taskrows import TaskRef, TaskWrite, count, never_executed, notes_of, write_tasks
from cope.core.budget import AUDIT_SCOPE
from cope.core.codec import encode_step
from cope.core.lifecycle import TaskState
from cope.core.stages import Tier
from cope.ports.store import (
    CommitStatus,
    GiveBack,
    Settlement,
    StepCommit,
    ToDone,
    ToFailed,
    ToQueue,
)

_UNDONE = {"cancelled", "expired"}
_AT_WORK = {"leased", "submitted"}


async def commit(conn: Connection, policies: Policies, commits: Sequence[StepCommit]) -> list[CommitStatus]:
    """One status per commit, in order."""
    rows = await _lock(conn, [(c.task_id, not isinstance(c.next, ToQueue), c.audit is not None) for c in commits])
    await policies.load(conn, {row["policy_id"] for row in rows.values() if row["payload"] is not None})
    audited = await lock_audits(conn, [row["id"] for row in rows.values() if row["key_id"] == AUDIT_SCOPE])
    work = _Work(rows, policies, AuditWork(audited))
    work.books.add(await lock_attempts(conn, _attempt_ids(commits)))
    statuses = [work.add(one) for one in commits]
    await work.write(conn)
    return statuses


async def give_back(conn: Connection, policies: Policies, returns: Sequence[GiveBack]) -> None:
    """Ready again, held, or ended where the task was cancelled meanwhile. A lost lease's settlements still count."""
    rows = await _lock(conn, [(back.task_id, False, False) for back in returns])
    books = Books(await lock_attempts(conn, _attempt_ids(returns)))
    writes: list[TaskWrite] = []
    for back in returns:
        _book(books, back.settlements, back.released)
        row = rows.get(back.task_id)
        if row is None or row["state"] != ("submitted" if back.submitted else "leased") or row["fence"] != back.fence:
            continue
        del rows[back.task_id]
        ref = _ref(row)
        if row["ending"] is not None:
            writes.append(never_executed(ref, TaskState(row["ending"])))
        else:
            writes.append(
                TaskWrite(
                    ref,
                    TaskState.READY if back.hold is None else TaskState.HELD,
                    delay_s=back.delay_s,
                    hold=back.hold,
                    needed=back.needed,
                    count_try=back.count_try,
                    note=back.note,
                )
            )
    await write_tasks(conn, writes)
    await _end_batch_turns(conn, [(back.task_id, back.batch_off) for back in returns if back.batch_off])
    ended = [write.task.id for write in writes if write.error is not None]
    if ended:
        await prune_ended(conn, policies, ended)
    await write_notes(conn, notes_of(writes))
    await tell_of_ended(conn, writes)
    deltas = BatchDeltas()
    count(writes, deltas)
    await close_books(conn, books, deltas)


async def _end_batch_turns(conn: Connection, turns: Sequence[tuple[str, str]]) -> None:
    """These tasks' steps no longer wait for the provider's batch. The rows are locked."""
    if turns:
        await conn.execute(
            "UPDATE tasks t SET batch_off = n.step FROM unnest(%s::text[], %s::text[]) AS n (id, step) "
            "WHERE t.id = n.id",
            [[task_id for task_id, _ in turns], [step for _, step in turns]],
        )


async def store_late_answer(conn: Connection, settlement: Settlement, answer: str) -> None:
    """Settled once; the answer waits for the next attempt of the same (task, step)."""
    books = Books(await lock_attempts(conn, [settlement.attempt_id]))
    if not books.settle(settlement, answer):
        await keep_reconciled_answer(conn, settlement, answer)
    await close_books(conn, books, BatchDeltas())


class _Work:
    """What one group of commits comes to, decided before anything is written."""

    def __init__(self, rows: dict[str, Row], policies: Policies, audits: AuditWork) -> None:
        self._rows = rows
        self._policies = policies
        self._audits = audits
        self.books = Books()
        self._deltas = BatchDeltas()
        self._writes: list[TaskWrite] = []
        self._new_steps: list[tuple[str, str, str]] = []
        self._changed_steps: list[tuple[str, str, str]] = []
        self._notes: list[Note] = []
        self._ended_between: list[str] = []
        self._cached: list[str] = []

    def add(self, one: StepCommit) -> CommitStatus:
        """Judge one commit by its task's locked row."""
        row = self._rows.get(one.task_id)
        if row is None or row["fence"] != one.fence:
            return CommitStatus.FENCED
        if row["state"] in _UNDONE:
            _book(self.books, one.settlements, one.released)
            return CommitStatus.CANCELLED
        if row["state"] not in _AT_WORK or (one.finished is not None and one.finished.name in row["names"]):
            return CommitStatus.FENCED
        del self._rows[one.task_id]  # a second commit of this task in the group comes too late
        _book(self.books, one.settlements, one.released)
        self._keep_step(row, one)
        write = self._next(row, one)
        self._writes.append(write)
        self._audits.look_at(row, None if row["payload"] is None else self._policies[row["policy_id"]], one)
        if write.state in {TaskState.CANCELLED, TaskState.EXPIRED}:
            self._ended_between.append(one.task_id)
            return CommitStatus.CANCELLED
        return CommitStatus.COMMITTED

    def _keep_step(self, row: Row, one: StepCommit) -> None:
        step = one.finished
        if isinstance(one.next, ToQueue):
            data = None if step is None else encode_step(step)
        else:
            changed, data = prune(
                one.task_id,
                payload=row["payload"],
                policy=self._policies[row["policy_id"]],
                seed=row["seed"],
                on_budget=row["on_budget"],
                stored=row["steps"],
                last=step,
            )
            self._changed_steps += changed
        if step is None or data is None:
            return
        self._new_steps.append((one.task_id, step.name, data))
        delta = self._deltas.of(row["batch_id"], row["project_id"])
        delta.usage += step.usage
        if step.tier is Tier.SMALL:
            delta.small_steps += 1
        else:
            delta.large_steps += 1
        if one.parses is not None:
            delta.judged += 1
            delta.parsed += one.parses
        if row["key_id"] == AUDIT_SCOPE:
            return
        about: dict[str, str | int | None] = {"step": step.name, "stage": int(step.stage), "cost_nanousd": step.cost}
        self._notes.append(Note(row["project_id"], "task.step_finished", row["batch_id"], one.task_id, about))

    def _next(self, row: Row, one: StepCommit) -> TaskWrite:
        ref = _ref(row)
        match one.next:
            case ToQueue(queue):
                if row["ending"] is not None:
                    return never_executed(ref, TaskState(row["ending"]))
                return TaskWrite(ref, TaskState.READY, queue=queue)
            case ToDone(body, stage, accepted, cached):
                if cached:
                    self._cached.append(one.task_id)
                return TaskWrite(ref, TaskState.DONE, body=body, status=200, stage=stage, accepted=accepted)
            case ToFailed(error, body, status):
                return TaskWrite(ref, TaskState.FAILED, body=body, status=status, error=error)
            case _:
                assert_never(one.next)

    async def write(self, conn: Connection) -> None:
        """In lock order. Pipelined: the statements wait for each other in the server, not on the wire."""
        count(self._writes, self._deltas)
        async with conn.pipeline():
            await leave_pool(conn, self._cached)
            await write_tasks(conn, self._writes)
            await insert_steps(conn, self._new_steps)
            await update_steps(conn, self._changed_steps)
            await write_notes(conn, [*self._notes, *notes_of(self._writes), *self._audits.notes])
            await tell_of_ended(conn, self._writes)
            await self._audits.write(conn)
            if self._ended_between:
                await prune_ended(conn, self._policies, self._ended_between)
            await close_books(conn, self.books, self._deltas)


async def _lock(conn: Connection, tasks: Sequence[tuple[str, bool, bool]]) -> dict[str, Row]:
    """Lock these (task, whether it ends, whether it may be audited) in order; with what pruning needs for those that
    end, the share of their project or batch for those that may be audited (a dry run's are not: it costs nothing), and
    the names of their steps."""
    ends: dict[str, bool] = {}
    audited: dict[str, bool] = {}
    for task_id, last, audit in tasks:
        ends[task_id] = ends.get(task_id, False) or last
        audited[task_id] = audited.get(task_id, False) or audit
    rows = await fetch(
        conn,
        """
        SELECT t.id, t.fence, t.state, t.hold, t.ending, t.project_id, t.batch_id, t.key_id, t.custom_id, t.policy_id,
          t.line, t.queue, t.seed, t.on_budget, CASE WHEN c.ends THEN t.payload END AS payload,
          CASE WHEN c.ends THEN ARRAY(SELECT s.data FROM steps s WHERE s.task_id = t.id ORDER BY s.at) END AS steps,
          ARRAY(SELECT s.name FROM steps s WHERE s.task_id = t.id) AS names,
          CASE WHEN c.audited AND NOT EXISTS (SELECT FROM quotes q WHERE q.batch_id = t.batch_id) THEN coalesce(
            (SELECT b.audit_share FROM batches b WHERE b.id = t.batch_id),
            (SELECT p.audit_share FROM projects p WHERE p.id = t.project_id)) END AS share
        FROM tasks t JOIN unnest(%s::text[], %s::bool[], %s::bool[]) AS c (id, ends, audited) ON t.id = c.id
        ORDER BY t.id FOR NO KEY UPDATE OF t
        """,
        [list(ends), list(ends.values()), list(audited.values())],
    )
    return {row["id"]: dict(row) for row in rows}


def _ref(row: Row) -> TaskRef:
    return TaskRef(
        *(row["id"], row["project_id"], row["batch_id"], row["custom_id"], row["line"], row["queue"]),
        is_audit=row["key_id"] == AUDIT_SCOPE,
    )


def _attempt_ids(items: Sequence[StepCommit] | Sequence[GiveBack]) -> list[str]:
    return [*(s.attempt_id for item in items for s in item.settlements), *(a for item in items for a in item.released)]


def _book(books: Books, settlements: Sequence[Settlement], released: Sequence[str]) -> None:
    for settlement in settlements:
        books.settle(settlement)
    for attempt_id in released:
        books.release(attempt_id)
