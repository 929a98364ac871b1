"""What a contract test acts on: both sides of one store, its clock, and short ways to say common things."""

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg import sql

from cope.adapters.memory import FixedClock, MemoryStore, SequentialIds
from cope.adapters.memory.ledger import write_external
from cope.adapters.postgres.backup import mark_restored
from cope.core.answers.model import AnswerKey
from cope.core.audit import Stratum
from cope.core.audit_sampling import Auditable
from cope.core.budget import month_of, scopes_of
from cope.core.errors import ErrorInfo
from cope.core.event_types import EVENT_TYPES
from cope.core.history import FinishedStep
from cope.core.ids import AttemptId, BatchId, KeyId, ProjectId, TaskId
from cope.core.lifecycle import BatchStatus, HoldReason, TaskState
from cope.core.money import NanoUSD, TokenUsage
from cope.core.records import ApiKey, Batch, Budget, Delivery, Event, Project, TaskDetail
from cope.core.restored import RestoreNotice
from cope.core.result import error_body
from cope.core.stages import Stage, Tier
from cope.core.task import TaskSpec
from cope.ports.store import (
    ApiStore,
    BatchJob,
    ClaimedTask,
    CommitStatus,
    GiveBack,
    Granted,
    NewBatch,
    NewLiveTask,
    NewTask,
    ReserveRequest,
    ReserveResult,
    ResultLine,
    Settlement,
    StepCommit,
    SweepReport,
    ToDone,
    ToFailed,
    ToQueue,
    WorkerStore,
)
from tests.support import finished_step, make_batch, make_file, make_key, make_new_task, make_project, new_id

LEASE_S = 30.0
SECRET = "whsec_cHJvamVjdC1zZWNyZXQtb2YtdGhlLXRlc3Rz"


