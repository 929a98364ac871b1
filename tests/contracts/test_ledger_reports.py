"""The ledger as it is read: costs by any cut, its lines, its check against the budgets, what is in doubt."""

from datetime import date
from itertools import combinations

import pytest

from cope.core.ids import AttemptId
from cope.core.ledger import COUNTED, CostKind, CostRow, Cut, total_of
from cope.core.money import NanoUSD, TokenUsage
from cope.core.records import Project
from cope.ports.ledger import Correction, LedgerScope
from cope.ports.store import GiveBack, Granted
from tests.contracts.world import World, ask, bill, done, large_step

ALL = LedgerScope()


async def paid(
    world: World, project: Project, cost: int, *, key_id: str | None = None, step: str = "stage3", overrun: int = 0
) -> AttemptId:
    """A batch of one line that has cost something."""
    await world.batch(project, 1, queue="large", key_id=key_id)  # type: ignore[arg-type]
    task = await world.claim_one("large")
    granted = await world.send(task, 1_000, step=step)
    await world.commit(done(task, step=large_step(cost, name=step), bills=(bill(granted, cost, overrun=overrun),)))
    return granted.attempt_id


async def doubtful(world: World, project: Project, amount: int = 900) -> AttemptId:
    """A worker died after it had sent a call."""
    await world.batch(project, 1, queue="large")
    task = await world.claim_one("large", lease_s=30)
    granted = await world.send(task, amount)
    await world.advance(31)
    await world.sweep()
    for ready in await world.claim("large"):
        await world.commit(done(ready, step=large_step()))
    return granted.attempt_id


async def costs(world: World, scope: LedgerScope, *cuts: Cut) -> list[CostRow]:
    return await world.api.costs(scope, first=None, last=None, cuts=frozenset(cuts))


async def busy(world: World) -> tuple[Project, Project]:
    """Two projects with spend of every kind."""
    one, other = await world.project(name="one"), await world.project(name="other")
    key = await world.key(one)
    await paid(world, one, 100)
    await paid(world, one, 20, key_id=key.id, step="stage2-plan")
    corrected = await paid(world, one, 50)
    await paid(world, other, 1_000, overrun=7)
    await world.api.update_project(other.id, paused=False)
    await world.book_external(one, 5_000, key_id=key.id)
    await world.api.correct(one.id, [Correction(corrected, NanoUSD(50), NanoUSD(44))])
    late = await doubtful(world, one)
    await world.worker.store_late_answer(bill(late, 3), "late")
    await doubtful(world, other)
    return one, other


async def test_costs_tell_calls_external_spend_and_overruns_apart_and_leave_out_what_is_open(world: World) -> None:
    one, other = await busy(world)

    assert [(row.kind, row.amount, row.attempts) for row in await costs(world, LedgerScope(one.id))] == [
        (CostKind.CALLS, 100 + 20 + 44 + 3, 4),
        (CostKind.EXTERNAL, 5_000, 0),
    ]
    assert [(row.kind, row.amount, row.attempts) for row in await costs(world, LedgerScope(other.id))] == [
        (CostKind.CALLS, 1_000, 1),
        (CostKind.OVERRUN, 7, 0),
    ]


async def test_costs_are_told_by_stage_with_their_tokens(world: World) -> None:
    one, _ = await busy(world)

    rows = await costs(world, LedgerScope(one.id), Cut.STAGE, Cut.MODEL)

    assert {(row.stage, row.kind): (row.amount, row.usage) for row in rows} == {
        ("stage2", CostKind.CALLS): (20, TokenUsage(prompt=20, completion=10, calls=1)),
        ("stage3", CostKind.CALLS): (147, TokenUsage(prompt=60, completion=30, calls=3)),
        (None, CostKind.EXTERNAL): (5_000, TokenUsage()),
    }
    assert {row.line_item for row in rows} == {"large, calls", "external"}


async def test_a_key_and_a_batch_are_told_apart_and_can_be_asked_for_alone(world: World) -> None:
    one, _ = await busy(world)
    key = (await world.api.list_keys(one.id))[0]

    of_key = await costs(world, LedgerScope(one.id, key_ids=(key.id,)), Cut.KEY)
    by_batch = [row for row in await costs(world, LedgerScope(one.id), Cut.BATCH) if row.kind is CostKind.CALLS]
    first = by_batch[0].batch_id
    of_batch = await costs(world, LedgerScope(one.id, batch_id=first), Cut.BATCH)

    assert [(row.kind, row.amount, row.key_id) for row in of_key] == [
        (CostKind.CALLS, 20, key.id),
        (CostKind.EXTERNAL, 5_000, key.id),
    ]
    assert sorted(row.amount for row in by_batch) == [3, 20, 44, 100]
    assert [row.amount for row in of_batch] == [by_batch[0].amount]


