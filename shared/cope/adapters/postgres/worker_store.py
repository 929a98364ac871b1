"""`WorkerStore` on Postgres, as role `cope_worker`: each method one transaction over the statements of its file."""

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import timedelta

import psycopg

from cope.adapters.postgres import answer_pool, batches, claim, commit, line_retry, prices, quotes, reserve, results
from cope.adapters.postgres.alerts import AlertWatch
from cope.adapters.postgres.budgets import KnownBudgets
from cope.adapters.postgres.database import KEEPALIVE, Connection, Database, fetch_one, hung_up_after
from cope.adapters.postgres.ending import EndWatch
from cope.adapters.postgres.event_relay import EventRelay
from cope.adapters.postgres.ingest import JobLost, ingest
from cope.adapters.postgres.pace import PaceWatch
from cope.adapters.postgres.partitions import Partitions
from cope.adapters.postgres.provider_store import ProviderBatchMethods
from cope.adapters.postgres.records import file_of, project_of
from cope.adapters.postgres.retention_store import RetentionMethods
from cope.adapters.postgres.sealing import Sealer
from cope.adapters.postgres.sequencer import sequence_events
from cope.adapters.postgres.sweep import sweep
from cope.adapters.postgres.webhook_outcomes import finish_deliveries, give_back_deliveries
from cope.adapters.postgres.webhooks import BY_INDEX, Claimer
from cope.core.ids import AttemptId, BatchId, FileId, ProjectId, TaskId
from cope.core.lifecycle import BatchStatus
from cope.core.line_retry import LineRetry
from cope.core.money import Price
from cope.core.quote import Past
from cope.core.records import Delivery, LineError, Project, StoredFile
from cope.core.webhook_lanes import LaneRoom
from cope.ports.answer_pool import Pooled, PoolQuestion
from cope.ports.store import (
    BatchJob,
    ClaimedTask,
    CommitStatus,
    GiveBack,
    Lease,
    MakeRetried,
    NewTask,
    PilotRun,
    ReserveRequest,
    ReserveResult,
    ResultLine,
    Settlement,
    StepCommit,
    SweepReport,
    WebhookOutcome,
)

LEADER_LOCK = 0x6C656164

_UNNUMBERED = "SELECT FROM batches WHERE id = %s AND ends IS DISTINCT FROM total"
_SHORTEST_LIMIT_S = 5.0  # a busy machine is no outage


