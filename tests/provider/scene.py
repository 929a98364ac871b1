"""A batch of large-model tasks, a provider with a batch tier, and a worker's parts over one of the stores."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from cope.adapters.answer_helper import in_process_judge
from cope.adapters.memory import FixedClock, MemoryBatches, MemoryLimiter, MemoryWakeUp, ScriptedModel
from cope.adapters.system import SystemIds
from cope.core.codec import encode_payload
from cope.core.lifecycle import TaskState
from cope.core.models import BatchTier, ModelCatalog, ModelEntry
from cope.core.money import NanoUSD, Price, TokenUsage, parse_usd
from cope.core.policies.spec import PolicyName, PolicySpec
from cope.core.prices import PriceTable
from cope.core.prompts import BUILT_IN
from cope.core.records import Batch, Budget, Project, TaskDetail
from cope.core.stages import Tier
from cope.core.task import OnBudget, ProviderBatch
from cope.ports.model import ChatAnswer
from cope.usecases.drain import GroupedLedger
from cope.usecases.provider_batches import DOUBT_S, ProviderBatcher
from cope.usecases.run_step import StepRun
from tests.contracts.world import LEASE_S, World, pages
from tests.support import NOON, make_new_task, make_policy, make_spec

LIVE = Price("p", "2026-11", parse_usd("2.5"), parse_usd("1.25"), parse_usd("10"), NOON.replace(year=2025))
HALF = replace(
    LIVE,
    tier="batch",
    input_per_mtok=parse_usd("1.25"),
    cached_input_per_mtok=parse_usd("0.625"),
    output_per_mtok=parse_usd("5"),
)
USAGE = TokenUsage(prompt=20, completion=10, calls=1)
FULL_COST, HALF_COST = LIVE.cost(USAGE), HALF.cost(USAGE)
TIER = BatchTier(min_lines=2, max_lines=100, max_wait_s=600, turnaround_s=7200, margin_s=3600, poll_s=30)
SMALL = ModelEntry("small", "small", "http://localhost/v1", Tier.SMALL, "reference", 1024)
LARGE = ModelEntry("large", "large", "http://localhost/v1", Tier.LARGE, "reference", 1024, price_id="p", batch=TIER)
DAY_S = 86_400.0


def nine(_: object = None) -> ChatAnswer:
    return ChatAnswer("It is \\boxed{9}.", "stop", USAGE, "chatcmpl-1")


class WorldClock:
    """The store's present."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> Any:
        return self._world.now()


@dataclass
class Parts:
    store: Any
    wake: MemoryWakeUp
    limiter: MemoryLimiter
    model: ScriptedModel
    batches: Any
    judge: Any
    catalog: ModelCatalog
    prices: PriceTable
    clock: WorldClock
    ids: SystemIds


