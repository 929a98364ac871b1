"""The use cases on the shipped in-memory adapters: from an uploaded file to result files, and what can go wrong."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from cope.adapters.answer_helper import in_process_judge
from cope.adapters.memory import (
    FixedClock,
    MemoryFiles,
    MemoryLimiter,
    MemoryStore,
    MemoryWakeUp,
    RecordingWebhookSender,
    ScriptedModel,
    SequentialIds,
)
from cope.core.errors import ModelOverloaded, ModelUnreachable
from cope.core.ids import FileId, ProjectId
from cope.core.lifecycle import BatchStatus
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.money import NanoUSD, Price, TokenUsage, parse_usd
from cope.core.prices import PriceTable
from cope.core.prompts import BUILT_IN
from cope.core.records import Batch
from cope.core.stages import Tier
from cope.ports.model import ChatAnswer, ChatRequest
from cope.ports.store import NewBatch
from cope.usecases.drain import Drainer
from cope.usecases.finalise import finalise_next
from cope.usecases.ingest import ingest_next
from tests.support import NOON, make_batch, make_file, make_key, make_project

LEASE_S = 30.0
PRICE = Price("p", "2026-11", parse_usd("2.5"), parse_usd("1.25"), parse_usd("10"), NOON.replace(year=2025))
SMALL = ModelEntry("small", "small", "http://localhost/v1", Tier.SMALL, "reference", 1024)
LARGE = ModelEntry("large", "large", "http://localhost/v1", Tier.LARGE, "reference", 1024, price_id="p")
USAGE = TokenUsage(prompt=20, completion=10, calls=1)
Script = Callable[[ChatRequest], ChatAnswer]


def says(text: str) -> ChatAnswer:
    return ChatAnswer(text, "stop", USAGE, "id")


def agreeing(request: ChatRequest) -> ChatAnswer:
    return says("\\boxed{5}")


def divided(request: ChatRequest) -> ChatAnswer:
    """The small model never agrees with itself; the large one plans, and solves with the answer 9."""
    if request.model.name == "large":
        return says("Work back." if request.messages[-1].content.endswith("Guideline?") else "\\boxed{9}")
    return says(f"\\boxed{{{request.request_id[-4:-1]}}}")


@dataclass(frozen=True)
class Parts:
    store: MemoryStore
    files: MemoryFiles
    wake: MemoryWakeUp
    limiter: MemoryLimiter
    model: ScriptedModel
    judge: object
    catalog: ModelCatalog
    prices: PriceTable
    clock: FixedClock
    ids: SequentialIds
    webhooks: RecordingWebhookSender


def make_parts(script: Script | Callable[[ChatRequest], Awaitable[ChatAnswer]]) -> Parts:
    clock, ids = FixedClock(), SequentialIds()
    return Parts(
        store=MemoryStore(clock, ids),
        files=MemoryFiles(),
        wake=MemoryWakeUp(),
        limiter=MemoryLimiter(clock, {}),
        model=ScriptedModel(script),
        judge=in_process_judge(),
        catalog=ModelCatalog({"small": SMALL, "large": LARGE}, "small", "large", BUILT_IN),
        prices=PriceTable([PRICE]),
        clock=clock,
        ids=ids,
        webhooks=RecordingWebhookSender(),
    )


def line(custom_id: str, *, model: str = "cope", **cope: object) -> str:
    body: dict[str, object] = {"model": model, "messages": [{"role": "user", "content": "2 + 3?"}]}
    if cope:
        body["cope"] = cope
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body})


async def submit(parts: Parts, *lines: str, cap: NanoUSD | None = None) -> Batch:
    project = make_project(cap=cap)
    await parts.store.create_project(project, "whsec_dGVzdHMtc2lnbi10aGVpci13ZWJob29rcw==")
    await parts.store.create_key(make_key(project.id))
    file = make_file(project.id)
    await parts.store.create_file(file)
    writer = await parts.files.create(file.id)
    await writer.write("\n".join(lines).encode())
    await writer.commit()
    batch = await parts.store.create_batch(NewBatch(make_batch(project.id, file.id), b"hash", None, retry=0))
    assert await ingest_next(parts, lease_s=LEASE_S)
    return batch


async def settle(parts: Parts, *, rounds: int = 400) -> None:
    """Drain both queues until nothing moves any more."""
    for _ in range(4):
        for queue in ("small", "large", "small", "large"):
            drainer = Drainer(parts, queue=queue, worker="w", concurrency=64, lease_s=LEASE_S)  # type: ignore[arg-type]
            left = rounds

            def stopping(drainer: Drainer = drainer) -> bool:
                nonlocal left
                left -= 1
                return left <= 0 or (left <= rounds - 2 and drainer.in_flight == 0)

            await drainer.run(stopping)


async def current(parts: Parts, batch: Batch) -> Batch:
    found = await parts.store.get_batch(ProjectId(batch.project_id), batch.id)
    assert found is not None
    return found


async def results(parts: Parts, file_id: FileId | None) -> list[dict[str, object]]:
    if file_id is None:
        return []
    return [json.loads(text) for text in b"".join([c async for c in parts.files.read(file_id)]).splitlines()]


async def test_agreement_ends_in_stage_1_for_free_and_the_result_file_says_why():
    parts = make_parts(agreeing)
    batch = await submit(parts, line("a"), line("b"))
    await settle(parts)
    assert await finalise_next(parts, lease_s=LEASE_S)
    done = await current(parts, batch)

    assert (done.status, done.done, done.failed, done.spent) == (BatchStatus.COMPLETED, 2, 0, 0)
    output = await results(parts, done.output_file_id)
    assert sorted(str(one["custom_id"]) for one in output) == ["a", "b"]
    body = output[0]["response"]["body"]  # type: ignore[index]
    assert (body["cope"]["stage"], body["cope"]["answer"]) == (1, "5")
    assert await results(parts, done.error_file_id) == []


async def test_an_accepted_vote_aborts_the_samples_it_no_longer_needs():
    started = asyncio.Event()

    async def script(request: ChatRequest) -> ChatAnswer:
        if request.request_id.endswith("007x"):
            started.set()
            await asyncio.sleep(3600)
        return says("\\boxed{5}")

    parts = make_parts(script)
    batch = await submit(parts, line("a", model="small-majority"))
    await asyncio.wait_for(settle(parts), 20)
    done = await current(parts, batch)

    assert done.done == 1
    assert parts.model.aborted


async def test_disagreement_goes_through_all_three_stages_and_every_nano_dollar_is_a_steps():
    parts = make_parts(divided)
    batch = await submit(parts, line("a"))
    await settle(parts)
    await finalise_next(parts, lease_s=LEASE_S)
    done = await current(parts, batch)

    (only,) = await results(parts, done.output_file_id)
    block = only["response"]["body"]["cope"]  # type: ignore[index]
    assert [step["name"] for step in block["steps"]] == ["stage1", "stage2-plan", "stage2-execute", "stage3"]
    assert (block["stage"], block["answer"]) == (3, "9")
    assert done.spent == sum(step["cost_nanousd"] for step in block["steps"]) == 2 * PRICE.cost(USAGE)


async def test_without_money_the_large_stage_is_held_and_a_raise_resumes_it():
    parts = make_parts(divided)
    batch = await submit(parts, line("a"), cap=NanoUSD(0))
    await settle(parts)
    held = await current(parts, batch)
    assert sum(held.held.values()) == 1
    assert all(request.model.name == "small" for request in parts.model.requests)

    await parts.store.set_cap(batch.project_id, parse_usd("1"))
    await parts.store.sweep(lease_s=LEASE_S)
    await settle(parts)
    assert (await current(parts, batch)).done == 1


async def test_without_money_a_task_that_asks_to_fail_fails_with_openais_error():
    parts = make_parts(divided)
    batch = await submit(parts, line("a", on_budget="fail"), cap=NanoUSD(0))
    await settle(parts)
    await finalise_next(parts, lease_s=LEASE_S)

    (only,) = await results(parts, (await current(parts, batch)).error_file_id)
    response = only["response"]
    assert response["status_code"] == 429  # type: ignore[index]
    assert response["body"]["error"]["code"] == "project_spend_limit_exceeded"  # type: ignore[index]


async def test_hold_best_vote_and_fail_in_one_batch_each_end_as_their_line_asked():
    parts = make_parts(divided)
    batch = await submit(
        parts,
        line("h", on_budget="hold"),
        line("v", on_budget="best_vote"),
        line("f", on_budget="fail"),
        cap=NanoUSD(0),
    )
    await settle(parts)
    seen = await current(parts, batch)
    assert (seen.done, seen.failed, sum(seen.held.values())) == (1, 1, 1)

    await parts.store.set_cap(batch.project_id, parse_usd("1"))
    await parts.store.sweep(lease_s=LEASE_S)
    await settle(parts)
    await finalise_next(parts, lease_s=LEASE_S)

    seen = await current(parts, batch)
    output = {row["custom_id"]: row["response"]["body"] for row in await results(parts, seen.output_file_id)}  # type: ignore[index]
    (failed,) = await results(parts, seen.error_file_id)
    assert failed["custom_id"] == "f"
    assert sorted(output) == ["h", "v"]
    voted, held = output["v"]["cope"], output["h"]["cope"]
    assert (voted["degraded"], voted["accepted"], voted["stage"], voted["cost_nanousd"]) == (True, False, 1, 0)
    assert voted["confidence"] == 0.125
    assert voted["reason"] == "majority: 1 of 8 agree; the next call did not fit under the project's cap"
    assert (held["degraded"], held["answer"], held["stage"]) == (False, "9", 3)


async def test_best_vote_without_any_small_answer_fails_with_openais_error():
    parts = make_parts(divided)
    batch = await submit(parts, line("a", model="large", on_budget="best_vote"), cap=NanoUSD(0))
    await settle(parts)
    await finalise_next(parts, lease_s=LEASE_S)

    (only,) = await results(parts, (await current(parts, batch)).error_file_id)
    assert only["response"]["body"]["error"]["code"] == "project_spend_limit_exceeded"  # type: ignore[index]
    assert only["response"]["body"]["error"]["type"] == "insufficient_quota"  # type: ignore[index]


async def test_a_lines_own_cap_ends_it_with_the_best_vote_and_never_waits():
    parts = make_parts(divided)
    batch = await submit(parts, line("a", max_cost_usd="0"), line("b", max_cost_usd="0", on_budget="fail"))
    await settle(parts)
    await finalise_next(parts, lease_s=LEASE_S)

    seen = await current(parts, batch)
    (voted,) = await results(parts, seen.output_file_id)
    (failed,) = await results(parts, seen.error_file_id)
    assert voted["response"]["body"]["cope"]["degraded"] is True  # type: ignore[index]
    assert failed["response"]["body"]["error"]["code"] == "task_spend_limit_exceeded"  # type: ignore[index]


async def test_a_model_server_that_is_away_costs_no_try_and_its_return_finishes_the_batch():
    away = True

    def script(request: ChatRequest) -> ChatAnswer:
        if away:
            raise ModelUnreachable("refused", sent=False)
        return says("\\boxed{5}")

    parts = make_parts(script)
    batch = await submit(parts, line("a"))
    for _ in range(8):
        await settle(parts, rounds=4)
        parts.clock.advance(10)
    away = False
    await settle(parts)

    assert (await current(parts, batch)).done == 1


async def test_a_refused_paid_call_costs_nothing_and_an_unanswered_one_stays_reserved():
    refused = True

    def script(request: ChatRequest) -> ChatAnswer:
        raise ModelOverloaded("busy", answered=refused)

    parts = make_parts(script)
    batch = await submit(parts, line("a", model="large"), cap=parse_usd("1"))
    await settle(parts, rounds=4)
    budget = await parts.store.get_budget(batch.project_id)
    assert (budget.spent, budget.reserved + budget.unconfirmed) == (0, 0)

    refused = False
    parts.clock.advance(60)
    await settle(parts, rounds=4)
    await parts.store.sweep(lease_s=LEASE_S)
    budget = await parts.store.get_budget(batch.project_id)
    assert budget.spent == 0
    assert budget.reserved + budget.unconfirmed > 0


@pytest.mark.parametrize(
    ("bad", "code", "param"),
    [
        ("not json", "invalid_json_line", None),
        ("[]", "invalid_json_line", None),
        ('{"custom_id": "a"}', "missing_required_parameter", "body"),
        (line("a").replace("POST", "GET"), "invalid_value", "method"),
        (line("a").replace("/v1/chat", "/v1/cat"), "invalid_url", "url"),
        (line("a", tau1="9"), "invalid_value", "body.cope.tau1"),
        (line("a", model="nobody"), "model_not_found", "body.model"),
        (line("fine"), "duplicate", "custom_id"),
    ],
)
async def test_a_bad_line_fails_the_batch_by_its_number_and_writes_nothing(bad: str, code: str, param: str | None):
    parts = make_parts(agreeing)
    batch = await submit(parts, line("fine"), bad)
    failed = await current(parts, batch)

    assert (failed.status, failed.total) == (BatchStatus.FAILED, 0)
    assert [(error.line, error.code, error.param) for error in failed.errors] == [(2, code, param)]
    assert await parts.store.claim("small", worker="w", limit=9, lease_s=1) == []


async def test_an_empty_file_is_refused():
    parts = make_parts(agreeing)
    batch = await submit(parts, "", "  ")

    assert [error.code for error in (await current(parts, batch)).errors] == ["empty_file"]