class PostgresWorkerStore(RetentionMethods, ProviderBatchMethods, EventRelay):
    """Over all projects. `secret_key` is the Fernet key that webhook secrets are sealed with.

    Raises `StoreUnavailable` where the database does not answer. One instance per process and event loop. What takes
    longer than a lease is too late to be of use: the short statements are given up then, and a leader that stood still
    for so long leads no more.
    """

    def __init__(
        self, url: str, *, secret_key: str, min_size: int = 1, max_size: int = 4, lease_s: float = 30.0
    ) -> None:
        self._limit_s = max(lease_s, _SHORTEST_LIMIT_S)
        self._db = Database(url, min_size=min_size, max_size=max_size, name="cope-worker", idle_s=self._limit_s)
        self._sealer = Sealer(secret_key)
        self._policies = claim.Policies()
        self._budgets = KnownBudgets()
        self._partitions = Partitions()
        self._alerts = AlertWatch()
        self._pace = PaceWatch()
        self._endings = EndWatch()
        self._hooks = Claimer()
        self._leading: Connection | None = None
        self._lease_s = lease_s

    async def open(self) -> None:
        """Start the connection pool."""
        await self._db.open()

    async def aclose(self) -> None:
        """Close connections; a led sweep is free for another process."""
        await self._stop_leading()
        await self._stop_relaying()
        await self._db.close()

    # ---- the straight line of a task -------------------------------------------------------------------------------

    async def claim(self, queue: str, *, worker: str, limit: int, lease_s: float) -> list[ClaimedTask]:
        """Live calls first, then by priority and turn."""
        if limit < 1:
            return []
        async with self._db.transaction(limit_s=self._limit_s) as conn:
            rows = await claim.claim(conn, queue, worker=worker, limit=limit, lease_s=lease_s)
            await self._policies.load(conn, {row["policy_id"] for row in rows})
        return [claim.claimed_task(row, self._policies) for row in rows]

    async def renew(self, leases: Sequence[Lease], *, lease_s: float) -> set[TaskId]:
        """The leases that are lost."""
        if not leases:
            return set()
        async with self._db.transaction(limit_s=self._limit_s) as conn:
            return await claim.renew(conn, leases, lease_s=lease_s)

    async def lost(self, leases: Sequence[Lease]) -> set[TaskId]:
        """Those that are not to go on."""
        if not leases:
            return set()
        async with self._db.connection() as conn:
            return await claim.lost(conn, leases)

    async def reserve(self, requests: Sequence[ReserveRequest]) -> list[ReserveResult]:
        """One result per request, in order."""
        if not requests:
            return []
        async with self._db.transaction(limit_s=self._limit_s) as conn:
            return await reserve.reserve(conn, self._budgets, requests)

    async def pooled(self, questions: Sequence[PoolQuestion]) -> list[tuple[Pooled, ...]]:
        """The latest first."""
        if not questions:
            return []
        async with self._db.connection() as conn:
            return await answer_pool.pooled(conn, questions)

    async def mark_sent(self, attempts: Sequence[AttemptId]) -> set[AttemptId]:
        """Committed when this returns."""
        if not attempts:
            return set()
        async with self._db.transaction(limit_s=self._limit_s) as conn:
            return await reserve.mark_sent(conn, attempts)

    async def commit(self, commits: Sequence[StepCommit]) -> list[CommitStatus]:
        """One status per commit, in order."""
        if not commits:
            return []
        async with self._db.transaction(limit_s=self._limit_s) as conn:
            return await commit.commit(conn, self._policies, commits)

    async def give_back(self, returns: Sequence[GiveBack]) -> None:
        """Leases end without a finished step."""
        if not returns:
            return
        async with self._db.transaction(limit_s=self._limit_s) as conn:
            await commit.give_back(conn, self._policies, returns)

    async def store_late_answer(self, settlement: Settlement, answer: str) -> None:
        """Settled once, and kept to be adopted."""
        async with self._db.transaction(limit_s=self._limit_s) as conn:
            await commit.store_late_answer(conn, settlement, answer)

    # ---- the sweep -------------------------------------------------------------------------------------------------

    async def sweep(self, *, lease_s: float, quota_is_back: bool = False) -> SweepReport:
        """Several transactions. `lease_s` is not needed: every lease's end stands in its row."""
        await self._partitions.make_ahead(self._db)
        return await sweep(
            self._db, self._policies, self._alerts, self._pace, self._endings, quota_is_back=quota_is_back
        )

    async def sequence_events(self) -> int:
        """Only the sweep's last part: give new events their offsets. Cheap enough for every 100 ms."""
        async with self._db.transaction(limit_s=self._limit_s) as conn:
            return await sequence_events(conn)

    async def try_lead(self) -> bool:
        """The lock lives as long as its session: a leader that dies, loses the database or stands still for half a
        lease leads no more."""
        try:
            if self._leading is not None:
                with hung_up_after(self._leading, self._limit_s):
                    await self._leading.execute("SELECT 1")
                return True
            return await self._try_to_lead()
        except psycopg.Error:
            await self._stop_leading()
            return False

    async def _try_to_lead(self) -> bool:
        conn = await psycopg.AsyncConnection.connect(
            self._db.url,
            autocommit=True,
            application_name=f"cope-leader {os.getpid()}",
            connect_timeout=10,
            **KEEPALIVE,
        )
        with hung_up_after(conn, self._limit_s):
            row = await (await conn.execute("SELECT pg_try_advisory_lock(%s)", [LEADER_LOCK])).fetchone()
            if row is not None and row[0]:
                # A process that was stopped, or whose host is gone, keeps its session, and with it the lock: the server
                # ends a session that is silent for half a lease, and somebody else sweeps before leases run out.
                silent = f"{self._lease_s * 500:.0f}"
                await conn.execute("SELECT set_config('idle_session_timeout', %s, false)", [silent])
                self._leading = conn
                return True
        await conn.close()
        return False

    async def _stop_leading(self) -> None:
        conn, self._leading = self._leading, None
        if conn is not None:
            with contextlib.suppress(psycopg.Error):
                await conn.close()

    async def due(self) -> Mapping[str, int]:
        """Per queue, capped at 1,000 each."""
        async with self._db.connection() as conn:
            return await claim.due(conn)

    # ---- upkeep ----------------------------------------------------------------------------------------------------

    async def claim_validation(self, *, lease_s: float) -> BatchJob | None:
        """The oldest batch in `validating` that nobody works on."""
        async with self._db.transaction(limit_s=self._limit_s) as conn:
            return await batches.claim_job(conn, batches.NEW, lease_s=lease_s)

    async def claim_finalisation(self, *, lease_s: float) -> BatchJob | None:
        """The oldest batch that only lacks its files."""
        async with self._db.transaction(limit_s=self._limit_s) as conn:
            job = await batches.claim_job(conn, batches.LACKS_FILES, lease_s=lease_s)
            numbered = job is None or await fetch_one(conn, _UNNUMBERED, [job.batch.id]) is None
        if job is not None and not numbered:  # a million lines take their time
            async with self._db.transaction(limit_s=None) as conn:
                await results.number_lines(conn, job.batch.id)
        return job

    async def renew_batch_job(self, job: BatchJob, *, lease_s: float) -> bool:
        """False if it was lost."""
        async with self._db.transaction(limit_s=self._limit_s) as conn:
            return await batches.renew_job(conn, job, lease_s=lease_s)

    async def ingest(
        self,
        job: BatchJob,
        rows: AsyncIterator[Sequence[NewTask]],
        *,
        model: Callable[[], str | None],
        expires_in: timedelta | None,
    ) -> int | None:
        """All rows and the batch's start, or nothing."""
        with contextlib.suppress(JobLost):
            async with self._db.transaction(limit_s=None) as conn:
                return await ingest(conn, job, rows, model=model, expires_in=expires_in)
        return None

    async def line_retry(self, job: BatchJob) -> LineRetry:
        """What a batch that is a retry takes up again."""
        async with self._db.connection() as conn:
            return await line_retry.line_retry(conn, job)

    async def take_lines(self, job: BatchJob, make: MakeRetried, *, expires_in: timedelta | None) -> int | None:
        """All lines and the retry's start, or nothing."""
        with contextlib.suppress(JobLost):
            async with self._db.transaction(limit_s=None) as conn:
                return await line_retry.take_lines(conn, self._policies, job, make, expires_in=expires_in)
        return None

    async def fail_validation(
        self, job: BatchJob, errors: Sequence[LineError], *, output: StoredFile | None = None
    ) -> bool:
        """Nothing happens if the job was lost."""
        async with self._db.transaction() as conn:
            return await batches.fail_validation(conn, job, errors, output=output)

    def results(self, batch_id: BatchId, *, by_input: bool) -> AsyncIterator[Sequence[ResultLine]]:
        """Pages of at most 500 lines or 4 MiB, each a transaction of its own."""
        return results.all_pages(self._db, batch_id, by_input=by_input)

    async def put_survey(self, job: BatchJob, survey: str) -> None:
        """Nothing happens if the job was lost."""
        async with self._db.transaction() as conn:
            await quotes.put_survey(conn, job, survey)

    async def pilot(self, batch_id: BatchId) -> PilotRun:
        """By line."""
        async with self._db.transaction() as conn:
            return await quotes.pilot(conn, batch_id)

    async def past(self, project_id: ProjectId, *, models: Sequence[str], policies: Sequence[str]) -> Past:
        """Of the latest attempts and tasks in the database."""
        async with self._db.transaction() as conn:
            return await quotes.past(conn, project_id, models=models, policies=policies)

    async def finish_batch(
        self, job: BatchJob, *, output: StoredFile | None, error: StoredFile | None, quote: str | None = None
    ) -> BatchStatus | None:
        """Files, status, event and deliveries in one transaction."""
        async with self._db.transaction() as conn:
            return await batches.finish_batch(conn, job, output=output, error=error, quote=quote)

    async def claim_deliveries(
        self,
        *,
        limit: int,
        lease_s: float,
        room: LaneRoom | None = None,
        ended: Sequence[WebhookOutcome] = (),
    ) -> list[Delivery]:
        """The longest due first, lanes in turns."""
        async with self._db.connection() as conn, conn.pipeline(), conn.transaction():
            await conn.execute(BY_INDEX)
            if ended:
                await finish_deliveries(conn, ended)
            if limit < 1:
                return []
            return await self._hooks.claim(conn, self._sealer, limit=limit, lease_s=lease_s, room=room)

    async def give_back_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        """Due at once."""
        async with self._db.transaction() as conn:
            await give_back_deliveries(conn, deliveries)

    async def finish_deliveries(self, outcomes: Sequence[WebhookOutcome]) -> None:
        """Record attempts and schedule or end them."""
        if not outcomes:
            return
        async with self._db.connection() as conn, conn.pipeline(), conn.transaction():
            await conn.execute(BY_INDEX)
            await finish_deliveries(conn, outcomes)

    async def file(self, file_id: FileId) -> StoredFile | None:
        """A file's row, of any project."""
        async with self._db.connection() as conn:
            row = await fetch_one(conn, "SELECT * FROM files WHERE id = %s", [file_id])
        return None if row is None else file_of(row)

    async def project(self, project_id: ProjectId) -> Project | None:
        """A project's row."""
        async with self._db.connection() as conn:
            row = await fetch_one(conn, "SELECT * FROM projects WHERE id = %s", [project_id])
        return None if row is None else project_of(row)

    async def put_prices(self, new: Sequence[Price]) -> None:
        """A different price under a known key is a `Conflict`."""
        async with self._db.transaction() as conn:
            await prices.put_prices(conn, new)

    async def count_prices(self) -> int:
        """How many rows there are."""
        async with self._db.connection() as conn:
            return await prices.count_prices(conn)

    async def list_prices(self) -> tuple[Price, ...]:
        """All of them."""
        async with self._db.connection() as conn:
            return await prices.list_prices(conn)
