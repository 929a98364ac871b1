"""What the Postgres store does per second, and what a task costs in bytes, on this machine.

Starts a Postgres of its own (durable: `fsync` on) in a temporary folder, prints one table, and leaves nothing behind::

    python ops/bench/store_bench.py [--tasks 20000] [--url SUPERUSER_URL]
"""

import argparse
import asyncio
import contextlib
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Self, TypeVar

import psycopg
from cryptography.fernet import Fernet
from psycopg import sql

from cope.adapters.postgres import PostgresApiStore, PostgresWorkerStore, claim
from cope.adapters.postgres.identity import new_id
from cope.adapters.postgres.migrate import API, OWNER, WORKER, create_roles, upgrade
from cope.core import ids
from cope.core.answers.model import AnswerKey
from cope.core.codec import encode_payload, encode_policy
from cope.core.history import FinishedStep, Sample, SampleStatus
from cope.core.ids import BatchId, FileId, ProjectId, TaskId
from cope.core.lifecycle import BatchStatus
from cope.core.money import NanoUSD, TokenUsage
from cope.core.policies.spec import PolicyName, PolicySpec
from cope.core.problem import Kind, Message, Problem
from cope.core.records import Batch, Project, StoredFile
from cope.core.stages import Stage, Tier
from cope.core.task import CallerOptions, OnBudget, StoreLevel
from cope.ports.store import (
    ClaimedTask,
    Granted,
    NewBatch,
    NewTask,
    ReserveRequest,
    Settlement,
    StepCommit,
    ToDone,
    ToQueue,
)

T = TypeVar("T")

_PASSWORD = "only-for-benchmarks"
_DATABASE = "cope_bench"
_GROUP = 100
_LEASE_S = 600.0
_SIZE = """
SELECT pg_total_relation_size(%(name)s::regclass) + coalesce(sum(pg_total_relation_size(relid)), 0)
FROM pg_partition_tree(%(name)s::regclass) WHERE isleaf AND relid <> %(name)s::regclass
"""
_WORDS = (  # noqa: SIM905
    "the total of sheep minus those sold gives what is left so we add first and then subtract because each "
    "farmer buys more than he sells on a market where prices rise by half every week until winter comes to all"
).split()
_ASKED = 300
_PLAN = 100
_SOLUTION = 550
_POLICY = encode_policy(PolicySpec(PolicyName.COPE, small="small", large="large"))
_USAGE = TokenUsage(prompt=120, completion=180, calls=1)


