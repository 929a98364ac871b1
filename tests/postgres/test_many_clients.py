"""Many clients at once: grants never exceed the headroom, nothing is claimed twice, the books stay exact."""

import asyncio

import psycopg
import pytest
from cryptography.fernet import Fernet

from cope.adapters.postgres import PostgresWorkerStore
from cope.adapters.postgres.money import ledger_difference
from cope.core.ids import TaskId
from cope.core.lifecycle import BatchStatus
from cope.core.money import NanoUSD
from cope.ports.store import ClaimedTask, CommitStatus, Granted, NewBatch, Refused, ReserveResult
from tests.contracts.world import PostgresWorld, ask, bill, done, goes_on, large_step
from tests.postgres.conftest import Place
from tests.support import make_batch, make_file

pytestmark = pytest.mark.integration


async def books_differ(place: Place) -> list[object]:
    async with await psycopg.AsyncConnection.connect(place.worker) as conn:
        return list(await ledger_difference(conn))


@pytest.mark.parametrize("fits", [0, 1, 17, 64])
async def test_of_64_claimants_at_once_exactly_as_many_are_granted_as_the_headroom_covers(
    world: PostgresWorld, place: Place, fits: int
) -> None:
    project = await world.project(cap=NanoUSD(fits * 1000 + 999))
    await world.batch(project, 64, queue="large")

    async def claimant() -> ReserveResult:
        return await world.reserve(await world.claim_one("large"), 1000)

    results = await asyncio.gather(*(claimant() for _ in range(64)))
    assert sum(isinstance(result, Granted) for result in results) == fits
    assert sum(isinstance(result, Refused) for result in results) == 64 - fits
    assert (await world.budget(project)).reserved == fits * 1000
    assert await books_differ(place) == []


async def test_groups_of_different_sizes_at_once_fill_the_cap_and_never_exceed_it(
    world: PostgresWorld, place: Place
) -> None:
    project = await world.project(cap=NanoUSD(10_000))
    await world.batch(project, 80, queue="large")
    tasks = await world.claim("large", limit=80)
    groups = [tasks[start : start + 8] for start in range(0, 80, 8)]

    async def group(mine: list[ClaimedTask], amount: int) -> int:
        results = await world.worker.reserve([ask(task, amount) for task in mine])
        return sum(amount for result in results if isinstance(result, Granted))

    taken = await asyncio.gather(*(group(mine, 100 + 37 * i) for i, mine in enumerate(groups)))
    budget = await world.budget(project)
    assert budget.reserved == sum(taken) <= 10_000
    assert 10_000 - sum(taken) < 100 + 37 * 9  # what is left does not cover the largest call that was refused
    assert await books_differ(place) == []


async def test_the_check_of_the_database_itself_refuses_a_sum_over_the_ceiling(
    world: PostgresWorld, place: Place
) -> None:
    project = await world.project(cap=NanoUSD(1000))
    await world.batch(project, 1, queue="large")
    await world.reserve(await world.claim_one("large"), 900)
    with psycopg.connect(place.superuser) as conn, pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("UPDATE budgets SET spent = spent + 101 WHERE project_id = %s", [project.id])


async def test_a_batch_drained_by_many_workers_counts_every_task_once_and_ends(
    world: PostgresWorld, place: Place
) -> None:
    project = await world.project(cap=NanoUSD(10**9))
    batch = await world.batch(project, 300)
    seen: list[tuple[TaskId, int]] = []

    async def worker(queue: str) -> None:
        idle = 0
        while idle < 20:
            tasks = await world.claim(queue, limit=7)
            idle = 0 if tasks else idle + 1
            seen.extend((task.task_id, task.fence) for task in tasks)
            if not tasks:
                await asyncio.sleep(0.02)
            elif queue == "small":
                statuses = await world.commit(*[goes_on(task) for task in tasks])
                assert set(statuses) == {CommitStatus.COMMITTED}
            else:
                granted = await world.worker.reserve([ask(task, 500) for task in tasks])
                paid = [grant for grant in granted if isinstance(grant, Granted)]
                assert len(await world.worker.mark_sent([grant.attempt_id for grant in paid])) == len(tasks)
                ends = [
                    done(task, step=large_step(300), stage=3, bills=(bill(grant, 300),))
                    for task, grant in zip(tasks, paid, strict=True)
                ]
                assert set(await world.commit(*ends)) == {CommitStatus.COMMITTED}

    async def sweeps() -> None:
        for _ in range(10):
            await world.sweep()
            await asyncio.sleep(0.03)

    await asyncio.gather(*(worker(queue) for queue in ("small", "large") * 4), sweeps(), sweeps())
    assert len(seen) == len(set(seen)) == 600
    ended = await world.see(batch)
    assert (ended.status, ended.done, ended.by_stage) == (BatchStatus.FINALIZING, 300, {"3": 300})
    assert (ended.spent, ended.reserved) == (300 * 300, 0)
    assert (await world.budget(project)).spent == 300 * 300
    assert await books_differ(place) == []


async def test_offsets_are_gapless_and_in_order_though_sequencers_and_writers_race(
    world: PostgresWorld, place: Place
) -> None:
    project = await world.project()
    batch = await world.batch(project, 60)
    tasks = await world.claim(limit=60)

    async def finish(task: ClaimedTask) -> None:
        await world.commit(done(task))

    await asyncio.gather(*(finish(task) for task in tasks), *(world.sweep() for _ in range(8)))
    await world.sweep()
    with psycopg.connect(place.superuser) as conn:
        offsets = [row[0] for row in conn.execute('SELECT "offset" FROM event_log ORDER BY "offset"').fetchall()]
    assert offsets == list(range(1, len(offsets) + 1))
    types = [event.type for event in await world.events(project) if event.batch_id == batch.id]
    assert types.count("task.done") == 60
    assert types[-1] == "batch.finalizing"


async def test_two_creations_under_one_idempotency_key_at_once_make_one_batch(world: PostgresWorld) -> None:
    project = await world.project()
    file = await world.api.create_file(make_file(project.id))

    async def create() -> str:
        batch = make_batch(project.id, file.id, created_at=world.now())
        return (await world.api.create_batch(NewBatch(batch, b"body", "key-1", retry=0))).id

    assert len(set(await asyncio.gather(*(create() for _ in range(8))))) == 1
    job = await world.worker.claim_validation(lease_s=0)
    assert job is not None


async def test_only_one_process_leads_until_it_closes(world: PostgresWorld, place: Place) -> None:
    rival = PostgresWorkerStore(place.worker, secret_key=Fernet.generate_key().decode())
    await rival.open()
    assert await world.worker.try_lead()
    assert await world.worker.try_lead()
    assert not await rival.try_lead()
    await world.worker.aclose()
    await asyncio.sleep(0.2)
    assert await rival.try_lead()
    await rival.aclose()
