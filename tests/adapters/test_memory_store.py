"""What only a store with a clock in the test's hand can show: months that end."""

from datetime import UTC, datetime, timedelta

from tests.contracts.world import ask, bill, done, large_step, pages
from tests.support import make_batch, make_file, make_new_task, make_project

from cope.adapters.memory import FixedClock, MemoryStore
from cope.core.lifecycle import HoldReason
from cope.core.money import NanoUSD
from cope.ports.store import GiveBack, Granted, NewBatch, Refused


async def store_with_tasks(clock: FixedClock, cap: int, tasks: int, time_zone: str = "UTC") -> MemoryStore:
    store = MemoryStore(clock)
    project = await store.create_project(make_project(cap=NanoUSD(cap), time_zone=time_zone), "whsec_x")
    file = await store.create_file(make_file(project.id))
    batch = make_batch(project.id, file.id, created_at=clock.now())
    await store.create_batch(NewBatch(batch, b"", None, retry=0))
    job = await store.claim_validation(lease_s=30)
    assert job is not None
    rows = [make_new_task(line, queue="large") for line in range(1, tasks + 1)]
    await store.ingest(job, pages(rows), model=lambda: None, expires_in=timedelta(days=40))
    return store


async def test_a_new_month_begins_with_nothing_spent_and_an_old_reservation_settles_in_its_own() -> None:
    clock = FixedClock(datetime(2026, 11, 30, 23, 59, tzinfo=UTC))
    store = await store_with_tasks(clock, cap=100, tasks=2)
    old, new = await store.claim("large", worker="w", limit=2, lease_s=1_000)
    (granted,) = await store.reserve([ask(old, 100)])
    assert isinstance(granted, Granted)
    await store.mark_sent([granted.attempt_id])
    assert isinstance((await store.reserve([ask(new, 100)]))[0], Refused)

    clock.advance(120)

    (next_month,) = await store.reserve([ask(new, 100)])
    assert isinstance(next_month, Granted)
    assert (granted.month, next_month.month) == ("2026-11", "2026-12")
    await store.commit([done(old, step=large_step(60), bills=(bill(granted, 60),))])
    november, december = (
        await store.get_budget(old.project_id, "2026-11"),
        await store.get_budget(old.project_id, "2026-12"),
    )
    assert (november.spent, november.reserved) == (60, 0)
    assert (december.spent, december.reserved) == (0, 100)


async def test_a_task_held_for_money_goes_on_when_the_next_month_begins() -> None:
    clock = FixedClock(datetime(2026, 11, 30, 14, 59, tzinfo=UTC))
    store = await store_with_tasks(clock, cap=100, tasks=2, time_zone="Asia/Tokyo")
    first, second = await store.claim("large", worker="w", limit=2, lease_s=1_000)
    (granted,) = await store.reserve([ask(first, 100)])
    assert isinstance(granted, Granted)
    await store.mark_sent([granted.attempt_id])
    await store.commit([done(first, step=large_step(100), bills=(bill(granted, 100),))])
    (refused,) = await store.reserve([ask(second, 100)])
    assert isinstance(refused, Refused)
    await store.give_back([GiveBack(second.task_id, second.fence, hold=HoldReason.BUDGET, needed=NanoUSD(100))])
    assert (await store.sweep(lease_s=30)).resumed == 0

    clock.advance(120)

    assert (await store.sweep(lease_s=30)).resumed == 1


async def test_the_cap_of_a_past_month_stays_what_it_was() -> None:
    clock = FixedClock(datetime(2026, 11, 30, 23, 59, tzinfo=UTC))
    store = await store_with_tasks(clock, cap=100, tasks=1)
    (task,) = await store.claim("large", worker="w", limit=1, lease_s=1_000)
    clock.advance(120)

    await store.set_cap(task.project_id, NanoUSD(7))

    assert (await store.get_budget(task.project_id, "2026-11")).cap == 100
    assert (await store.get_budget(task.project_id)).cap == 7