def prose(random: Random, length: int) -> str:
    """Words in no order, `length` characters: about as hard to compress as what models write."""
    words = " ".join(f"{random.choice(_WORDS)} {random.randint(1, 999)}" for _ in range(length // 6))
    return words[:length]


_RANDOM = Random(7)
_TEXTS = [prose(_RANDOM, _SOLUTION) for _ in range(500)]


def body(text: str) -> str:
    """A response with its `cope` block left out: that depends on the policy."""
    return f'{{"id":"chatcmpl-1","object":"chat.completion","choices":[{{"message":{{"content":"{text}"}}}}]}}'


def new_task(line: int, level: StoreLevel) -> NewTask:
    """A word problem of about 300 characters."""
    problem = Problem(Kind.MATH, (Message("user", f"{line}. {_RANDOM.choice(_TEXTS)[:_ASKED]}"),))
    return NewTask(
        task_id=TaskId(new_id(ids.TASK)),
        line=line,
        custom_id=f"line-{line}",
        payload=encode_payload(problem, CallerOptions(), requested_model="cope", store=level),
        policy=_POLICY,
        seed=line,
        queue="small",
        priority=0,
        on_budget=OnBudget.HOLD,
    )


def step(answers: str, *, cost: int = 0) -> FinishedStep:
    """A step with one chain per character of `answers`, of about 100 and 500 characters each."""
    samples = tuple(
        Sample(
            index=index,
            status=SampleStatus.FINISHED,
            plan=_RANDOM.choice(_TEXTS)[:_PLAN],
            solution=_RANDOM.choice(_TEXTS),
            answer=answer,
            key=AnswerKey(answer),
            finish_reason="stop",
            usage=_USAGE,
        )
        for index, answer in enumerate(answers)
    )
    now = datetime.now(UTC)
    return FinishedStep(
        name="stage1",
        stage=Stage.SMALL_PLANS_AND_EXECUTES,
        tier=Tier.SMALL,
        model="small",
        n=len(samples),
        samples=samples,
        reason="every task starts on the small model",
        prompt_version="instruct-1",
        started_at=now,
        finished_at=now,
        usage=TokenUsage(prompt=960, completion=1440, calls=8),
        cost=NanoUSD(cost),
    )


class Bench:
    """One database, one project without a cap that matters."""

    def __init__(self, superuser_url: str) -> None:
        self._superuser = superuser_url
        key = Fernet.generate_key().decode()
        base = superuser_url.rsplit("/", 1)[0].rsplit("@", 1)[1]
        self._api = PostgresApiStore(f"postgresql://{API}:{_PASSWORD}@{base}/{_DATABASE}", secret_key=key)
        self.worker = PostgresWorkerStore(f"postgresql://{WORKER}:{_PASSWORD}@{base}/{_DATABASE}", secret_key=key)
        self._owner_url = f"postgresql://{OWNER}:{_PASSWORD}@{base}/{_DATABASE}"
        self.place = f"{superuser_url.rsplit('/', 1)[0]}/{_DATABASE}"
        self._project = Project(
            ProjectId(new_id(ids.PROJECT)), "bench", datetime.now(UTC), "UTC", NanoUSD(10**15), "math", paused=False
        )

    async def __aenter__(self) -> Self:
        create_roles(
            self._superuser,
            owner_password=_PASSWORD,
            api_password=_PASSWORD,
            worker_password=_PASSWORD,
            database=_DATABASE,
        )
        upgrade(self._owner_url)
        await self._api.open()
        await self.worker.open()
        await self._api.create_project(self._project, "whsec_YmVuY2g=")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.worker.aclose()
        await self._api.aclose()
        with psycopg.connect(self._superuser, autocommit=True) as conn:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(_DATABASE)))

    async def ingest(self, tasks: Sequence[NewTask]) -> float:
        """Rows per second from validated rows to `in_progress`."""
        now = datetime.now(UTC)
        file = StoredFile(
            FileId(new_id(ids.FILE)), self._project.id, "input.jsonl", "batch", 1, len(tasks), "0" * 64, now
        )
        await self._api.create_file(file)
        batch = Batch(
            id=BatchId(new_id(ids.BATCH)),
            project_id=self._project.id,
            key_id=None,
            endpoint="/v1/chat/completions",
            input_file_id=file.id,
            completion_window="24h",
            status=BatchStatus.VALIDATING,
            created_at=now,
        )
        await self._api.create_batch(NewBatch(batch, new_id("").encode(), None, retry=0))
        job = await self.worker.claim_validation(lease_s=_LEASE_S)
        assert job is not None
        began = time.perf_counter()
        count = await self.worker.ingest(job, pages(tasks), model=lambda: "cope", expires_in=timedelta(days=1))
        assert count == len(tasks)
        return len(tasks) / (time.perf_counter() - began)

    async def claims(self, queue: str, count: int) -> tuple[list[ClaimedTask], float]:
        """`count` tasks in groups, and how many per second: rows decoded into tasks."""
        tasks: list[ClaimedTask] = []
        began = time.perf_counter()
        while len(tasks) < count:
            tasks += await self.worker.claim(queue, worker="bench", limit=_GROUP, lease_s=_LEASE_S)
        return tasks, len(tasks) / (time.perf_counter() - began)

    async def bare_claims(self, count: int) -> float:
        """Claimed rows per second by one client: the statement without the decoding."""
        spent = []
        async with await psycopg.AsyncConnection.connect(self.place) as conn:
            for _ in range(count // _GROUP):
                began = time.perf_counter()
                await conn.execute(
                    claim.CLAIM, {"queue": "small", "limit": _GROUP, "lease_s": _LEASE_S, "worker": "bench"}
                )
                await conn.commit()
                spent.append(time.perf_counter() - began)
        return _GROUP / statistics.median(spent)

    async def escalate(self, tasks: Sequence[ClaimedTask]) -> float:
        """Commits per second that end Stage 1 and send the task on."""
        commits = [StepCommit(t.task_id, t.fence, step("12345678"), ToQueue("large")) for t in tasks]
        return await self._commit(commits)

    async def finish(self, tasks: Sequence[ClaimedTask]) -> float:
        """Commits per second that end Stage 1 with an accepted answer."""
        commits = [
            StepCommit(t.task_id, t.fence, step("33333334"), ToDone(body(_RANDOM.choice(_TEXTS)), 1, accepted=True))
            for t in tasks
        ]
        return await self._commit(commits)

    async def pay(self, tasks: Sequence[ClaimedTask]) -> tuple[float, float, float]:
        """Reservations, marks as sent and settling commits of a paid step, per second each."""
        rates: list[list[float]] = [[], [], []]
        for group in groups(tasks):
            began = time.perf_counter()
            requests = [
                ReserveRequest(
                    t.task_id, t.fence, t.project_id, t.batch_id, "stage2-plan", "large", "v", NanoUSD(1000), "r"
                )
                for t in group
            ]
            granted = [g for g in await self.worker.reserve(requests) if isinstance(g, Granted)]
            reserved = time.perf_counter()
            await self.worker.mark_sent([grant.attempt_id for grant in granted])
            sent = time.perf_counter()
            commits = [
                StepCommit(
                    t.task_id,
                    t.fence,
                    replace(step("1", cost=700), name="stage2-plan"),
                    ToQueue("small"),
                    (Settlement(grant.attempt_id, NanoUSD(700), NanoUSD(0), _USAGE),),
                )
                for t, grant in zip(group, granted, strict=True)
            ]
            encoded = time.perf_counter()
            await self.worker.commit(commits)
            for rate, seconds in zip(
                rates, (reserved - began, sent - reserved, time.perf_counter() - encoded), strict=True
            ):
                rate.append(len(group) / seconds)
        return statistics.median(rates[0]), statistics.median(rates[1]), statistics.median(rates[2])

    async def _commit(self, commits: Sequence[StepCommit]) -> float:
        began = time.perf_counter()
        for group in groups(commits):
            await self.worker.commit(group)
        return len(commits) / (time.perf_counter() - began)

    async def sizes(self, count: int) -> dict[str, float]:
        """Bytes per task by table, indexes included, after a VACUUM FULL; then everything is emptied."""
        await self.worker.sweep(lease_s=_LEASE_S)
        while await self.worker.sequence_events():
            pass
        names = ["tasks", "steps", "attempts", "ledger", "event_log"]
        with psycopg.connect(self.place, autocommit=True) as conn:
            found = {}
            for name in names:
                conn.execute(sql.SQL("VACUUM FULL {}").format(sql.Identifier(name)))
                row = conn.execute(_SIZE, {"name": name}).fetchone()
                assert row is not None
                found[name] = float(row[0]) / count
            conn.execute("TRUNCATE tasks, steps, attempts, ledger, events, event_log")
        return found

    @contextlib.asynccontextmanager
    async def sequencing(self) -> AsyncIterator[None]:
        """The sequencer at work beside what is measured, each 100 ms as in a worker."""

        async def sequence() -> None:
            while True:
                await self.worker.sequence_events()
                await asyncio.sleep(0.1)

        task = asyncio.create_task(sequence())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def sequence(self) -> float:
        """Everything that waits, in pages of 20,000 at most."""
        began, moved = time.perf_counter(), 0
        while page := await self.worker.sequence_events():
            moved += page
        return moved / (time.perf_counter() - began)


async def pages(tasks: Sequence[NewTask]) -> AsyncIterator[Sequence[NewTask]]:
    """A thousand rows at a time, as the ingest use case hands them over."""
    for start in range(0, len(tasks), 1000):
        yield tasks[start : start + 1000]


def groups(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """A hundred at a time."""
    for start in range(0, len(items), _GROUP):
        yield items[start : start + _GROUP]


async def measure(superuser_url: str, count: int) -> None:
    """Print the table."""
    async with Bench(superuser_url) as bench:
        tasks = [new_task(line, StoreLevel.ANSWERS) for line in range(1, count + 1)]
        show("ingest (COPY, rows already validated)", await bench.ingest(tasks), "rows/s")
        show("claim, one client, k=100: the statement alone", await bench.bare_claims(count // 4), "rows/s")
        claimed, rate = await bench.claims("small", count // 2)
        show("claim, k=100, decoded into tasks", rate, "tasks/s")
        half = len(claimed) // 2
        show("commit of a step that escalates, groups of 100", await bench.escalate(claimed[: half // 2]), "commits/s")
        async with bench.sequencing():
            rate = await bench.escalate(claimed[half // 2 : half])
        show("the same, with the sequencer beside it", rate, "commits/s")
        show("commit of a step that ends the task, groups of 100", await bench.finish(claimed[half:]), "commits/s")
        show("events into the log", await bench.sequence(), "events/s")
        large, _ = await bench.claims("large", half)
        reserve, sent, settle = await bench.pay(large)
        show("reserve, groups of 100, one budget row", reserve, "grants/s")
        show("mark as sent, groups of 100", sent, "marks/s")
        show("commit of a paid step, settled, groups of 100", settle, "commits/s")
        await bench.sizes(count)
        print()
        print("bytes per finished task (payload 300 characters, Stage 1 with 8 chains of 100 + 550 characters)")
        for level in StoreLevel:
            await bench.ingest([new_task(line, level) for line in range(1, 2001)])
            claimed, _ = await bench.claims("small", 2000)
            await bench.finish(claimed)
            found = await bench.sizes(2000)
            parts = "  ".join(f"{name} {size:,.0f}" for name, size in found.items() if size >= 10)
            print(f"  store {level.value:8} {sum(found.values()):8,.0f}   {parts}")


def show(what: str, rate: float, unit: str) -> None:
    """One line of the table."""
    print(f"{what:52} {rate:10,.0f} {unit}")


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A Postgres of our own."""
    from cope_local.postgres import EmbeddedPostgres

    folder = Path(tempfile.mkdtemp(prefix="cope-bench-"))
    folder.chmod(0o755)
    try:
        with EmbeddedPostgres(folder / "postgres", password=_PASSWORD) as postgres:
            yield postgres.url()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20_000, help="tasks of the speed measurements (default 20,000)")
    parser.add_argument("--url", help="a superuser's address of a running server instead of one of our own")
    arguments = parser.parse_args()
    with contextlib.nullcontext(arguments.url) if arguments.url else server() as url:
        asyncio.run(measure(url, arguments.tasks))


if __name__ == "__main__":
    main()
