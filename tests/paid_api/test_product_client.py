"""Every fault once through the product's own client: which error it becomes, and whether the money is told truly.

The rule under test: whatever the provider billed is never reported as not sent or as refused.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from cope.adapters.openai_model import OpenAIModel
from cope.core import errors
from cope.core.models import ModelEntry
from cope.core.money import TokenUsage
from cope.core.problem import Message
from cope.core.stages import Tier
from cope.ports.model import ChatAnswer, ChatRequest
from tests.paid_api.faults import HEADERS, KINDS
from tests.paid_api.process import PaidApi

TRUE_USAGE = TokenUsage(9, 0, 7, 0, 1)


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PaidApi]:
    with PaidApi(tmp_path_factory.mktemp("paid")) as running:
        yield running


def call(provider: PaidApi, fault: dict[str, Any], request_id: str) -> ChatAnswer | errors.ModelError:
    """One paid call that meets that fault."""
    provider.control(script={"seed": 1, "rules": [fault]})
    entry = ModelEntry(
        "large", "paid", provider.base_url, Tier.LARGE, "instruct", 4096, price_id="p", api_key="sk-a", timeout_s=1.5
    )

    async def ask() -> ChatAnswer | errors.ModelError:
        model = OpenAIModel()
        try:
            return await model.chat(ChatRequest(entry, (Message("user", "3 + 4?"),), 0.5, 64, request_id))
        except errors.ModelError as failed:
            return failed
        finally:
            await model.aclose()

    return asyncio.run(ask())


REFUSED, UNKNOWN = True, False  # `answered`: certainly not billed, or maybe billed
FAILING: list[tuple[dict[str, Any], type[errors.ModelError], bool]] = [
    ({"fault": "quota"}, errors.ModelQuotaExhausted, REFUSED),
    ({"fault": "unauthorized"}, errors.ModelKeyRefused, REFUSED),
    ({"fault": "forbidden"}, errors.ModelKeyRefused, REFUSED),
    ({"fault": "not_found"}, errors.ModelRejected, REFUSED),
    ({"fault": "context_length"}, errors.ContextTooLong, REFUSED),
    ({"fault": "server_error", "status": 409}, errors.ModelOverloaded, REFUSED),
    ({"fault": "server_error", "status": 503}, errors.ModelOverloaded, REFUSED),
    ({"fault": "server_error", "status": 529}, errors.ModelOverloaded, REFUSED),
    ({"fault": "server_error", "status": 408, "billed": True}, errors.ModelOverloaded, UNKNOWN),
    ({"fault": "server_error", "status": 500, "billed": True}, errors.ModelOverloaded, UNKNOWN),
    ({"fault": "server_error", "status": 502, "billed": True, "body": "html"}, errors.ModelOverloaded, UNKNOWN),
    ({"fault": "server_error", "status": 503, "billed": True, "body": "html"}, errors.ModelOverloaded, UNKNOWN),
    ({"fault": "server_error", "status": 503, "billed": True, "body": "empty"}, errors.ModelOverloaded, UNKNOWN),
    ({"fault": "server_error", "status": 504, "billed": True}, errors.ModelOverloaded, UNKNOWN),
    ({"fault": "hang"}, errors.ModelOverloaded, UNKNOWN),
    ({"fault": "hang", "billed": True}, errors.ModelOverloaded, UNKNOWN),
    ({"fault": "slow", "seconds": 3}, errors.ModelOverloaded, UNKNOWN),
    ({"fault": "drip", "delay_s": 0.1}, errors.ModelOverloaded, UNKNOWN),
    ({"fault": "cut", "how": "close", "after": 0}, errors.ModelUnreachable, UNKNOWN),
    ({"fault": "cut", "how": "close"}, errors.ModelUnreachable, UNKNOWN),
    ({"fault": "cut", "how": "reset", "after": 0}, errors.ModelUnreachable, UNKNOWN),
    ({"fault": "cut", "how": "reset"}, errors.ModelUnreachable, UNKNOWN),
    ({"fault": "broken_json"}, errors.ModelMalformed, UNKNOWN),
    ({"fault": "empty_choices"}, errors.ModelMalformed, UNKNOWN),
]
ANSWERED: list[tuple[dict[str, Any], TokenUsage | None]] = [
    ({"fault": "duplicate"}, TRUE_USAGE),
    ({"fault": "missing_usage"}, None),
    ({"fault": "overbilling", "factor": 3}, TokenUsage(9, 0, 192, 0, 1)),
    ({"fault": "drip", "delay_s": 0.0}, TRUE_USAGE),
    ({"fault": "slow", "seconds": 0.1}, TRUE_USAGE),
    *(({"fault": "strange_usage", "usage": usage}, None) for usage in
      ("negative", "null", "text", "float", "bool", "huge", "list")),
    # Readable but for the share of the cache, which then counts as none: the dearest reading.
    *(({"fault": "strange_usage", "usage": usage}, TRUE_USAGE) for usage in ("cached_over_prompt", "details_text")),
]  # fmt: skip


def named(case: Any) -> str | None:
    return "-".join(map(str, case.values())) if isinstance(case, dict) else None


@pytest.mark.parametrize(("fault", "kind", "answered"), FAILING, ids=named)
def test_a_failing_call_becomes_its_error_and_is_never_called_unbilled_when_it_was_billed(
    provider: PaidApi, fault: dict[str, Any], kind: type[errors.ModelError], answered: bool
) -> None:
    request_id = f"failing-{named(fault)}"
    failed = call(provider, fault, request_id)

    assert type(failed) is kind
    assert isinstance(failed, errors.ModelError)
    assert (failed.sent, failed.answered) == (True, answered)
    rows = [row for row in provider.books.rows() if row.client_request_id == request_id]
    if fault["fault"] != "slow":  # its row comes when the answer would have
        (row,) = rows
        assert not (row.billed and answered)


@pytest.mark.parametrize("header", HEADERS)
def test_a_rate_limit_with_any_header_is_a_rate_limit(provider: PaidApi, header: str) -> None:
    failed = call(provider, {"fault": "rate_limited", "header": header, "seconds": 2.0}, f"limited-{header}")

    assert type(failed) is errors.ModelRateLimited
    assert failed.answered
    readable = {"seconds", "fraction", "ms", "both", "date", "date_without_zone", "ms_text"}
    if header in readable:
        assert failed.retry_after_s is not None
        assert 0 < failed.retry_after_s <= 2.0
    elif header in {"zero", "past_date"}:
        assert failed.retry_after_s == 0
    elif header in {"absurd", "absurd_exponent", "ms_absurd"}:
        assert (failed.retry_after_s or 0) >= 1e9, "told as it is; the retry table does not believe it"
    else:
        assert failed.retry_after_s is None


@pytest.mark.parametrize(("fault", "usage"), ANSWERED, ids=named)
def test_an_answered_call_gives_its_text_and_a_usage_that_is_true_or_unknown(
    provider: PaidApi, fault: dict[str, Any], usage: TokenUsage | None
) -> None:
    request_id = f"answered-{named(fault)}"
    answer = call(provider, fault, request_id)

    assert isinstance(answer, ChatAnswer)
    assert (answer.text, answer.usage) == ("The answer is \\boxed{42}.", usage)
    rows = [row for row in provider.books.rows() if row.client_request_id == request_id]
    assert len(rows) == (2 if fault["fault"] == "duplicate" else 1)
    assert answer.provider_id == rows[0].provider_id
    assert all(row.billed for row in rows)


def test_every_fault_is_tried_here() -> None:
    failing, answered = {case[0]["fault"] for case in FAILING}, {case[0]["fault"] for case in ANSWERED}
    assert failing | answered | {"rate_limited"} == set(KINDS)