async def test_every_grouping_sums_to_the_ledgers_total(world: World) -> None:
    one, other = await busy(world)
    lines = [line async for page in world.api.ledger_lines(ALL, month=None) for line in page if line.kind in COUNTED]
    total = sum(-line.amount - line.freed if line.kind == "refunded" else line.amount for line in lines)
    assert total == 100 + 20 + 44 + 3 + 5_000 + 1_000 + 7

    for size in (0, 1, 2, 3, len(Cut)):
        for cuts in combinations(Cut, size):
            rows = await costs(world, ALL, *cuts)
            assert total_of(rows) == total, cuts
            assert len({row.place for row in rows}) == len(rows)
    assert total_of(await costs(world, LedgerScope(project_ids=(one.id, other.id)))) == total
    assert total_of(await costs(world, LedgerScope(project_ids=(other.id,)))) == 1_007


async def test_days_outside_the_span_are_left_out(world: World) -> None:
    one, _ = await busy(world)
    rows = await costs(world, LedgerScope(one.id), Cut.DAY)
    day = rows[0].day
    assert day is not None

    assert await world.api.costs(LedgerScope(one.id), first=day, last=day, cuts=frozenset()) == await costs(
        world, LedgerScope(one.id)
    )
    for first, last in ((date(2000, 1, 1), date(2000, 12, 31)), (date(2100, 1, 1), None), (None, date(2000, 1, 1))):
        assert await world.api.costs(LedgerScope(one.id), first=first, last=last, cuts=frozenset()) == []


async def test_an_overrun_and_a_refund_are_rows_of_their_own_and_keep_the_books_right(world: World) -> None:
    project = await world.project(cap=NanoUSD(10_000))
    attempt = await paid(world, project, 1_000, overrun=30)

    for booked, billed in ((1_030, 1_010), (1_010, 1_025), (1_025, 400), (400, 500), (500, 0)):
        correction = Correction(attempt, NanoUSD(booked), NanoUSD(billed))
        assert await world.api.correct(project.id, [correction]) == {attempt}
        assert await world.api.correct(project.id, [correction]) == set(), "the books no longer say what it says"
        budget = await world.budget(project)
        assert budget.spent + budget.overrun == billed
        assert await world.api.ledger_difference(None) == ()
        assert total_of(await costs(world, LedgerScope(project.id))) == billed

    lines = [line async for page in world.api.ledger_lines(LedgerScope(project.id), month=None) for line in page]
    kinds = [(line.kind, line.nth, line.amount, line.freed) for line in lines if line.kind in {"overrun", "refunded"}]
    assert sorted(kinds) == [
        ("overrun", 0, 30, 0),
        ("overrun", 1, 15, 0),
        ("overrun", 2, 100, 0),
        ("refunded", 0, 0, 20),
        ("refunded", 1, 600, 25),
        ("refunded", 2, 400, 100),
    ]


async def test_lines_tell_everything_of_an_attempt_and_its_tokens_once(world: World) -> None:
    project = await world.project()
    attempt = await paid(world, project, 123)

    lines = [line async for page in world.api.ledger_lines(LedgerScope(project.id), month=None) for line in page]

    assert [(line.kind, line.amount, line.freed) for line in lines] == [("reserved", 1_000, 0), ("settled", 123, 1_000)]
    settled = lines[1]
    assert (settled.attempt_id, settled.model, settled.step, settled.price_version, settled.provider_id) == (
        attempt,
        "large",
        "stage3",
        "2026-11-01",
        "chatcmpl-1",
    )
    assert settled.request_id == f"{settled.task_id}-000001"
    assert [line.usage for line in lines] == [None, TokenUsage(prompt=20, completion=10, calls=1)]


async def test_lines_come_in_pages_without_a_gap_and_of_one_month_or_batch(world: World) -> None:
    project = await world.project()
    batch = await world.batch(project, 600, queue="large")
    tasks = await world.claim("large", limit=600)
    results = await world.worker.reserve([ask(task, 10) for task in tasks])
    backs = [
        GiveBack(task.task_id, task.fence, released=(result.attempt_id,))
        for task, result in zip(tasks, results, strict=True)
        if isinstance(result, Granted)
    ]
    await world.worker.give_back(backs)
    month = (await world.budget(project)).month

    pages = [page async for page in world.api.ledger_lines(LedgerScope(project.id, batch_id=batch.id), month=month)]

    assert [len(page) for page in pages] == [1_000, 200]
    seen = [(line.attempt_id, line.kind) for page in pages for line in page]
    assert len(set(seen)) == 1_200
    assert seen == sorted(seen)
    assert [page async for page in world.api.ledger_lines(LedgerScope(project.id), month="1999-01")] == []


