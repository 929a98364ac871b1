"""Carrying tasks out step by step, without a worker's loop and its waits."""

import asyncio

from cope.usecases.drain import GroupedLedger
from cope.usecases.run_step import StepRun
from tests.usecases.test_pipeline import LEASE_S, Parts


async def work_off(parts: Parts) -> None:
    """Every task that is due, until none is."""
    ledger = GroupedLedger(parts.store, parts.wake)
    while due := [
        task
        for queue in ("small", "large")
        for task in await parts.store.claim(queue, worker="w", limit=100, lease_s=LEASE_S)
    ]:
        for task in due:
            gate = asyncio.Semaphore(64)
            await StepRun(parts, ledger, task, gate=gate, on_chain_end=lambda: None).run()  # type: ignore[arg-type]
