"""A worker process to be killed: queue `large`, sweep and provider batches over real Postgres and HTTP."""

import asyncio
import sys
from dataclasses import replace
from typing import Any

from cope.adapters.answer_helper import in_process_judge
from cope.adapters.memory import MemoryLimiter, MemoryWakeUp
from cope.adapters.openai_batches import OpenAIBatches
from cope.adapters.openai_model import OpenAIModel
from cope.adapters.postgres.worker_store import PostgresWorkerStore
from cope.adapters.system import SystemClock, SystemIds
from cope.core.models import ModelCatalog
from cope.core.prices import PriceTable
from cope.core.prompts import BUILT_IN
from cope.usecases.drain import Drainer
from cope.usecases.provider_batches import ProviderBatcher
from cope.usecases.sweep import Sweeper
from tests.provider.scene import HALF, LARGE, LIVE, SMALL, TIER, Parts

LEASE_S, DOUBT_S = 1.0, 1.5


async def main(database_url: str, base_url: str, secret_key: str) -> None:
    """Until killed."""
    store = PostgresWorkerStore(database_url, secret_key=secret_key)
    await store.open()
    tier = replace(TIER, poll_s=0.2, max_wait_s=0.5)
    clock: Any = SystemClock()
    parts = Parts(
        store=store,
        wake=MemoryWakeUp(),
        limiter=MemoryLimiter(clock, {}),
        model=OpenAIModel(),  # type: ignore[arg-type]
        batches=OpenAIBatches(),
        judge=in_process_judge(),
        catalog=ModelCatalog(
            {"small": SMALL, "large": replace(LARGE, base_url=base_url, batch=tier)}, "small", "large", BUILT_IN
        ),
        prices=PriceTable([LIVE, HALF]),
        clock=clock,
        ids=SystemIds(),
    )
    drainer = Drainer(parts, queue="large", worker="w", concurrency=16, lease_s=LEASE_S)
    batcher = ProviderBatcher(parts, lease_s=LEASE_S, doubt_s=DOUBT_S)
    sweeper = Sweeper(parts, lease_s=LEASE_S, every_s=0.3)
    async with asyncio.TaskGroup() as group:
        for runner in (drainer, batcher, sweeper):
            group.create_task(runner.run(lambda: False))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
