"""What the provider's own batch tier saves on one scripted run: the same cascade live, gathered, and with a provider
that does not do everything it was asked for.

    python ops/bench/provider_batches.py [--tasks 600]

Everything runs in memory on a clock of its own; answers, lengths and faults follow from a hash of the task, so every
run of a size gives the same figures. They say what the machinery does with a script, not what any provider will do.
"""

import argparse
import asyncio
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from fractions import Fraction
from typing import Any

from cope.adapters.answer_helper import in_process_judge
from cope.adapters.memory import (
    FixedClock,
    MemoryBatches,
    MemoryLimiter,
    MemoryStore,
    MemoryWakeUp,
    ScriptedModel,
    SequentialIds,
)
from cope.core import ids
from cope.core.codec import encode_payload, encode_policy
from cope.core.errors import ModelRejected
from cope.core.ids import BatchId, FileId, ProjectId, TaskId
from cope.core.lifecycle import BatchStatus
from cope.core.models import BatchTier, ModelCatalog, ModelEntry
from cope.core.money import Price, TokenUsage, format_usd, parse_usd
from cope.core.policies.spec import PolicyName, PolicySpec
from cope.core.prices import PriceTable
from cope.core.problem import Kind, Message, Problem
from cope.core.prompts import BUILT_IN
from cope.core.records import Batch, Project
from cope.core.stages import Tier
from cope.core.task import CallerOptions, OnBudget, StoreLevel
from cope.ports.model import ChatAnswer, ChatRequest
from cope.ports.store import NewBatch, NewTask
from cope.usecases.drain import GroupedLedger
from cope.usecases.provider_batches import ProviderBatcher
from cope.usecases.run_step import StepRun

LEASE_S = 30.0
STEP_S = 300.0
TURNAROUND_S = 4 * 3600.0