class Scene:
    """What a test looks at and moves."""

    def __init__(
        self,
        world: World,
        *,
        script: Callable[[Mapping[str, Any]], ChatAnswer] = nine,
        large: ModelEntry = LARGE,
    ) -> None:
        self.world = world
        clock = WorldClock(world)
        self.provider = MemoryBatches(script, clock)
        self.parts = Parts(
            store=world.worker,
            wake=MemoryWakeUp(),
            limiter=MemoryLimiter(FixedClock(), {}),
            model=ScriptedModel(nine),
            batches=self.provider,
            judge=in_process_judge(),
            catalog=ModelCatalog({"small": SMALL, "large": large}, "small", "large", BUILT_IN),
            prices=PriceTable([LIVE, HALF]),
            clock=clock,
            ids=SystemIds(),
        )
        self.batcher = self.new_batcher()

    def new_batcher(self, **changes: object) -> ProviderBatcher:
        """Another process's."""
        return ProviderBatcher(replace(self.parts, **changes), lease_s=LEASE_S)  # type: ignore[arg-type]

    async def submit(
        self,
        lines: int = 3,
        *,
        cap: NanoUSD | None = None,
        window_s: float = DAY_S,
        way: ProviderBatch = ProviderBatch.AUTO,
        policy: PolicySpec | None = None,
        on_budget: OnBudget = OnBudget.HOLD,
        project: Project | None = None,
    ) -> Batch:
        """A batch in progress whose tasks wait for the large model."""
        project = project or await self.world.project(cap=cap)
        await self.world.submit(project)
        job = await self.world.worker.claim_validation(lease_s=LEASE_S)
        assert job is not None
        policy = policy or make_policy(PolicyName.LARGE)
        specs = [replace(make_spec(policy=policy, on_budget=on_budget), provider_batch=way) for _ in range(lines)]
        rows = [
            make_new_task(line, queue="large", spec=spec)._replace(payload=payload_of(spec))
            for line, spec in enumerate(specs, 1)
        ]
        window = timedelta(seconds=window_s)
        await self.world.worker.ingest(job, pages(rows), model=lambda: "large", expires_in=window)
        return await self.world.see(job.batch)

    async def work(self, *, limit: int = 100) -> int:
        """The worker of queue `large` takes what is due one step further; how many tasks."""
        tasks = await self.world.claim("large", limit=limit)
        ledger = GroupedLedger(self.parts.store, self.parts.wake)
        runs = [
            StepRun(self.parts, ledger, task, gate=asyncio.Semaphore(8), on_chain_end=lambda: None) for task in tasks
        ]
        await asyncio.gather(*(run.run() for run in runs))
        return len(tasks)

    async def send(self, lines: int = 3, **options: Any) -> Batch:
        """A batch whose calls are with the provider."""
        batch = await self.submit(lines, **options)
        await self.work()
        assert await self.batcher.send_gathered()
        return batch

    async def look(self) -> None:
        """After an hour of waiting at most, look after every provider batch that is due."""
        await self.world.advance(31)
        while await self.batcher.work_next():
            pass

    async def to_the_end(self, *batches: Batch, finish: bool = True, rounds: int = 12) -> None:
        """Time passes, the provider does its work, workers and sweeps do theirs, until these batches have ended."""
        for _ in range(rounds):
            await self.world.advance(DOUBT_S + 1)
            await self.batcher.send_gathered()
            while await self.batcher.work_next():
                pass
            if finish:
                self.provider.finish()
            await self.world.sweep()
            await self.work()
            seen = [await self.world.see(batch) for batch in batches]
            if all(one.done + one.failed == one.total for one in seen):
                return
        raise AssertionError([await self.world.states(batch) for batch in batches])

    async def tasks(self, batch: Batch) -> tuple[TaskDetail, ...]:
        page = await self.world.api.list_tasks(batch.project_id, batch.id, state=None, after=None, limit=1000)
        return page.items

    async def states(self, batch: Batch) -> set[TaskState]:
        return {task.state for task in await self.tasks(batch)}

    async def budget(self, batch: Batch) -> Budget:
        return await self.world.api.get_budget(batch.project_id)

    @property
    def live_calls(self) -> int:
        return len(self.parts.model.requests)

    async def assert_paid_once(self, batch: Batch, *, unconfirmed: int = 0) -> None:
        """Nothing was billed twice, and the books say exactly what the provider and the live calls cost."""
        assert len(set(self.provider.billed)) == len(self.provider.billed)
        budget = await self.budget(batch)
        billed = HALF_COST * len(self.provider.billed) + FULL_COST * self.live_calls
        assert (budget.spent, budget.reserved, budget.unconfirmed, budget.overrun) == (billed, 0, unconfirmed, 0)


def payload_of(spec: Any) -> str:
    """With the fields that the general builder leaves out."""
    return encode_payload(
        spec.problem,
        spec.options,
        requested_model=spec.requested_model,
        store=spec.store,
        max_cost=spec.max_cost,
        provider_batch=spec.provider_batch,
    )
