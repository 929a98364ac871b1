"""The baselines on real recorded answers of llama-2-13b and gpt-4, in one batch over HTTP.

What is expected is counted from the file alone, with nothing of the service.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ops.bench.replay import RecordedPrograms, Recording, recording, replaying

from cope.adapters.answer_helper import in_process_judge
from cope.adapters.memory import (
    FixedClock,
    MemoryFiles,
    MemoryLimiter,
    MemoryStore,
    MemoryWakeUp,
    RecordingWebhookSender,
    SequentialIds,
)
from cope.adapters.openai_model import OpenAIModel
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.prices import PriceTable
from cope.core.prompts import BUILT_IN
from cope.core.stages import Tier
from cope.ports.answers import AnswerJudge
from cope.ports.store import NewBatch
from cope.usecases.drain import Drainer
from cope.usecases.finalise import finalise_next
from cope.usecases.ingest import ingest_next
from tests.support import make_batch, make_file, make_key, make_price, make_project

RECORDED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "recorded_gsm8k_200.jsonl"
SMALL, LARGE = "llama-2-13b", "gpt-4"
POLICIES: dict[str, dict[str, object]] = {
    "small-majority": {"prompt_set": "pot1"},
    "cascade-vote": {"prompt_sets": ["pot1", "pot2"]},
    "cascade-verify": {"prompt_sets": ["pot1", "pot2"]},
    "large": {"prompt_set": "cot1"},
}
Outcome = tuple[float | None, int]
"""The answer (None: none) and the stage that gave it."""


@dataclass(frozen=True)
class Parts:
    store: MemoryStore
    files: MemoryFiles
    wake: MemoryWakeUp
    limiter: MemoryLimiter
    model: OpenAIModel
    judge: AnswerJudge
    catalog: ModelCatalog
    prices: PriceTable
    clock: FixedClock
    ids: SequentialIds
    webhooks: RecordingWebhookSender


def make_parts(base_url: str, recordings: list[Recording]) -> Parts:
    clock, ids = FixedClock(), SequentialIds()
    small = ModelEntry(SMALL, SMALL, base_url, Tier.SMALL, "instruct", 4096, abort="rid")
    large = ModelEntry(LARGE, LARGE, base_url, Tier.LARGE, "instruct", 8192, price_id="p")
    return Parts(
        store=MemoryStore(clock, ids),
        files=MemoryFiles(),
        wake=MemoryWakeUp(),
        limiter=MemoryLimiter(clock, {}),
        model=OpenAIModel(),
        judge=in_process_judge(programs=RecordedPrograms(recordings)),
        catalog=ModelCatalog({SMALL: small, LARGE: large}, SMALL, LARGE, BUILT_IN, runs_programs=True),
        prices=PriceTable([make_price("30", "60")]),
        clock=clock,
        ids=ids,
        webhooks=RecordingWebhookSender(),
    )


async def solve(parts: Parts, problems: list[str]) -> list[dict[str, Any]]:
    """One batch of every problem under every policy; the bodies of its output lines, by custom id."""
    lines = [
        {
            "custom_id": f"{name} {number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": name, "messages": [{"role": "user", "content": problem}], "cope": options},
        }
        for name, options in POLICIES.items()
        for number, problem in enumerate(problems)
    ]
    project = make_project()
    await parts.store.create_project(project, "whsec_dGVzdHMtc2lnbi10aGVpci13ZWJob29rcw==")
    await parts.store.create_key(make_key(project.id))
    file = make_file(project.id)
    await parts.store.create_file(file)
    writer = await parts.files.create(file.id)
    await writer.write("\n".join(map(json.dumps, lines)).encode())
    await writer.commit()
    batch = await parts.store.create_batch(NewBatch(make_batch(project.id, file.id), b"hash", None, retry=0))
    assert await ingest_next(parts, lease_s=3600.0)
    ended = False
    drains = [
        Drainer(parts, queue=queue, worker=queue, concurrency=64, lease_s=3600.0).run(lambda: ended)
        for queue in ("small", "large")
    ]
    working = asyncio.gather(*drains)
    while not ended:
        await asyncio.sleep(0.05)
        now = await parts.store.get_batch(project.id, batch.id)
        assert now is not None
        ended = now.done + now.failed == len(lines)
    await working
    assert await finalise_next(parts, lease_s=3600.0)
    done = await parts.store.get_batch(project.id, batch.id)
    assert done is not None
    assert (done.failed, done.done, done.output_file_id is None) == (0, len(lines), False), done.error_messages
    written = b"".join([chunk async for chunk in parts.files.read(done.output_file_id)])  # type: ignore[arg-type]
    found = {row["custom_id"]: row["response"]["body"] for row in map(json.loads, written.splitlines())}
    return [found[line["custom_id"]] for line in lines]  # type: ignore[index]


async def outcomes(recordings: list[Recording]) -> dict[str, list[Outcome]]:
    """What each policy answers to each problem, and in which stage."""
    async with replaying(recordings) as (_, url):
        parts = make_parts(url, recordings)
        try:
            bodies = await solve(parts, [one.problem for one in recordings])
        finally:
            await parts.model.aclose()
    found: dict[str, list[Outcome]] = {name: [] for name in POLICIES}
    for body in bodies:
        told = body["cope"]
        found[told["policy"]].append((number(told["answer"]), told["stage"]))
    return found


# ---- what the file says ---------------------------------------------------------------------------------------------


def number(answer: object) -> float | None:
    """A recorded value; of floats 12 digits, as 109.00000000000001 is recorded as a right 109."""
    return None if answer is None else float(f"{float(str(answer).replace(',', '')):.12g}")


def majority(answers: Iterable[float | None]) -> tuple[float | None, int]:
    """The commonest answer and its votes; of equally common ones the first."""
    told = [answer for answer in answers if answer is not None]
    counts = Counter(told)
    return max(((answer, counts[answer]) for answer in told), key=lambda one: one[1], default=(None, 0))


def expected(row: dict[str, Any]) -> dict[str, Outcome]:
    """By policy, from one row of the file."""

    def told(model: str, style: str, decode: str) -> list[float | None]:
        samples = [s for s in row["samples"] if (s["model"], s["prompt_style"]) == (model, style)]
        chosen = [s for s in samples if s["decode"].startswith("greedy") == (decode == "greedy")]
        return [number(s["answer"]) for s in sorted(chosen, key=lambda s: s["k"])]

    first, second = told(SMALL, "pot1", "sample"), told(SMALL, "pot2", "sample")
    (escalated,) = told(LARGE, "pot1", "greedy")
    pooled, votes = majority(first[:4] + second[:4])
    one, other = majority(first[:4])[0], majority(second[:4])[0]
    return {
        "small-majority": (majority(first[:8])[0], 1),
        "cascade-vote": (pooled, 1) if votes >= 6 else (escalated, 3),
        "cascade-verify": (one, 1) if one is not None and one == other else (escalated, 3),
        "large": (told(LARGE, "cot1", "greedy")[0], 3),
    }


def right(found: list[Outcome], rows: list[dict[str, Any]]) -> int:
    return sum(answer == float(row["answer"]) for (answer, _), row in zip(found, rows, strict=True))


@pytest.mark.timeout(300)
async def test_the_policies_reproduce_what_200_recorded_problems_say_exactly():
    if not RECORDED.exists():
        pytest.skip("recorded_gsm8k_200.jsonl is not here")
    rows = [json.loads(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]
    counted = [expected(row) for row in rows]

    found = await outcomes([recording(row) for row in rows])

    for name in POLICIES:
        wanted = [one[name] for one in counted]
        differing = [(row["id"], a, b) for row, a, b in zip(rows, found[name], wanted, strict=True) if a != b]
        assert differing == [], name
    accuracies = {name: right(found[name], rows) for name in POLICIES}
    assert accuracies == {"small-majority": 64, "cascade-vote": 177, "cascade-verify": 163, "large": 193}
    assert sum(stage == 3 for _, stage in found["cascade-vote"]) == 162
    assert sum(stage == 3 for _, stage in found["cascade-verify"]) == 132


def program(value: str) -> str:
    return f"# worth {value}\nans = {value}"


def make_row(problem: str, pot1: list[str], pot2: list[str], large: str) -> dict[str, Any]:
    """`none` is a program that failed."""

    def said(model: str, style: str, decode: str, k: int, value: str) -> dict[str, Any]:
        text = f"So it is.\nans = {value}" if style == "cot1" else program(value)
        answer = None if value == "none" else float(value)
        return {"model": model, "prompt_style": style, "decode": decode, "k": k, "text": text, "answer": answer}

    samples = [said(SMALL, "pot1", "sample", k, value) for k, value in enumerate(pot1)]
    samples += [said(SMALL, "pot2", "sample", k, value) for k, value in enumerate(pot2)]
    samples += [said(LARGE, style, "greedy", 0, large) for style in ("cot1", "pot1")]
    return {"id": problem, "problem": problem, "answer": large, "samples": samples}


async def test_the_policies_reproduce_three_recorded_problems_that_need_no_file():
    rows = [
        make_row("Agreed?", ["7"] * 8, ["7", "7", "7", "8"], "7"),
        make_row(
            "Divided, though both majorities agree?",
            ["5", "5", "6", "9", "5", "6", "6", "6"],
            ["5", "5", "1", "2"],
            "4",
        ),
        make_row("Unreadable?", ["none"] * 8, ["3", "3", "3", "3"], "3"),
    ]

    found = await outcomes([recording(row) for row in rows])

    assert found == {
        "small-majority": [(7.0, 1), (6.0, 1), (None, 1)],
        "cascade-vote": [(7.0, 1), (4.0, 3), (3.0, 3)],
        "cascade-verify": [(7.0, 1), (5.0, 1), (3.0, 3)],
        "large": [(7.0, 3), (4.0, 3), (3.0, 3)],
    }
    assert [expected(row) for row in rows] == [{name: found[name][i] for name in POLICIES} for i in range(3)]
