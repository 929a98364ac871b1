"""The adapter against a provider over HTTP: what is sent, what is read, and what an error means for the money."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cope.adapters.openai_batches import OpenAIBatches
from cope.core.errors import ModelError, ModelMalformed, ModelRateLimited, ModelRejected, ModelUnreachable
from cope.core.models import BatchTier, ModelEntry
from cope.core.problem import Message
from cope.core.stages import Tier
from cope.ports.model import ChatRequest
from cope.ports.provider_batches import RemoteLine
from tests.provider.scene import nine
from tests.provider.stand_in import BatchStandIn


@pytest.fixture
def provider() -> Iterator[BatchStandIn]:
    stand_in = BatchStandIn(done_after_s=None, page=2)
    yield stand_in
    stand_in.close()


@pytest.fixture
async def batches() -> AsyncIterator[OpenAIBatches]:
    adapter = OpenAIBatches()
    yield adapter
    await adapter.aclose()


def entry(provider: BatchStandIn) -> ModelEntry:
    return ModelEntry(
        "large", "gpt-large", provider.base_url, Tier.LARGE, "instruct", 8192, price_id="p", batch=BatchTier()
    )


def body(batches: OpenAIBatches, model: ModelEntry) -> str:
    request = ChatRequest(model, (Message("user", "2 + 3?"),), temperature=0, max_tokens=64, request_id="task_1-000x")
    return batches.body(request)


async def sent(batches: OpenAIBatches, model: ModelEntry, count: int = 3) -> str:
    lines = [(f"att_{number}", body(batches, model)) for number in range(count)]
    file_id = await batches.upload(model, name="pbat_1.jsonl", lines=lines)
    return (await batches.create(model, file_id=file_id, marker="pbat_1")).id


async def test_lines_marker_and_window_reach_the_provider_as_openai_wants_them(
    provider: BatchStandIn, batches: OpenAIBatches
) -> None:
    model = entry(provider)
    batch_id = await sent(batches, model)

    batch = provider.batches[batch_id]
    assert (batch["metadata"], batch["completion_window"]) == ({"cope_batch": "pbat_1"}, "24h")
    first = provider.files[batch["input_file_id"]].splitlines()[0]
    assert first == (
        b'{"custom_id":"att_0","method":"POST","url":"/v1/chat/completions","body":{"model":"gpt-large","messages":'
        b'[{"role":"user","content":"2 + 3?"}],"temperature":0,"max_tokens":64}}'
    )


async def test_output_and_error_lines_are_read_with_separators_of_unicode_inside(
    provider: BatchStandIn, batches: OpenAIBatches
) -> None:
    model = entry(provider)
    batch_id = await sent(batches, model)
    provider.finish(batch_id, status="expired", done=2)
    remote = await batches.retrieve(model, batch_id)

    assert (remote.status, remote.ended, remote.completed) == ("expired", True, 2)
    assert remote.output_file_id is not None
    assert remote.error_file_id is not None
    output = [line async for line in batches.results(model, remote.output_file_id)]
    errors = [line async for line in batches.results(model, remote.error_file_id)]
    answer = replace(nine(), text="First\u2028line. It is \\boxed{9}.")
    assert output == [RemoteLine("att_0", answer), RemoteLine("att_1", answer)]
    assert errors == [RemoteLine("att_2", None, "batch_expired: not carried out")]


async def test_lines_that_can_not_be_read_are_paid_for_failed_or_passed_over(
    provider: BatchStandIn, batches: OpenAIBatches
) -> None:
    provider.files["file-odd"] = b"\n".join(
        [
            b"",
            b"not json",
            b"[]",
            b'{"custom_id": 5}',
            b'{"custom_id": "a", "response": {"status_code": 200, "body": {"choices": []}}}',
            b'{"custom_id": "b", "response": {"status_code": 400, "body": {"error": {"code": "long"}}}}',
            b'{"custom_id": "c", "response": null, "error": null}',
            (
                b'{"custom_id": "d", "response": {"status_code": 200,'
                b' "body": {"choices": [{"message": {"content": "5"}}]}}}'
            ),
        ]
    )
    read = [line async for line in batches.results(entry(provider), "file-odd")]

    assert [(line.custom_id, line.answer is not None, line.malformed) for line in read] == [
        ("a", False, True),
        ("b", False, False),
        ("c", False, False),
        ("d", True, False),
    ]
    assert (read[1].error, read[2].error) == ("long: ", "failed")
    assert read[3].answer is not None
    assert read[3].answer.usage is None


async def test_a_batch_is_found_by_its_marker_over_several_pages_and_not_beyond_its_date(
    provider: BatchStandIn, batches: OpenAIBatches
) -> None:
    model = entry(provider)
    first = await sent(batches, model)
    for number in range(5):
        file_id = provider.batches[first]["input_file_id"]
        await batches.create(model, file_id=file_id, marker=f"pbat_other_{number}")
    now = datetime.now(UTC)

    (found,) = await batches.find(model, marker="pbat_1", since=now - timedelta(hours=1))
    assert found.id == first
    assert await batches.find(model, marker="pbat_1", since=now + timedelta(hours=1)) == ()


async def test_cancelling_asks_the_provider(provider: BatchStandIn, batches: OpenAIBatches) -> None:
    model = entry(provider)
    assert (await batches.cancel(model, await sent(batches, model))).status == "cancelling"


async def test_errors_say_whether_a_creation_may_have_been_made(provider: BatchStandIn, batches: OpenAIBatches) -> None:
    async def error_of(model: ModelEntry) -> ModelError:
        with pytest.raises(ModelError) as caught:
            await batches.create(model, file_id="file-1", marker="m")
        return caught.value

    refusal = b'{"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}}'
    provider.refuse["create"] = (429, {"retry-after": "17"}, refusal)
    error = await error_of(entry(provider))
    assert (type(error), error.answered, error.retry_after_s) == (ModelRateLimited, True, 17.0)

    provider.refuse["create"] = (500, {}, b"<html>")
    error = await error_of(entry(provider))
    assert (error.sent, error.answered, error.retryable) == (True, False, True)

    provider.refuse["create"] = (404, {}, b'{"error": {"message": "no such thing"}}')
    error = await error_of(entry(provider))
    assert (type(error), error.answered) == (ModelRejected, True)

    provider.refuse["create"] = (200, {}, b'{"hello": 1}')
    error = await error_of(entry(provider))
    assert (type(error), error.sent, error.answered) == (ModelMalformed, True, False)

    error = await error_of(replace(entry(provider), base_url="http://127.0.0.1:9/v1"))
    assert (type(error), error.sent) == (ModelUnreachable, False)
