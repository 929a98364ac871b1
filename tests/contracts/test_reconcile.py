"""Reconciling with a provider's usage export: doubt is settled at what was billed, once, whatever else happens."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from cope.adapters.usage_spool import SqliteSpool
from cope.core.errors import BadRequest
from cope.core.ids import AttemptId, ProjectId
from cope.core.lifecycle import AttemptState
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.money import NanoUSD, Price, TokenUsage, parse_usd
from cope.core.prices import PriceTable
from cope.core.prompts import BUILT_IN
from cope.core.reconcile import Verdict
from cope.core.records import Project
from cope.core.stages import Tier
from cope.ports.ledger import Correction, LedgerScope, Reconciled
from cope.ports.store import Adopted, ApiStore, ClaimedTask, GiveBack
from cope.usecases.reconcile import Orders, Reconciliation, reconcile
from tests.contracts.world import World, bill, done, large_step
from tests.support import NOON

HEADER = "request_id,provider_id,prompt_tokens,cached_tokens,completion_tokens,cost_usd"
LARGE = ModelEntry("large", "l", "http://localhost/v1", Tier.LARGE, "instruct", 4096, price_id="p", timeout_s=600)
CATALOG = ModelCatalog({"large": LARGE}, "large", "large", BUILT_IN)
PRICES = PriceTable(
    [Price("p", "2026-11-01", parse_usd("2.5"), parse_usd("1.25"), parse_usd("10"), NOON.replace(year=2025))]
)
LONG = 1_000  # more than a call's time-out and what the clocks may differ
TRY, WRITE = Orders(), Orders(apply=True)
CORRECT = Orders(apply=True, apply_differences=True)


async def run(world: World, *rows: str, orders: Orders = WRITE, store: ApiStore | None = None) -> Reconciliation:
    spool = SqliteSpool()
    try:
        await spool.write("\n".join((HEADER, *rows, "")).encode())
        return await reconcile(
            store or world.api, spool, catalog=CATALOG, prices=PRICES, now=world.now(), orders=orders
        )
    finally:
        await spool.aclose()


def outcome(found: Reconciliation) -> dict[str, tuple[int, int, int]]:
    """(attempts, calls, nano-dollars billed) by verdict."""
    return {
        verdict.value: (tally.attempts, tally.calls, tally.billed)
        for verdict, tally in found.tallies.items()
        if tally.attempts or tally.calls
    }


async def sums(world: World, project: Project) -> tuple[int, int, int, int]:
    budget = await world.budget(project)
    assert await world.api.ledger_difference(None) == ()
    return budget.spent, budget.reserved, budget.unconfirmed, budget.overrun


async def in_doubt(world: World, project: Project, amount: int = 900_000) -> tuple[ClaimedTask, AttemptId]:
    """A call was sent, its worker died, and by now it is surely over."""
    await world.batch(project, 1, queue="large", expires_in_s=10**8)
    task = await world.claim_one("large", lease_s=30)
    granted = await world.send(task, amount)
    await world.advance(31)
    await world.sweep()
    await world.advance(LONG)
    return task, granted.attempt_id


def call(task: ClaimedTask, suffix: str, cost: str, provider_id: str) -> str:
    return f"{task.task_id}-{task.fence:06d}-{suffix},{provider_id},20,4,10,{cost}"


async def test_a_dry_run_tells_what_it_would_settle_and_writes_nothing(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000_000))
    task, _ = await in_doubt(world, project)

    found = await run(world, call(task, "000x", "0.0001", "c1"), orders=TRY)

    assert outcome(found) == {"settled": (1, 1, 100_000)}
    assert await sums(world, project) == (0, 0, 900_000, 0)


async def test_all_calls_of_a_step_are_summed_and_settle_it_as_a_late_answer_does(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000_000))
    task, attempt = await in_doubt(world, project)

    rows = [call(task, "000p", "0.0001", "c1"), call(task, "000x", "0.0002", "c2"), call(task, "001x", "0.00003", "c3")]
    found = await run(world, *rows)

    assert outcome(found) == {"settled": (1, 3, 330_000)}
    assert await sums(world, project) == (330_000, 0, 0, 0)
    (seen,) = (await world.detail(project.id, task.task_id)).attempts
    assert (seen.id, seen.state, seen.cost, seen.flag) == (attempt, AttemptState.SETTLED, 330_000, "reconciled")
    assert task.batch_id is not None
    batch = await world.api.get_batch(project.id, task.batch_id)
    assert batch is not None
    assert (batch.spent, batch.unconfirmed) == (330_000, 0)
    (line,) = [
        line async for page in world.api.ledger_lines(_of(project), month=None) for line in page if line.kind == "late"
    ]
    assert (line.amount, line.freed, line.provider_id) == (330_000, 900_000, "c1")
    assert line.usage == TokenUsage(prompt=60, cached=12, completion=30, calls=3)


async def test_the_same_file_again_changes_nothing(world: World) -> None:
    project = await world.project()
    task, _ = await in_doubt(world, project)
    await run(world, call(task, "000x", "0.0001", "c1"))

    again = await run(world, call(task, "000x", "0.0001", "c1"), orders=CORRECT)

    assert outcome(again) == {"equal": (1, 1, 100_000)}
    assert again.entries == []
    assert await sums(world, project) == (100_000, 0, 0, 0)


async def test_tokens_alone_are_priced_at_the_version_that_the_attempt_was_reserved_at(world: World) -> None:
    project = await world.project()
    task, _ = await in_doubt(world, project)

    found = await run(world, call(task, "000x", "", "c1"))

    assert outcome(found) == {"settled": (1, 1, 16 * 2_500 + 4 * 1_250 + 10 * 10_000)}
    assert (await sums(world, project))[0] == 145_000


async def test_a_bill_beyond_the_reserve_is_an_overrun_and_stops_the_project(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000_000))
    task, _ = await in_doubt(world, project, 900_000)

    await run(world, call(task, "000x", "0.0010", "c1"))

    assert await sums(world, project) == (900_000, 0, 0, 100_000)
    stopped = await world.api.get_project(project.id)
    assert stopped is not None
    assert stopped.paused


async def settled(world: World, project: Project, cost: int = 400) -> ClaimedTask:
    await world.batch(project, 1, queue="large")
    task = await world.claim_one("large")
    granted = await world.send(task, 1_000)
    await world.commit(done(task, step=large_step(cost), bills=(bill(granted, cost),)))
    return task


async def test_what_is_booked_otherwise_is_listed_and_changed_only_on_demand(world: World) -> None:
    project = await world.project()
    less, more = await settled(world, project), await settled(world, project)
    rows = [call(less, "000x", "0.0000003", "c1"), call(more, "000x", "0.0000009", "c2")]

    found = await run(world, *rows)
    assert outcome(found) == {"different": (2, 2, 1_200)}
    assert sorted((e.billed, e.attempt.booked) for e in found.entries if e.attempt) == [(300, 400), (900, 400)]
    assert await sums(world, project) == (800, 0, 0, 0)

    assert outcome(await run(world, *rows, orders=CORRECT)) == {"corrected": (2, 2, 1_200)}
    assert await sums(world, project) == (700, 0, 0, 500)
    assert outcome(await run(world, *rows, orders=CORRECT)) == {"equal": (2, 2, 1_200)}


async def test_a_released_call_that_was_billed_is_a_difference(world: World) -> None:
    project = await world.project()
    await world.batch(project, 1, queue="large")
    task = await world.claim_one("large")
    granted = await world.send(task, 1_000)
    await world.worker.give_back([GiveBack(task.task_id, task.fence, released=(granted.attempt_id,))])

    row = call(task, "000x", "0.0000005", "c1")
    assert outcome(await run(world, row)) == {"different": (1, 1, 500)}
    assert outcome(await run(world, row, orders=CORRECT)) == {"corrected": (1, 1, 500)}
    assert await sums(world, project) == (0, 0, 0, 500)
    assert outcome(await run(world, row)) == {"equal": (1, 1, 500)}


async def test_what_is_under_way_or_may_still_be_running_is_left_alone(world: World) -> None:
    project = await world.project()
    await world.batch(project, 2, queue="large", expires_in_s=10**8)
    dead = await world.claim_one("large", lease_s=30)
    await world.send(dead, 1_000)
    await world.advance(31)
    await world.sweep()
    (alive, *_) = [task for task in await world.claim("large") if task.task_id != dead.task_id]
    await world.send(alive, 1_000)

    found = await run(world, call(dead, "000x", "0.0000001", "c1"), call(alive, "000x", "0.0000001", "c2"))

    assert outcome(found) == {"too_recent": (1, 1, 100), "in_flight": (1, 1, 100)}
    assert await sums(world, project) == (0, 1_000, 1_000, 0)


async def test_ids_that_nobody_here_made_and_other_peoples_calls_are_told_apart(world: World) -> None:
    project = await world.project()
    task, _ = await in_doubt(world, project)
    strange = f"task_{'z' * 26}-000001-000x"

    found = await run(
        world,
        f"{strange},c1,1,0,1,0.5",
        f"{task.task_id}-000009-000x,c2,1,0,1,0.25",
        "chat-1,c3,1,0,1,2",
    )

    assert outcome(found) == {"unknown": (0, 2, 750_000_000)}
    assert (found.loaded.foreign.calls, found.loaded.foreign.cost) == (1, 2_000_000_000)
    assert await sums(world, project) == (0, 0, 900_000, 0)


async def test_a_step_with_an_unreadable_row_is_left_alone_and_so_is_one_without_a_price(world: World) -> None:
    project = await world.project()
    task, _ = await in_doubt(world, project)

    spoiled = await run(world, call(task, "000p", "0.0001", "c1"), call(task, "000x", "much", "c2"))
    assert outcome(spoiled) == {"unreadable": (1, 2, 0)}
    spool = SqliteSpool()
    await spool.write(f"{HEADER}\n{call(task, '000x', '', 'c1')}\n".encode())
    unpriced = await reconcile(world.api, spool, catalog=CATALOG, prices=PriceTable([]), now=world.now(), orders=WRITE)
    await spool.aclose()

    assert outcome(unpriced) == {"no_price": (1, 1, 0)}
    assert await sums(world, project) == (0, 0, 900_000, 0)


def complete(world: World, *, before_s: float = 50_000, after_s: float = 0) -> Orders:
    now = world.now()
    return Orders(apply=True, complete=(now - timedelta(seconds=before_s), now - timedelta(seconds=after_s)))


async def test_what_a_complete_file_does_not_mention_was_not_billed(world: World) -> None:
    project = await world.project(cap=NanoUSD(2_000_000))
    missing, _ = await in_doubt(world, project)
    billed, _ = await in_doubt(world, project)
    assert billed.task_id == missing.task_id, "a second try of the same step: its request id differs by the lease"
    row = call(billed, "000x", "0.0001", "c1")

    found = await run(world, row, orders=complete(world))

    assert outcome(found) == {"settled": (1, 1, 100_000), "not_billed": (1, 0, 0)}
    assert await sums(world, project) == (100_000, 0, 0, 0)
    attempts = (await world.detail(project.id, missing.task_id)).attempts
    assert [(attempt.state, attempt.cost, attempt.flag) for attempt in attempts] == [
        (AttemptState.SETTLED, 0, "not_billed"),
        (AttemptState.SETTLED, 100_000, "reconciled"),
    ]


@pytest.mark.parametrize(("before_s", "after_s"), [(1_032, 0), (50_000, 400), (50_000, 40_000)])
async def test_near_the_ends_of_a_complete_span_nothing_is_taken_as_missing(
    world: World, before_s: float, after_s: float
) -> None:
    project = await world.project()
    await in_doubt(world, project)

    assert outcome(await run(world, orders=complete(world, before_s=before_s, after_s=after_s))) == {}
    assert await sums(world, project) == (0, 0, 900_000, 0)


async def test_a_file_that_can_not_be_held_complete_settles_nothing(world: World) -> None:
    project = await world.project()
    task, _ = await in_doubt(world, project)
    whole, now = call(task, "000x", "0.0001", "c1"), world.now()

    for rows, orders, says in (
        ([whole, "x,y"], complete(world), "1 rows can't be read, the first in line 3"),
        ([whole, ",c2,1,0,1,0.1"], complete(world), "1 rows have no request id"),
        ([whole], Orders(apply=True, complete=(now, now + timedelta(seconds=600))), "has ended by now"),
        ([whole], Orders(apply=True, complete=(now, now - timedelta(seconds=600))), "begins before it ends"),
    ):
        with pytest.raises(BadRequest, match=says):
            await run(world, *rows, orders=orders)
    assert await sums(world, project) == (0, 0, 900_000, 0)


async def test_an_answer_that_comes_after_the_reconciliation_is_adopted_and_books_nothing(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000_000))
    slow, attempt = await in_doubt(world, project)
    await run(world, call(slow, "000x", "0.0001", "c1"))

    await world.worker.store_late_answer(bill(attempt, 100_000), "the late answer")
    await world.worker.store_late_answer(bill(attempt, 999), "another answer")

    assert await sums(world, project) == (100_000, 0, 0, 0)
    assert await world.reserve(await world.claim_one("large"), 500_000) == Adopted(attempt, "the late answer")
    assert await sums(world, project) == (100_000, 0, 0, 0)
    assert "budget.late_answer_differs" not in [event.type for event in await world.events(project)]


async def test_an_answer_to_a_call_that_was_taken_as_unbilled_is_kept_and_told(world: World) -> None:
    project = await world.project()
    _, attempt = await in_doubt(world, project)
    assert outcome(await run(world, orders=complete(world))) == {"not_billed": (1, 0, 0)}

    await world.worker.store_late_answer(bill(attempt, 70), "answered after all")

    assert await sums(world, project) == (0, 0, 0, 0)
    assert isinstance(await world.reserve(await world.claim_one("large"), 500_000), Adopted)
    (event,) = [e for e in await world.events(project) if e.type == "budget.late_answer_differs"]
    assert '"answered_nanousd":70' in event.data.replace(" ", "")


async def test_a_late_answer_between_judging_and_booking_wins_and_is_told(world: World) -> None:
    project = await world.project()
    task, attempt = await in_doubt(world, project)

    class Overtaken:
        """The store, but a late answer comes just before the settlement."""

        def __getattr__(self, name: str) -> object:
            return getattr(world.api, name)

        async def settle_unconfirmed(self, project_id: ProjectId, bills: Sequence[Reconciled]) -> set[AttemptId]:
            await world.worker.store_late_answer(bill(attempt, 55_000), "in time")
            return await world.api.settle_unconfirmed(project_id, bills)

    found = await run(world, call(task, "000x", "0.0001", "c1"), store=Overtaken())  # type: ignore[arg-type]

    assert outcome(found) == {"changed_meanwhile": (1, 1, 100_000)}
    assert await sums(world, project) == (55_000, 0, 0, 0)


async def test_many_reconciliations_and_late_answers_at_once_book_each_attempt_once(world: World) -> None:
    project = await world.project()
    doubtful = [await in_doubt(world, project) for _ in range(6)]
    rows = [call(task, "000x", "0.0001", f"c{number}") for number, (task, _) in enumerate(doubtful)]

    await asyncio.gather(
        *(run(world, *rows) for _ in range(4)),
        *(world.worker.store_late_answer(bill(attempt, 100_000), "late") for _, attempt in doubtful),
    )

    assert await sums(world, project) == (600_000, 0, 0, 0)


async def test_a_stranger_can_settle_or_correct_nothing(world: World) -> None:
    project, stranger = await world.project(), await world.project(name="stranger")
    _, attempt = await in_doubt(world, project)
    await settled(world, project)
    (booked,) = [
        line.attempt_id
        async for page in world.api.ledger_lines(_of(project), month=None)
        for line in page
        if line.kind == "settled"
    ]

    assert await world.api.settle_unconfirmed(stranger.id, [Reconciled(attempt, NanoUSD(0), None, None)]) == set()
    assert await world.api.correct(stranger.id, [Correction(booked, NanoUSD(400), NanoUSD(0))]) == set()
    assert await sums(world, project) == (400, 0, 900_000, 0)


async def test_an_attempt_is_settled_once_by_several_files(world: World) -> None:
    project = await world.project()
    task, _ = await in_doubt(world, project)

    await run(world, call(task, "000x", "0.0001", "c1"))
    found = await run(world, call(task, "000x", "0.0001", "c1"), call(task, "001x", "0.0001", "c2"))

    assert outcome(found) == {"different": (1, 2, 200_000)}
    assert found.entries[0].verdict is Verdict.DIFFERENT
    assert await sums(world, project) == (100_000, 0, 0, 0)


def _of(project: Project) -> LedgerScope:
    return LedgerScope(project.id)