class World(ABC):
    """A fresh, empty store. `advance` moves its clock."""

    def __init__(self, api: ApiStore, worker: WorkerStore) -> None:
        self.api = api
        self.worker = worker

    @abstractmethod
    async def advance(self, seconds: float) -> None:
        """Let time pass for leases, due times and windows."""

    @abstractmethod
    def now(self) -> datetime:
        """The store's present, aware, UTC."""

    @abstractmethod
    async def book_external(self, project: Project, amount: int, *, key_id: KeyId | None = None) -> None:
        """Spend that was measured elsewhere, in this month's books."""

    async def mark_restored(self, backup_at: datetime) -> None:
        """As a restore leaves it: every project paused, until it is reconciled."""
        raise AssertionError(f"nothing was restored here, nor from {backup_at}")

    # ---- what comes in ---------------------------------------------------------------------------------------------

    async def project(
        self, *, cap: NanoUSD | None = None, time_zone: str = "UTC", name: str = "tests", secret: str = SECRET
    ) -> Project:
        """A stored project; no limit unless given a cap."""
        return await self.api.create_project(make_project(name, cap=cap, time_zone=time_zone), secret)

    async def key(self, project: Project, *, cap: NanoUSD | None = None, secret: str = "sk-test-secret") -> ApiKey:
        """A stored key; no limit of its own unless given a cap."""
        key = await self.api.create_key(make_key(project.id, secret=secret))
        if cap is not None:
            await self.api.set_cap(project.id, cap, scope=key.id)
        return key

    async def submit(
        self,
        project: Project,
        *,
        webhook_url: str | None = None,
        cap: NanoUSD | None = None,
        key_id: KeyId | None = None,
        audit_share: int | None = None,
    ) -> Batch:
        """A batch that is still `validating`."""
        file = await self.api.create_file(make_file(project.id))
        batch = make_batch(project.id, file.id, created_at=self.now(), webhook_url=webhook_url)
        batch = replace(batch, cap=cap, key_id=key_id, audit_share=audit_share)
        return await self.api.create_batch(NewBatch(batch, batch.id.encode(), None, retry=0))

    async def batch(
        self,
        project: Project,
        lines: int = 1,
        *,
        queue: str = "small",
        priority: int = 0,
        expires_in_s: float | None = 86_400,
        webhook_url: str | None = None,
        cap: NanoUSD | None = None,
        key_id: KeyId | None = None,
        audit_share: int | None = None,
    ) -> Batch:
        """A batch in progress with this many tasks, `line-1`, `line-2`, …"""
        await self.submit(project, webhook_url=webhook_url, cap=cap, key_id=key_id, audit_share=audit_share)
        job = await self.worker.claim_validation(lease_s=LEASE_S)
        assert job is not None
        rows = [make_new_task(line, queue=queue, priority=priority) for line in range(1, lines + 1)]
        window = None if expires_in_s is None else timedelta(seconds=expires_in_s)
        count = await self.worker.ingest(job, pages(rows), model=lambda: "cope", expires_in=window)
        assert count == lines
        return await self.see(job.batch)

    async def live(
        self,
        project: Project,
        *,
        queue: str = "small",
        body: bytes = b"body",
        retry: bool = False,
        spec: TaskSpec | None = None,
    ) -> TaskId:
        """A live call."""
        task = make_new_task(0, queue=queue, custom_id="live", spec=spec)
        return await self.api.create_live_task(NewLiveTask(task, project.id, None, body, is_retry=retry))

    # ---- what is seen ----------------------------------------------------------------------------------------------

    async def see(self, batch: Batch) -> Batch:
        """The batch as it is now."""
        seen = await self.api.get_batch(batch.project_id, batch.id)
        assert seen is not None
        return seen

    async def detail(self, project_id: ProjectId, task_id: TaskId) -> TaskDetail:
        """The task as it is now."""
        seen = await self.api.get_task(project_id, task_id)
        assert seen is not None
        return seen

    async def state(self, task: ClaimedTask) -> TaskState:
        """The state of a task that was claimed."""
        return (await self.detail(task.project_id, task.task_id)).state

    async def states(self, batch: Batch) -> list[str]:
        """The states of a batch's tasks, sorted."""
        page = await self.api.list_tasks(batch.project_id, batch.id, state=None, after=None, limit=1000)
        return sorted(task.state.value for task in page.items)

    async def budget(self, project: Project) -> Budget:
        """The present month's."""
        return await self.api.get_budget(project.id)

    async def lines(self, batch: Batch, *, failed: bool, by_input: bool = True) -> list[ResultLine]:
        """All result lines of one kind."""
        pages = self.worker.results(batch.id, by_input=by_input)
        return [line async for page in pages for line in page if line.failed is failed]

    async def events(self, project: Project) -> tuple[Event, ...]:
        """Every event so far, sequenced."""
        await self.sweep()
        events = await self.api.list_events(project.id, after=0, limit=10_000, batch_id=None)
        unknown = {event.type for event in events} - EVENT_TYPES.keys()
        assert not unknown, f"write them down in cope.core.event_types, else nobody can filter by them: {unknown}"
        return events

    # ---- what workers do -------------------------------------------------------------------------------------------

    async def claim(self, queue: str = "small", *, limit: int = 100, lease_s: float = LEASE_S) -> list[ClaimedTask]:
        """As one worker."""
        return await self.worker.claim(queue, worker="worker-1", limit=limit, lease_s=lease_s)

    async def claim_one(self, queue: str = "small", *, lease_s: float = LEASE_S) -> ClaimedTask:
        """The next task, which must be there."""
        (task,) = await self.claim(queue, limit=1, lease_s=lease_s)
        return task

    async def reserve(
        self, task: ClaimedTask, amount: int, *, step: str = "stage3", task_cap: int | None = None
    ) -> ReserveResult:
        """For one paid call."""
        (result,) = await self.worker.reserve([ask(task, amount, step=step, task_cap=task_cap)])
        return result

    async def send(self, task: ClaimedTask, amount: int, *, step: str = "stage3") -> Granted:
        """Reserved and marked as sent."""
        granted = await self.reserve(task, amount, step=step)
        assert isinstance(granted, Granted)
        assert await self.worker.mark_sent([granted.attempt_id]) == {granted.attempt_id}
        return granted

    async def commit(self, *commits: StepCommit) -> list[CommitStatus]:
        """In one transaction."""
        return await self.worker.commit(commits)

    async def hold(self, task: ClaimedTask, needed: int) -> None:
        """Give a task back because its next paid call does not fit under the cap."""
        back = GiveBack(task.task_id, task.fence, hold=HoldReason.BUDGET, needed=NanoUSD(needed))
        await self.worker.give_back([back])

    async def sweep(self) -> SweepReport:
        """Once."""
        return await self.worker.sweep(lease_s=LEASE_S)

    async def finalisation(self) -> BatchJob:
        """The upkeep job of writing a batch's files, which must be due."""
        job = await self.worker.claim_finalisation(lease_s=LEASE_S)
        assert job is not None
        return job

    async def finish(self, batch: Batch) -> BatchStatus | None:
        """Write a batch's files and close it."""
        job = await self.finalisation()
        assert job.batch.id == batch.id
        output = make_file(batch.project_id, purpose="batch_output", filename="output.jsonl")
        return await self.worker.finish_batch(job, output=output, error=None)

    async def finish_all(self, project: Project, lines: int = 1, *, webhook_url: str | None = None) -> Batch:
        """A batch from submission to its end."""
        batch = await self.batch(project, lines, webhook_url=webhook_url)
        await self.commit(*[done(task) for task in await self.claim(limit=lines)])
        assert await self.finish(batch) is BatchStatus.COMPLETED
        return await self.see(batch)

    async def deliveries(self) -> list[Delivery]:
        """Those due now."""
        return await self.worker.claim_deliveries(limit=100, lease_s=LEASE_S)


