"""The small in-memory adapters: time, chance, wake-ups, limits, models and webhooks that a test holds in its hand."""

import asyncio
import copy
from datetime import UTC, datetime, timedelta

import pytest

from cope.adapters.memory import (
    FixedClock,
    MemoryLimiter,
    MemoryWakeUp,
    RecordingWebhookSender,
    ScriptedModel,
    SequentialIds,
)
from cope.adapters.system import SystemClock, SystemIds
from cope.core import ids
from cope.core.errors import ModelOverloaded
from cope.core.ids import TaskId
from cope.core.limits.types import Ask, Grant, Limits, Report, Verdict, Wait
from cope.core.models import ModelEntry
from cope.core.problem import Message
from cope.core.stages import Tier
from cope.ports.model import ChatRequest
from cope.ports.support import WebhookReply, WebhookRequest

NOON = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
HOOK = WebhookRequest("https://hooks.example.com", b"{}", (("webhook-id", "evt_1"),))


def request(text: str = "What is 2 + 3?") -> ChatRequest:
    model = ModelEntry("small", "small", "http://127.0.0.1:1/v1", Tier.SMALL, "reference", 1024)
    return ChatRequest(model, (Message("user", text),), temperature=0.0, max_tokens=16, request_id="r1")


def test_a_fixed_clock_moves_only_when_told_and_never_back() -> None:
    clock = FixedClock(NOON)
    clock.advance(90)
    assert clock.now() == NOON + timedelta(seconds=90)

    clock.set(NOON + timedelta(days=1))
    assert clock.now() == NOON + timedelta(days=1)
    with pytest.raises(ValueError, match="backwards"):
        clock.set(NOON)


def test_sequential_ids_sort_in_the_order_they_were_made_and_secrets_differ() -> None:
    maker = SequentialIds()
    made = [maker.new(ids.TASK) for _ in range(200)]

    assert made == sorted(made)
    assert len(set(made)) == 200
    assert maker.secret(24) != maker.secret(24)
    assert len(maker.secret(64)) == 64
    assert maker.jitter() == 0.5


def test_the_systems_ids_are_distinct_its_jitter_is_below_one_and_its_clock_aware() -> None:
    maker = SystemIds()

    assert len({maker.new(ids.BATCH) for _ in range(1_000)}) == 1_000
    assert maker.new(ids.BATCH).startswith("batch_")
    assert all(0 <= maker.jitter() < 1 for _ in range(100))
    assert len(maker.secret(32)) == 32
    assert SystemClock().now().utcoffset() == timedelta(0)


async def test_a_wake_up_is_kept_or_lost_when_the_broker_is_away() -> None:
    wake, away = MemoryWakeUp(), MemoryWakeUp(broken=True)
    for hints in (wake, away):
        await hints.poke("small")
        await hints.announce([TaskId("task_1")])

    assert (wake.poked, wake.announced) == (["small"], ["task_1"])
    assert (away.poked, away.announced) == ([], [])


async def test_a_scripted_model_answers_from_its_function_and_keeps_the_requests() -> None:
    model = ScriptedModel(lambda asked: f"you said: {asked.messages[0].content}")

    answer = await model.chat(request("two words"))

    assert answer.text == "you said: two words"
    assert answer.usage is not None
    assert (answer.usage.prompt, answer.usage.completion, answer.usage.calls) == (2, 4, 1)
    assert model.requests == [request("two words")]


async def test_a_scripted_model_raises_what_its_function_raises() -> None:
    def fail(_: ChatRequest) -> str:
        raise ModelOverloaded("503")

    model = ScriptedModel(fail)

    with pytest.raises(ModelOverloaded):
        await model.chat(request())
    assert model.in_flight == 0


async def test_a_scripted_model_counts_calls_in_flight_and_sees_aborted_ones() -> None:
    go = asyncio.Event()

    async def wait(_: ChatRequest) -> str:
        await go.wait()
        return "done"

    model = ScriptedModel(wait)
    calls = [asyncio.create_task(model.chat(request(str(n)))) for n in range(3)]
    while model.in_flight < 3:
        await asyncio.sleep(0)
    calls[0].cancel()
    go.set()
    await asyncio.gather(*calls, return_exceptions=True)

    assert (model.most_in_flight, model.in_flight) == (3, 0)
    assert model.aborted == [request("0")]


async def test_a_recording_sender_keeps_what_it_sent_and_answers_as_told() -> None:
    gone = RecordingWebhookSender(lambda _: WebhookReply(410, None, "gone", None), refused={"https://x": "private"})

    assert (await gone.send(HOOK)).status == 410
    assert gone.sent == [HOOK]
    assert (await RecordingWebhookSender().send(HOOK)).status == 200
    assert gone.refuse_reason("https://x") == "private"
    assert gone.refuse_reason("ftp://x") is not None
    assert gone.refuse_reason("https://y") is None


async def test_a_limiter_without_limits_lets_everything_go() -> None:
    limiter = MemoryLimiter(FixedClock())

    answers = [await limiter.acquire("small", Ask(10**6)) for _ in range(100)]

    assert all(isinstance(answer, Grant) and answer.wait_s == 0 for answer in answers)


async def test_the_memory_limiter_goes_by_the_clock_that_the_test_holds() -> None:
    clock = FixedClock()
    limiter = MemoryLimiter(clock, {"large": Limits(rpm=2)})
    first = await limiter.acquire("large", Ask(1))
    assert isinstance(first, Grant)
    assert isinstance(await limiter.acquire("large", Ask(1)), Wait)
    await limiter.give_back(first, Report(Verdict.FINE, tokens=1))
    clock.advance(31)

    assert isinstance(await limiter.acquire("large", Ask(1)), Grant)
    assert [one.used_calls for one in await limiter.headroom()] == [1.0]


def test_a_forked_process_never_gives_out_its_parents_ids(monkeypatch: pytest.MonkeyPatch):
    parent = SystemIds()
    parent.new("task_")
    child = copy.copy(parent)
    monkeypatch.setattr("os.getpid", lambda: 1)
    theirs = child.new("task_")
    monkeypatch.undo()

    assert parent.new("task_")[-16:] != theirs[-16:]
