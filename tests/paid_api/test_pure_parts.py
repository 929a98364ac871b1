"""Scripts, answers, bills and headers, without a process."""

from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cope.core.money import input_token_bound
from tests.paid_api.answers import Answers, Counting, Tariff, nano_per_million, read_request
from tests.paid_api.faults import HEADERS, KINDS, Script, retry_headers
from tests.paid_api.replies import duration, wait_headers

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
MIXED = {
    "seed": 7,
    "rules": [
        {"fault": "rate_limited", "probability": 0.1, "header": "any"},
        {"fault": "cut", "calls": [3, [10, 12]]},
        {"fault": "hang", "every": 50, "contains": "patience", "key": "sk-a"},
    ],
}


def test_the_same_seed_gives_the_same_faults_in_any_order_of_asking() -> None:
    first = {number: Script(MIXED).fault(number) for number in range(1, 500)}
    script = Script(MIXED)
    assert {number: script.fault(number) for number in reversed(range(1, 500))} == first
    other = Script({**MIXED, "seed": 8})
    assert {number: other.fault(number) for number in range(1, 500)} != first


def test_a_probability_is_kept_and_a_range_is_exact() -> None:
    script = Script(MIXED)
    names = [fault.name if (fault := script.fault(number)) else None for number in range(1, 10_001)]
    assert 900 <= names.count("rate_limited") <= 1100
    assert {index + 1 for index, name in enumerate(names) if name == "cut"} <= {3, 10, 11, 12}
    assert names.count("hang") == 0, "the prompt lacks its word"
    asked = Script({"rules": [MIXED["rules"][2]]})  # type: ignore[index]
    assert asked.fault(50, prompt="patience!", key="sk-a") is not None
    assert asked.fault(50, prompt="patience!", key="sk-b") is None
    assert asked.fault(51, prompt="patience!", key="sk-a") is None


def test_any_header_goes_through_all_of_them() -> None:
    script = Script({"rules": [{"fault": "rate_limited", "header": "any"}]})
    faults = [script.fault(number) for number in range(1, 1000)]
    seen = [retry_headers(fault, NOW) for fault in faults if fault is not None]
    assert all(any(headers == make(1.0, NOW) for headers in seen) for make in HEADERS.values())


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ({"rules": [{"fault": "flood"}]}, "rules[0].fault"),
        ({"rules": [{"fault": "cut", "secnods": 1}]}, "secnods"),
        ({"rules": [{"fault": "cut", "how": "gently"}]}, "gently"),
        ({"rules": [{"fault": "server_error", "status": 404}]}, "404"),
        ({"rule": []}, "rule"),
    ],
)
def test_a_script_with_a_slip_is_refused_by_its_place(script: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError) as refused:
        Script(script)
    assert said in str(refused.value)


def test_every_fault_can_be_written_with_its_name_alone() -> None:
    for name in KINDS:
        fault = Script({"rules": [{"fault": name}]}).fault(1)
        assert fault is not None
        assert fault.billed is KINDS[name].billed


@given(st.lists(st.text(max_size=80), min_size=1, max_size=6), st.integers(1, 8), st.integers(0, 1000))
def test_a_counted_prompt_never_exceeds_the_products_bound(texts: list[str], size: int, permille: int) -> None:
    counting = Counting(size, permille)
    prompt = counting.prompt(texts)
    assert prompt <= input_token_bound(tuple(texts))
    assert 0 <= counting.cached(prompt) <= prompt


@given(*(st.integers(0, 10**6) for _ in range(5)))
def test_a_bill_is_the_exact_price_rounded_up(fresh: int, cached: int, output: int, dear: int, cheap: int) -> None:
    bill = Tariff(dear, cheap, 3 * dear).bill(prompt=fresh + cached, cached=cached, completion=output)
    exact = Fraction(fresh * dear + cached * cheap + output * 3 * dear, 10**6)
    assert exact <= bill < exact + 1


def test_prices_are_read_in_dollars_a_million() -> None:
    assert nano_per_million("2.50") == 2_500_000_000
    assert nano_per_million("0.000000075") == 75
    with pytest.raises(ValueError):
        nano_per_million("0.0000000001")


def test_answers_follow_the_marker_and_the_limit() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "solve #17 please"}], "max_tokens": 5}
    asked = read_request(body, default_max_tokens=9)
    rules = [{"contains": "plan", "text": "Do \\this."}, {"regex": "#(\\d+)", "text": "It is \\\\boxed{\\1}."}]
    answers = Answers({"rules": rules, "completion_tokens": [4, 900]})
    assert answers.text("solve #17 please") == "It is \\boxed{17}."
    assert answers.text("a plan") == "Do \\this."
    assert answers.text("else") == "The answer is \\boxed{42}."
    assert 4 <= answers.billed_tokens(asked, 2) <= 5
    assert answers.billed_tokens(asked, 2) == answers.billed_tokens(asked, 2)
    assert Counting(4).clip("ünïcode is cut", 2) == ("ünïcod", True)


def test_durations_and_waits_are_written_as_openai_does() -> None:
    assert [duration(s) for s in (0, 0.02, 1, 8.64, 60, 361.5)] == ["0s", "20ms", "1s", "8.64s", "1m0s", "6m1.5s"]
    assert wait_headers(0.2501) == {"retry-after": "1", "retry-after-ms": "251"}
    assert wait_headers(2.0) == {"retry-after": "2", "retry-after-ms": "2001"}
