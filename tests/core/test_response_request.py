"""Numbers that a caller writes, read exactly or refused quickly; and that both presentations are one task."""

import pytest

from cope.core.codec import blank_payload, decode_task, encode_payload, encode_policy
from cope.core.confidence import parse_threshold
from cope.core.ids import TaskId, made_at_s, make_id
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.money import parse_usd
from cope.core.problem import Kind
from cope.core.prompts import BUILT_IN
from cope.core.request import RequestDefaults, RequestParser
from cope.core.responses.form import ResponseForm
from cope.core.responses.request import parse_response
from cope.core.stages import Tier
from cope.core.task import StoreLevel

CATALOG = ModelCatalog(
    {
        "small": ModelEntry("small", "small", "http://localhost/v1", Tier.SMALL, "instruct", 4096),
        "large": ModelEntry("large", "large", "http://localhost/v1", Tier.LARGE, "instruct", 4096, price_id="p"),
    },
    "small",
    "large",
    BUILT_IN,
)


def parser() -> RequestParser:
    return RequestParser(RequestDefaults(Kind.MATH), CATALOG)


def test_a_response_and_a_chat_completion_of_one_question_are_one_task() -> None:
    cope = {"n": 4, "tau1": "3/4"}
    chat = parser().parse(
        {
            "model": "cope",
            "messages": [{"role": "developer", "content": "Brief."}, {"role": "user", "content": "2 + 3?"}],
            "max_tokens": 50,
            "temperature": 0.5,
            "cope": cope,
        }
    )
    response = parse_response(
        parser(),
        {
            "model": "cope",
            "input": "2 + 3?",
            "instructions": "Brief.",
            "max_output_tokens": 50,
            "temperature": 0.5,
            "cope": cope,
        },
    )

    assert response.form == ResponseForm(instructions=True)
    assert response._replace(form=None) == chat


def test_the_form_is_kept_with_the_task_and_the_callers_own_keys_can_not_pass_for_ours() -> None:
    body = {"model": "cope", "input": "x", "metadata": {"bg": "true", "st": "full"}, "background": True, "user": "u"}
    request = parse_response(parser(), body)
    payload = encode_payload(
        request.problem, request.options, requested_model="cope", store=StoreLevel.ANSWERS, form=request.form
    )
    task = decode_task(
        TaskId("task_1"), payload=payload, policy=encode_policy(request.policy), seed=1, on_budget="hold"
    )

    assert task.form == request.form
    assert '"st":"full"' not in payload
    erased = decode_task(
        TaskId("task_1"), payload=blank_payload(payload), policy=encode_policy(request.policy), seed=1, on_budget="hold"
    )
    assert erased.form == ResponseForm(background=True, erased=True)
    assert [message.content for message in erased.problem.conversation] == [""]


def test_an_answer_that_is_not_to_be_stored_keeps_no_samples_unless_that_is_said() -> None:
    body = {"model": "cope", "input": "x", "store": False}

    assert parse_response(parser(), body).store is StoreLevel.NONE
    assert parse_response(parser(), {**body, "cope": {"store": "full"}}).store is StoreLevel.FULL


def test_an_id_tells_the_second_it_was_made() -> None:
    assert made_at_s(make_id("task_", now_ms=1_795_597_772_987, random_part="0" * 16)) == 1_795_597_772


@pytest.mark.parametrize("text", ["1e999999999", "1E-99999999", "1e+100", "0.5e1000"])
def test_a_number_that_would_be_worked_out_for_minutes_is_refused_at_once(text: str) -> None:
    with pytest.raises(ValueError, match="number between 0 and 1"):
        parse_threshold(text)


@pytest.mark.parametrize("text", ["1e999999", "1e-999999", "0.00000000001", "1." + "0" * 70 + "1", "-1", "nan", "x"])
def test_an_amount_that_is_no_whole_number_of_nano_dollars_is_refused_and_never_rounded(text: str) -> None:
    with pytest.raises(ValueError, match="amount of dollars"):
        parse_usd(text)
