"""Whatever a project lives through, its costs by any grouping are its ledger's total, and its budgets the ledger's."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cope.core.ids import AttemptId
from cope.core.ledger import COUNTED, Cut, total_of
from cope.core.money import NanoUSD
from cope.core.records import Project
from cope.ports.ledger import Correction, LedgerScope, Reconciled
from cope.ports.store import ClaimedTask, GiveBack, Granted
from tests.contracts.world import MemoryWorld, World, bill, goes_on, large_step

ACTS = st.lists(
    st.tuples(
        st.sampled_from(
            ["reserve", "send", "settle", "release", "die", "sweep", "late", "reconcile", "correct", "external", "wait"]
        ),
        st.integers(0, 5),
        st.integers(0, 3_000),
    ),
    max_size=40,
)
CUTS = st.frozensets(st.sampled_from(Cut))


class Life:
    """Acts that may or may not be possible at the moment; what is not, does nothing."""

    def __init__(self, world: World, project: Project) -> None:
        self.world = world
        self.project = project
        self.leased: list[tuple[ClaimedTask, Granted | None, bool]] = []
        self.all: list[AttemptId] = []
        self.steps = 0

    async def act(self, name: str, which: int, amount: int) -> None:
        match name:
            case "reserve":
                await self.reserve(amount)
            case "sweep":
                await self.world.sweep()
            case "wait":
                await self.world.advance(amount)
            case "external":
                await self.world.book_external(self.project, amount)
            case "late" if self.all:
                await self.world.worker.store_late_answer(bill(self.all[which % len(self.all)], amount), "late")
            case "reconcile" if self.all:
                billed = Reconciled(self.all[which % len(self.all)], NanoUSD(amount), None, None)
                await self.world.api.settle_unconfirmed(self.project.id, [billed])
            case "correct" if self.all:
                await self.correct(self.all[which % len(self.all)], amount)
            case "send" | "settle" | "release" | "die" if self.leased:
                await self.go_on(name, which % len(self.leased), amount)
            case _:
                pass
        await self.world.api.update_project(self.project.id, paused=False)

    async def reserve(self, amount: int) -> None:
        for task in await self.world.claim("large", limit=1):
            result = await self.world.reserve(task, amount, step=f"stage{self.steps % 3 + 1}-{self.steps}")
            self.steps += 1
            granted = result if isinstance(result, Granted) else None
            self.leased.append((task, granted, False))
            if granted is not None:
                self.all.append(granted.attempt_id)

    async def go_on(self, name: str, place: int, amount: int) -> None:
        task, granted, sent = self.leased.pop(place)
        if name == "send" and granted is not None:
            await self.world.worker.mark_sent([granted.attempt_id])
            self.leased.append((task, granted, True))
        elif name == "settle":
            bills = (bill(granted, amount, overrun=amount // 7),) if granted is not None and sent else ()
            await self.world.commit(goes_on(task, step=large_step(name=f"step{self.steps}"), bills=bills))
            self.steps += 1
        elif name == "release":
            released = () if granted is None else (granted.attempt_id,)
            await self.world.worker.give_back([GiveBack(task.task_id, task.fence, released=released)])
        # died: nobody says anything, and the lease runs out.

    async def correct(self, attempt_id: AttemptId, billed: int) -> None:
        lines = [line async for page in self.world.api.ledger_lines(LedgerScope(), month=None) for line in page]
        booked = sum(
            -line.amount - line.freed if line.kind == "refunded" else line.amount
            for line in lines
            if line.attempt_id == attempt_id and line.kind in COUNTED
        )
        await self.world.api.correct(self.project.id, [Correction(attempt_id, NanoUSD(booked), NanoUSD(billed))])

    async def check(self, cuts: frozenset[Cut]) -> None:
        lines = [line async for page in self.world.api.ledger_lines(LedgerScope(), month=None) for line in page]
        total = sum(
            -line.amount - line.freed if line.kind == "refunded" else line.amount
            for line in lines
            if line.kind in COUNTED
        )
        rows = await self.world.api.costs(LedgerScope(self.project.id), first=None, last=None, cuts=cuts)
        budget = await self.world.budget(self.project)
        assert total_of(rows) == total == budget.spent + budget.overrun
        assert len({row.place for row in rows}) == len(rows)
        assert await self.world.api.ledger_difference(None) == ()


async def live(world: World, acts: list[tuple[str, int, int]], cuts: frozenset[Cut]) -> None:
    project = await world.project()
    await world.batch(project, 3, queue="large", expires_in_s=10**9)
    await world.live(project, queue="large")
    life = Life(world, project)
    for name, which, amount in acts:
        await life.act(name, which, amount)
    await life.check(cuts)


@given(ACTS, CUTS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_costs_by_any_grouping_are_the_ledgers_total_after_any_life(
    acts: list[tuple[str, int, int]], cuts: frozenset[Cut]
) -> None:
    asyncio.run(live(MemoryWorld(), acts, cuts))


ROUGH = [
    *[("reserve", 0, 1_000 + number) for number in range(4)],
    *[("send", 0, 0)] * 4,
    ("settle", 0, 700),
    ("die", 0, 0),
    ("die", 0, 0),
    ("wait", 0, 100),
    ("sweep", 0, 0),
    ("late", 1, 900),
    ("reconcile", 2, 1_500),
    ("reconcile", 3, 10),
    ("external", 0, 50_000),
    ("correct", 0, 800),
    ("correct", 0, 100),
    ("correct", 2, 1_600),
    ("late", 2, 3),
    ("reserve", 0, 40),
    ("release", 0, 0),
]


@pytest.mark.parametrize("cuts", [frozenset(), frozenset({Cut.STAGE}), frozenset(Cut)], ids=["none", "stage", "all"])
async def test_a_rough_life_adds_up_on_every_store(world: World, cuts: frozenset[Cut]) -> None:
    await live(world, ROUGH, cuts)