class MemoryWorld(World):
    """The shipped in-memory store with a clock that stands still."""

    def __init__(self) -> None:
        self.clock = FixedClock()
        # Far from the ids that the tests make themselves: a store that repeats one would write over its task.
        self.store = MemoryStore(self.clock, SequentialIds(10**9))
        super().__init__(self.store, self.store)

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def now(self) -> datetime:
        return self.clock.now()

    async def book_external(self, project: Project, amount: int, *, key_id: KeyId | None = None) -> None:
        db = self.store._db
        month = db.month(project.id)
        write_external(db, project.id, db.ids.new("ext_"), month, amount, key_id=key_id)
        for scope, at in scopes_of(None, key_id, month):
            db.budget(project.id, at, scope).spent += amount

    async def mark_restored(self, backup_at: datetime) -> None:
        db = self.store._db
        held = tuple(sorted(id_ for id_, row in db.projects.items() if not row.project.paused))
        for id_ in held:
            await self.api.update_project(id_, paused=True)
        db.restored = RestoreNotice(backup_at, db.now(), None, held)


class PostgresWorld(World):
    """Real Postgres under its real roles. Its clock can't be moved, so every time in it is moved back instead."""

    def __init__(self, api: ApiStore, worker: WorkerStore, superuser_url: str) -> None:
        super().__init__(api, worker)
        self._superuser_url = superuser_url

    async def advance(self, seconds: float) -> None:
        with psycopg.connect(self._superuser_url, autocommit=True) as conn:
            columns = conn.execute(
                "SELECT table_name, column_name FROM information_schema.columns"
                " WHERE table_schema = 'public' AND data_type = 'timestamp with time zone'"
                " AND table_name NOT IN (SELECT relname FROM pg_class WHERE relispartition)"
            ).fetchall()
            for table, column in columns:
                name = sql.Identifier(column)
                conn.execute(
                    sql.SQL("UPDATE {} SET {} = {} - make_interval(secs => %s) WHERE {} IS NOT NULL").format(
                        sql.Identifier(table), name, name, name
                    ),
                    [seconds],
                )

    async def mark_restored(self, backup_at: datetime) -> None:
        mark_restored(self._superuser_url, backup_at)

    async def book_external(self, project: Project, amount: int, *, key_id: KeyId | None = None) -> None:
        with psycopg.connect(self._superuser_url) as conn:
            month = month_of(self.now(), project.time_zone)
            conn.execute(
                "INSERT INTO ledger (project_id, month, key_id, attempt_id, kind, amount, freed, price_version)"
                " VALUES (%s, %s, %s, %s, 'external', %s, 0, '')",
                [project.id, month, key_id, new_id("ext_"), amount],
            )
            for scope, at in scopes_of(None, key_id, month):
                conn.execute(
                    "INSERT INTO budgets AS b (project_id, scope, month, spent) VALUES (%s, %s, %s, %s)"
                    " ON CONFLICT (project_id, scope, month) DO UPDATE SET spent = b.spent + excluded.spent",
                    [project.id, scope, at, amount],
                )

    def now(self) -> datetime:
        return datetime.now(UTC)


