"""The process: limits and headers over HTTP, books that outlive a kill -9, orders, streams, a model behind it."""

import asyncio
import csv
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from openai import OpenAI

from cope_local.children import free_port
from tests.faults.stand_in import StandIn
from tests.paid_api.process import PaidApi

Start = Callable[..., PaidApi]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start simulators that end with the test."""
    running: list[PaidApi] = []

    def started(**options: Any) -> PaidApi:
        running.append(PaidApi(tmp_path / str(len(running)), **options))
        running[-1].start()
        return running[-1]

    yield started
    for one in running:
        one.stop()


def ask(provider: PaidApi, *, key: str = "sk-a", request_id: str | None = None, **body: Any) -> Any:
    """One call by the stock client; what came back, or the error."""
    headers = {} if request_id is None else {"X-Client-Request-Id": request_id}
    messages: Any = [{"role": "user", "content": body.pop("prompt", "What is 2 + 3?")}]
    with OpenAI(base_url=provider.base_url, api_key=key, max_retries=0, timeout=10) as client:
        try:
            return client.chat.completions.create(
                model="paid", messages=messages, extra_headers=headers, **{"max_tokens": 20, **body}
            )
        except openai.OpenAIError as error:
            return error


def test_a_call_is_answered_billed_and_written_down(start: Start) -> None:
    provider = start(input_usd="1", cached_usd="0.5", output_usd="4", cached_permille=500)
    answer = ask(provider, request_id="task-1")
    (row,) = provider.books.rows()
    assert answer.choices[0].message.content == "The answer is \\boxed{42}."
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 7)
    assert (row.prompt_tokens, row.cached_tokens, row.completion_tokens) == (11, 5, 7)
    assert row.billed_nano == 6 * 1000 + 5 * 500 + 7 * 4000
    assert (row.client_request_id, row.api_key, row.provider_id, row.status) == ("task-1", "sk-a", answer.id, 200)
    assert provider.books.total_nano(client_request_id="task-1") == row.billed_nano
    (record,) = csv.DictReader(provider.books.csv().splitlines())
    assert (record["request_id"], record["cost_usd"]) == ("task-1", "0.000036500")


def test_requests_over_the_limit_are_refused_with_a_wait_that_helps(start: Start) -> None:
    provider = start(rpm=3, tpm=10_000, window_s=1.0)
    with OpenAI(base_url=provider.base_url, api_key="sk-a", max_retries=0) as client:
        call = client.chat.completions.with_raw_response
        message = [{"role": "user", "content": "hello"}]
        for left in ("2", "1", "0"):
            answer = call.create(model="paid", messages=message, max_tokens=10)  # type: ignore[arg-type]
            assert answer.headers["x-ratelimit-remaining-requests"] == left
            assert answer.headers["x-ratelimit-limit-tokens"] == "10000"
            assert "x-ratelimit-reset-tokens" in answer.headers
        with pytest.raises(openai.RateLimitError) as refused:
            call.create(model="paid", messages=message, max_tokens=10)  # type: ignore[arg-type]
        assert refused.value.code == "rate_limit_exceeded"
        assert refused.value.response.headers["retry-after"] == "1"
        time.sleep(int(refused.value.response.headers["retry-after-ms"]) / 1000)
        assert call.create(model="paid", messages=message, max_tokens=10).status_code == 200  # type: ignore[arg-type]
    assert ask(provider, key="sk-b").id, "another key has a window of its own"
    assert (provider.books.refused_by_limits(), provider.books.count_status(429)) == (1, 1)


def test_the_token_rule_decides_what_a_call_takes(start: Start) -> None:
    reserve, correct = start(tpm=1000), start(tpm=1000, tpm_rule="correct")
    for provider in (reserve, correct):
        assert ask(provider, max_tokens=900).id
    assert isinstance(ask(reserve, max_tokens=900), openai.RateLimitError)
    assert ask(correct, max_tokens=900).id
    assert [row.reserved_tokens for row in correct.books.rows()] == [911, 911]
    assert [row.charged_tokens for row in correct.books.rows()] == [18, 18]
    never = ask(reserve, max_tokens=2000)
    assert isinstance(never, openai.RateLimitError)
    assert "retry-after" not in never.response.headers


def test_concurrent_callers_get_exactly_the_limit(start: Start) -> None:
    provider = start(rpm=40, concurrency=25, latency_s="0.3")

    async def flood() -> list[int]:
        body = {"model": "paid", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}

        async def one(session: aiohttp.ClientSession) -> int:
            async with session.post(f"{provider.base_url}/chat/completions", json=body) as answer:
                return answer.status

        async with aiohttp.ClientSession() as session:
            first = await asyncio.gather(*(one(session) for _ in range(60)))
            second = await asyncio.gather(*(one(session) for _ in range(60)))
        return [first.count(200), second.count(200)]

    assert asyncio.run(flood()) == [25, 15]
    assert max(moment.requests for moment in provider.books.window_usage()) == 40
    assert provider.control()["refused_requests"] + provider.control()["refused_concurrency"] == 80


def test_books_and_windows_outlive_a_kill(start: Start) -> None:
    provider = start(rpm=50)
    told: list[str] = []

    async def call_until_it_dies() -> None:
        body = {"model": "paid", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}

        async def caller(session: aiohttp.ClientSession) -> None:
            while True:
                async with session.post(f"{provider.base_url}/chat/completions", json=body) as answer:
                    if answer.status == 200:
                        told.append((await answer.json())["id"])
                    if len(told) == 30:
                        provider.kill9()

        async with aiohttp.ClientSession(headers={"authorization": "Bearer sk-a"}) as session:
            await asyncio.gather(*(caller(session) for _ in range(8)), return_exceptions=True)

    asyncio.run(call_until_it_dies())
    kept = {row.provider_id for row in provider.books.rows() if row.billed}
    assert set(told) <= kept, "whoever got an answer is in the books"

    provider.start()
    answers = [ask(provider) for _ in range(60)]
    served = [answer for answer in answers if not isinstance(answer, openai.OpenAIError)]
    assert len(served) == 50 - len(kept), "the restarted provider remembers what it had let in"
    numbers = [row.number for row in provider.books.rows()]
    assert len(numbers) == len(set(numbers))


def test_orders_change_it_while_it_runs(start: Start) -> None:
    provider = start()
    provider.control(quota_exhausted=["sk-a"])
    assert ask(provider).code == "insufficient_quota"
    assert ask(provider, key="sk-b").id
    provider.control(quota_exhausted=False, outage="503")
    assert isinstance(ask(provider), openai.InternalServerError)
    provider.control(outage="reset")
    assert isinstance(ask(provider), openai.APIConnectionError)
    provider.control(outage="off", limits={"rpm": 2})
    assert ask(provider).id
    assert ask(provider).id
    assert isinstance(ask(provider), openai.RateLimitError)
    provider.control(limits={"rpm": None}, script={"rules": [{"fault": "unauthorized", "calls": [2]}]})
    assert ask(provider).id
    assert isinstance(ask(provider), openai.AuthenticationError), "call numbers count from the script's start"
    snapshot = provider.control()
    assert (snapshot["calls"], snapshot["in_flight"]) == (9, 0)
    assert snapshot["billed_nano"] == provider.books.total_nano() > 0


def test_a_stream_carries_the_same_text_and_usage(start: Start) -> None:
    provider = start()
    with OpenAI(base_url=provider.base_url, api_key="sk-a", max_retries=0) as client:
        chunks = list(
            client.chat.completions.create(
                model="paid",
                messages=[{"role": "user", "content": "What is 2 + 3?"}],
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        assert [model.id for model in client.models.list()] == ["paid-large"]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "The answer is \\boxed{42}."
    assert chunks[-1].usage is not None
    (row,) = provider.books.rows()
    assert (chunks[-1].usage.completion_tokens, row.completion_tokens, row.stream) == (7, 7, True)


def test_a_model_behind_it_answers_and_is_billed_by_its_own_usage(start: Start) -> None:
    stand_in = StandIn()
    try:
        provider = start(upstream=stand_in.base_url, output_usd="10", input_usd="2.50")
        assert ask(provider).choices[0].message.content == "It is \\boxed{5}."
    finally:
        stand_in.close()
    (row,) = provider.books.rows()
    assert (row.prompt_tokens, row.completion_tokens, row.billed_nano) == (20, 10, 150_000)
    alone = start(upstream=f"http://127.0.0.1:{free_port()}/v1")
    assert ask(alone).status_code == 502
    assert alone.books.total_nano() == 0


def test_utilisation_is_the_share_of_what_the_window_allows(start: Start) -> None:
    provider = start(rpm=60, tpm=6000)
    since = time.monotonic()
    for _ in range(6):
        ask(provider, max_tokens=89)
    used = provider.books.used(since, since + 60)
    assert (used.requests, used.tokens, used.binding) == (0.1, 0.1, 0.1)


def test_a_slip_in_the_options_ends_the_start_with_its_reason(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"rules\[0\].fault"),
        PaidApi(tmp_path, script={"rules": [{"fault": "flood"}]}),
    ):
        pass