async def test_the_ledger_check_finds_nothing_after_a_busy_life_and_sees_one_project_or_all(world: World) -> None:
    one, _ = await busy(world)

    assert await world.api.ledger_difference(None) == ()
    assert await world.api.ledger_difference(one.id) == ()


async def test_a_project_sees_its_own_ledger_only(world: World) -> None:
    one, _ = await busy(world)
    stranger = await world.project(name="stranger")

    assert await costs(world, LedgerScope(stranger.id)) == []
    assert await costs(world, LedgerScope(stranger.id, project_ids=(one.id,))) == []
    assert [page async for page in world.api.ledger_lines(LedgerScope(stranger.id), month=None)] == []
    assert await world.api.unconfirmed(stranger.id, after=None, limit=10) == ([], False)
    assert sum(group.attempts for group in await world.api.unconfirmed_ages(stranger.id)) == 0
    disguised = LedgerScope(stranger.id, project_ids=(one.id,))
    budgets = await world.api.month_budgets(disguised, first="2000-01", last="2100-01")
    assert {budget.project_id for budget in budgets} <= {stranger.id}


async def test_doubtful_attempts_are_listed_the_oldest_first_by_page_and_age(world: World) -> None:
    one, other = await world.project(name="one"), await world.project(name="other")
    oldest = await doubtful(world, one, 100)
    await world.advance(8 * 86_400)
    middle = await doubtful(world, other, 200)
    await world.advance(7_200)
    newest = await doubtful(world, one, 300)

    first, more = await world.api.unconfirmed(None, after=None, limit=2)
    rest, none = await world.api.unconfirmed(None, after=middle, limit=2)

    assert ([item.id for item in first], more) == ([oldest, middle], True)
    assert ([item.id for item in rest], none) == ([newest], False)
    assert first[0].doubted_at is not None
    assert first[0].sent_at is not None
    assert first[0].doubted_at > first[0].sent_at
    assert [item.id for item in (await world.api.unconfirmed(one.id, after=None, limit=9))[0]] == [oldest, newest]
    assert [(group.from_s, group.attempts, group.amount) for group in await world.api.unconfirmed_ages(None)] == [
        (0, 1, 300),
        (3_600, 1, 200),
        (86_400, 0, 0),
        (604_800, 1, 100),
        (2_592_000, 0, 0),
    ]


async def test_standings_tell_every_projects_month_and_its_doubt_of_any_month(world: World) -> None:
    capped = await world.project(name="capped", cap=NanoUSD(5_000))
    idle = await world.project(name="idle")
    await paid(world, capped, 100)
    await doubtful(world, capped, 700)

    told = {standing.name: standing for standing in await world.api.standings()}

    budget = told["capped"].budget
    assert (budget.cap, budget.spent, budget.reserved, budget.unconfirmed) == (5_000, 100, 0, 700)
    assert (told["capped"].unconfirmed, told["capped"].unconfirmed_attempts) == (700, 1)
    assert told["capped"].oldest_sent_at is not None
    assert (told["idle"].budget, told["idle"].oldest_sent_at) == (await world.budget(idle), None)


async def test_month_budgets_are_the_projects_own_of_those_months(world: World) -> None:
    one, other = await busy(world)
    month = (await world.budget(one)).month

    found = await world.api.month_budgets(ALL, first=month, last=month)

    assert {budget.project_id: (budget.spent, budget.unconfirmed) for budget in found} == {
        one.id: (5_167, 0),
        other.id: (1_000, 900),
    }
    assert await world.api.month_budgets(ALL, first="1999-01", last="1999-12") == ()
    assert await world.api.month_budgets(LedgerScope(one.id), first=month, last=month) == (await world.budget(one),)


@pytest.mark.parametrize("cut", [Cut.DAY, Cut.MONTH])
async def test_days_and_months_are_those_of_the_projects_zone(world: World, cut: Cut) -> None:
    project = await world.project(time_zone="Pacific/Kiritimati")
    await paid(world, project, 5)

    (row,) = await costs(world, LedgerScope(project.id), Cut.DAY, Cut.MONTH)

    assert row.month == (await world.budget(project)).month
    assert row.day is not None
    assert f"{row.day:%Y-%m}" == row.month
    assert getattr(row, cut.value) is not None