def drawn(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def task_of(text: str) -> int:
    """The task's number, which stands in its problem."""
    found = re.search(r"problem (\d+)\b", text)
    assert found is not None
    return int(found.group(1))


def answered(number: int, role: str, text: str) -> ChatAnswer:
    """With lengths of an ordinary word problem: about 150 tokens in, 40 for a plan and 250 for a solution out."""
    longest = 40 if role == "plan" else 250
    usage = TokenUsage(120 + int(60 * drawn(number, "in")), 0, int(longest * (0.6 + 0.8 * drawn(number, role))), 0, 1)
    return ChatAnswer(text, "stop", usage, f"chatcmpl-{number}")


def small_model(request: ChatRequest) -> ChatAnswer:
    """Agrees with itself at once in 55 of 100 tasks, with the guideline in half of the others."""
    text = " ".join(message.content for message in request.messages)
    number, sample = task_of(text), request.request_id[-4:-1]
    guided = "Work back" in text
    agrees = drawn(number, "agrees") < (0.775 if guided else 0.55)
    return answered(number, "solve", "\\boxed{5}" if agrees else f"\\boxed{{{sample}}}")


def large_model(text: str) -> ChatAnswer:
    """Plans where it is asked for a guideline, else solves."""
    planning = text.endswith("Guideline?")
    return answered(task_of(text), "plan" if planning else "solve", "Work back." if planning else "\\boxed{9}")


@dataclass(frozen=True)
class Parts:
    """What a worker is made of, in memory."""

    store: MemoryStore
    wake: MemoryWakeUp
    limiter: MemoryLimiter
    model: ScriptedModel
    batches: MemoryBatches
    judge: Any
    catalog: ModelCatalog
    prices: PriceTable
    clock: FixedClock
    ids: SequentialIds


@dataclass(frozen=True)
class Run:
    """What one way of running came to."""

    bill: int
    gathered: int
    live: int
    hours: float


def make_parts(*, tier: BatchTier | None, failing_share: float) -> Parts:
    """A worker over an empty store."""
    clock, names = FixedClock(), SequentialIds()
    long_ago = clock.now() - timedelta(days=400)
    price = Price("p", "bench", parse_usd("2.5"), parse_usd("1.25"), parse_usd("10"), long_ago)
    half = replace(
        price,
        tier="batch",
        input_per_mtok=parse_usd("1.25"),
        cached_input_per_mtok=parse_usd("0.625"),
        output_per_mtok=parse_usd("5"),
    )

    def live(request: ChatRequest) -> ChatAnswer:
        if request.model.name == "small":
            return small_model(request)
        return large_model(request.messages[-1].content)

    def batched(body: Mapping[str, Any]) -> ChatAnswer:
        text = str(body["messages"][-1]["content"])
        if drawn(text, "fails") < failing_share:
            raise ModelRejected("HTTP 500: the line failed", answered=True)
        return large_model(text)

    small = ModelEntry("small", "small", "http://small/v1", Tier.SMALL, "reference", 4096)
    large = ModelEntry("large", "large", "http://large/v1", Tier.LARGE, "reference", 4096, price_id="p", batch=tier)
    return Parts(
        store=MemoryStore(clock, names),
        wake=MemoryWakeUp(),
        limiter=MemoryLimiter(clock, {}),
        model=ScriptedModel(live),
        batches=MemoryBatches(batched, clock),
        judge=in_process_judge(),
        catalog=ModelCatalog({"small": small, "large": large}, "small", "large", BUILT_IN),
        prices=PriceTable([price, half]),
        clock=clock,
        ids=names,
    )


async def submit(parts: Parts, tasks: int) -> Batch:
    """One batch of `tasks` word problems under the cascade, with a window of a day."""
    project_id, now = ProjectId(parts.ids.new(ids.PROJECT)), parts.clock.now()
    await parts.store.create_project(Project(project_id, "bench", now, "UTC", None, "math", paused=False), "whsec_")
    batch = Batch(
        BatchId(parts.ids.new(ids.BATCH)), project_id, None, "/v1/chat/completions", FileId("file-0"), "24h",
        BatchStatus.VALIDATING, now,
    )  # fmt: skip
    await parts.store.create_batch(NewBatch(batch, b"bench", None, retry=0))
    job = await parts.store.claim_validation(lease_s=LEASE_S)
    assert job is not None
    policy = encode_policy(
        PolicySpec(PolicyName.COPE, "small", "large", n=8, tau1=Fraction("0.75"), tau2=Fraction("0.5"))
    )

    def row(line: int) -> NewTask:
        problem = Problem(Kind.MATH, (Message("user", f"This is problem {line} of the bench: how many?"),))
        payload = encode_payload(problem, CallerOptions(), requested_model="cope", store=StoreLevel.NONE)
        task_id = TaskId(parts.ids.new(ids.TASK))
        return NewTask(task_id, line, f"line-{line}", payload, policy, line, "small", 0, OnBudget.HOLD)

    async def pages() -> Any:
        yield [row(line) for line in range(1, tasks + 1)]

    await parts.store.ingest(job, pages(), model=lambda: "cope", expires_in=timedelta(hours=24))
    return batch


async def work(parts: Parts, queue: str) -> None:
    """Everything that is due in a queue, one step further."""
    ledger = GroupedLedger(parts.store, parts.wake)
    while tasks := await parts.store.claim(queue, worker="bench", limit=200, lease_s=LEASE_S):
        gate = asyncio.Semaphore(64)
        runs = [StepRun(parts, ledger, task, gate=gate, on_chain_end=lambda: None) for task in tasks]
        await asyncio.gather(*(run.run() for run in runs))


async def carry_out(tasks: int, *, tier: BatchTier | None, failing_share: float = 0.0, expires: float = 0.0) -> Run:
    """A run to its end. Each provider batch takes its turnaround; a share `expires` of them ends with 70 % done."""
    parts = make_parts(tier=tier, failing_share=failing_share)
    batch, began = await submit(parts, tasks), parts.clock.now()
    batcher = ProviderBatcher(parts, lease_s=LEASE_S)
    seen = batch
    while seen.done + seen.failed < tasks:
        for queue in ("small", "large", "small", "large"):
            await work(parts, queue)
        await batcher.send_gathered()
        for kept in parts.batches.batches.values():
            age_s = (parts.clock.now() - kept.remote.created_at).total_seconds()
            if not kept.remote.ended and age_s >= TURNAROUND_S:
                cut = drawn(kept.remote.id, "expires") < expires
                status, done = ("expired", int(0.7 * len(kept.lines))) if cut else ("completed", None)
                parts.batches.finish(kept.remote.id, status=status, done=done)
        while await batcher.work_next():
            pass
        await parts.store.sweep(lease_s=LEASE_S)
        found = await parts.store.get_batch(batch.project_id, batch.id)
        assert found is not None
        seen = found
        parts.clock.advance(STEP_S)
    live = sum(1 for request in parts.model.requests if request.model.name == "large")
    budget = await parts.store.get_budget(batch.project_id)
    assert (budget.reserved, budget.unconfirmed, budget.spent) == (0, 0, seen.spent)
    hours = (parts.clock.now() - began).total_seconds() / 3600
    return Run(seen.spent, len(parts.batches.billed), live, hours)


async def main(tasks: int) -> None:
    """Print the table."""
    tier = BatchTier(min_lines=20, max_wait_s=900, turnaround_s=TURNAROUND_S + 3600, margin_s=3600)
    runs = {
        "live": await carry_out(tasks, tier=None),
        "gathered": await carry_out(tasks, tier=tier),
        "gathered, 5 % of lines fail, a third of batches expires at 70 %": await carry_out(
            tasks, tier=tier, failing_share=0.05, expires=0.34
        ),
    }
    whole = runs["live"].bill
    for name, run in runs.items():
        print(
            f"{name}: ${format_usd(run.bill)}  {100 * run.bill / whole:.1f} % of live  large calls: {run.gathered} in "
            f"provider batches, {run.live} live  {run.hours:.1f} h on the script's clock"
        )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--tasks", type=int, default=600)
    asyncio.run(main(arguments.parse_args().tasks))
