"""A provider that cuts, hangs up, miscounts and bills twice: once reconciled, our receipts are its books."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from cope.adapters.answer_helper import in_process_judge
from cope.adapters.memory import MemoryLimiter, MemoryWakeUp
from cope.adapters.openai_model import OpenAIModel
from cope.adapters.system import SystemClock, SystemIds
from cope.adapters.usage_spool import SqliteSpool
from cope.core.ledger import COUNTED, CostKind, Cut, total_of
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.money import Price, TokenUsage, parse_usd
from cope.core.prices import PriceTable
from cope.core.prompts import BUILT_IN
from cope.core.reconcile import UNSETTLED
from cope.core.records import Project
from cope.core.stages import Tier
from cope.ports.ledger import LedgerScope
from cope.ports.model import ChatAnswer, ChatModel, ChatRequest
from cope.ports.store import WorkerStore
from cope.usecases.drain import Drainer
from cope.usecases.reconcile import Orders, Reconciliation, reconcile
from tests.contracts.world import LEASE_S, World
from tests.paid_api.process import PaidApi
from tests.support import NOON

LINES = 14
PRICE = Price("p", "2026-11-01", parse_usd("2.5"), parse_usd("1.25"), parse_usd("10"), NOON.replace(year=2025))
SMALL = ModelEntry("small", "small", "http://localhost/v1", Tier.SMALL, "instruct", 4096)
RULES: list[dict[str, Any]] = [
    {"fault": "cut", "calls": [2]},
    {"fault": "broken_json", "calls": [4]},
    {"fault": "missing_usage", "calls": [6]},
    {"fault": "duplicate", "calls": [8]},
    {"fault": "server_error", "status": 500, "billed": True, "calls": [10]},
    {"fault": "server_error", "status": 500, "billed": False, "calls": [12]},
    {"fault": "rate_limited", "calls": [14]},
    {"fault": "overbilling", "factor": 400, "calls": [16]},
    {"fault": "empty_choices", "calls": [18]},
    {"fault": "cut", "how": "reset", "after": 0, "calls": [20]},
]


class Models:
    """The small model never agrees with itself, so every task needs the paid one."""

    def __init__(self) -> None:
        self.paid = OpenAIModel()

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        if request.model.tier is Tier.LARGE:
            return await self.paid.chat(request)
        return ChatAnswer(f"\\boxed{{{request.request_id[-4:-1]}}}", "stop", TokenUsage(20, 0, 10, 0, 1), "id")

    async def abort(self, request: ChatRequest) -> None:
        """Nothing runs on."""

    async def aclose(self) -> None:
        await self.paid.aclose()


@dataclass(frozen=True)
class Parts:
    store: WorkerStore
    wake: MemoryWakeUp
    limiter: MemoryLimiter
    model: ChatModel
    judge: object
    catalog: ModelCatalog
    prices: PriceTable
    clock: SystemClock
    ids: SystemIds


def catalog_of(provider: PaidApi) -> ModelCatalog:
    large = ModelEntry(
        "large", "large", provider.base_url, Tier.LARGE, "instruct", 4096, price_id="p", api_key="sk-a", timeout_s=5.0
    )
    return ModelCatalog({"small": SMALL, "large": large}, "small", "large", BUILT_IN)


async def drain(parts: Parts) -> None:
    """Until nothing moves."""
    for queue in ("small", "large"):
        drainer = Drainer(parts, queue=queue, worker="w", concurrency=4, lease_s=LEASE_S)  # type: ignore[arg-type]
        looks = 0

        def over(drainer: Drainer = drainer) -> bool:
            nonlocal looks
            looks += 1
            return looks > 2 and drainer.in_flight == 0

        await asyncio.wait_for(drainer.run(over), 60)


async def live(world: World, project: Project, provider: PaidApi) -> int:
    """Every line to its end, whatever the provider does; how many ended."""
    batch = await world.batch(project, LINES, expires_in_s=10**9)
    clock, models = SystemClock(), Models()
    parts = Parts(
        store=world.worker,
        wake=MemoryWakeUp(),
        limiter=MemoryLimiter(clock, {}),
        model=models,
        judge=in_process_judge(),
        catalog=catalog_of(provider),
        prices=PriceTable([PRICE]),
        clock=clock,
        ids=SystemIds(),
    )
    try:
        for _ in range(30):
            await drain(parts)
            await world.advance(LEASE_S + 3_600)  # leases run out, and so do the waits between tries
            await world.api.update_project(project.id, paused=False)  # the overrun has stopped it
            await world.sweep()
            seen = await world.see(batch)
            if seen.done + seen.failed == LINES:
                return seen.done
    finally:
        await models.aclose()
    raise AssertionError("some lines never end")


async def settle(world: World, provider: PaidApi, orders: Orders) -> Reconciliation:
    spool = SqliteSpool()
    try:
        await spool.write(provider.books.csv().encode())
        return await reconcile(
            world.api,
            spool,
            catalog=catalog_of(provider),
            prices=PriceTable([PRICE]),
            now=world.now(),
            orders=orders,
        )
    finally:
        await spool.aclose()


async def test_after_reconciling_the_ledger_is_the_providers_books_to_the_nano_dollar(
    world: World, tmp_path: Path
) -> None:
    project = await world.project()
    with PaidApi(tmp_path, script={"seed": 3, "rules": RULES}) as provider:
        assert await live(world, project, provider) == LINES
        doubt = (await world.budget(project)).unconfirmed
        assert doubt > 0
        now = world.now()
        whole = Orders(
            apply=True, apply_differences=True, complete=(now - timedelta(days=900), now - timedelta(seconds=1))
        )
        found = await settle(world, provider, whole)
        again = await settle(world, provider, whole)
        books = provider.books

    assert {"settled", "not_billed", "corrected", "equal"} <= {verdict.value for verdict in found.tallies}
    assert not UNSETTLED & found.tallies.keys()
    assert [verdict.value for verdict in again.tallies] == ["equal"]
    scope = LedgerScope(project.id)
    rows = await world.api.costs(scope, first=None, last=None, cuts=frozenset({Cut.STAGE, Cut.MODEL}))
    budget = await world.budget(project)
    assert total_of(rows) == budget.spent + budget.overrun == books.total_nano()
    assert total_of(rows, CostKind.OVERRUN) > 0
    assert (budget.reserved, budget.unconfirmed) == (0, 0)
    assert await world.api.ledger_difference(None) == ()
    by_step: Counter[str] = Counter()
    async for page in world.api.ledger_lines(scope, month=None):
        for line in page:
            if line.kind in COUNTED and line.request_id is not None:
                by_step[line.request_id] += (-line.amount - line.freed) if line.kind == "refunded" else line.amount
    billed: Counter[str] = Counter()
    for request_id, nano in books.billed_by_request().items():
        assert request_id is not None
        billed[request_id.rpartition("-")[0]] += nano
    assert +by_step == +billed