async def pages(rows: Sequence[NewTask], *, page: int = 400) -> AsyncIterator[Sequence[NewTask]]:
    """Rows as the ingest use case hands them over."""
    for start in range(0, len(rows), page):
        yield rows[start : start + page]


def ask(task: ClaimedTask, amount: int, *, step: str = "stage3", task_cap: int | None = None) -> ReserveRequest:
    """The reservation of one paid call."""
    return ReserveRequest(
        task_id=task.task_id,
        fence=task.fence,
        project_id=task.project_id,
        batch_id=task.batch_id,
        step=step,
        model="large",
        price_version="2026-11-01",
        amount=NanoUSD(amount),
        request_id=f"{task.task_id}-{task.fence:06d}",
        task_cap=None if task_cap is None else NanoUSD(task_cap),
    )


def bill(granted: Granted | AttemptId, cost: int, *, overrun: int = 0) -> Settlement:
    """What an attempt came to."""
    attempt_id = granted.attempt_id if isinstance(granted, Granted) else granted
    return Settlement(
        attempt_id=attempt_id,
        cost=NanoUSD(cost),
        overrun=NanoUSD(overrun),
        usage=TokenUsage(prompt=20, completion=10, calls=1),
        flag="overrun" if overrun else None,
        provider_id="chatcmpl-1",
    )


def large_step(cost: int = 0, *, name: str = "stage3") -> FinishedStep:
    """A step of the large model."""
    return finished_step(name, stage=Stage.LARGE_EXECUTES, tier=Tier.LARGE, cost=NanoUSD(cost))


def done(
    task: ClaimedTask,
    *,
    step: FinishedStep | None = None,
    body: str = '{"answer": "5"}',
    stage: int = 1,
    bills: tuple[Settlement, ...] = (),
) -> StepCommit:
    """The step's end is the task's answer."""
    return StepCommit(task.task_id, task.fence, step or finished_step(), ToDone(body, stage, accepted=True), bills)


def accepted(answer: str = "5", *, votes: int = 6, stage: int = 1, early: bool = False) -> Auditable:
    """What a commit says of a confident answer of the small model."""
    return Auditable(Stratum(stage, votes, 8, early), answer, AnswerKey(answer))


def goes_on(
    task: ClaimedTask,
    queue: str = "large",
    *,
    step: FinishedStep | None = None,
    bills: tuple[Settlement, ...] = (),
) -> StepCommit:
    """The task escalates."""
    return StepCommit(task.task_id, task.fence, step or finished_step(), ToQueue(queue), bills)


def fails(task: ClaimedTask, *, code: str = "context_length_exceeded", status: int = 400) -> StepCommit:
    """The task ends in the error file."""
    error = ErrorInfo(code, "It does not fit.", status=status)
    body = json.dumps(error_body(error))
    return StepCommit(task.task_id, task.fence, None, ToFailed(error, body, status))


def batch_ids(tasks: Sequence[ClaimedTask]) -> set[BatchId | None]:
    """Whose tasks these are."""
    return {task.batch_id for task in tasks}
