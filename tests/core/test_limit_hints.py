"""Headers about limits: what they mean, and that garbage means nothing."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cope.core.errors import (
    ContextTooLong,
    ModelError,
    ModelKeyRefused,
    ModelMalformed,
    ModelOverloaded,
    ModelQuotaExhausted,
    ModelRateLimited,
    ModelRejected,
    ModelUnreachable,
)
from cope.core.limits import reports
from cope.core.limits.hints import NO_HINTS, RateHints, exhausted_s, read_hints, retry_after_s
from cope.core.limits.types import UNUSED, Report, Verdict
from cope.core.money import TokenUsage

NOON = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("0", 0.0),
        ("Mon, 02 Nov 2026 12:00:30 GMT", 30.0),
        ("Mon, 02 Nov 2026 11:00:00 GMT", 0.0),
        ("999999999", 999_999_999.0),
        ("-3", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("Mon, 99 Nov 2026 12:00:30 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_nonsense_is_nothing(value: str, seconds: float | None):
    assert retry_after_s({"retry-after": value}, now=NOON) == seconds


def test_milliseconds_go_first_unless_they_are_nonsense():
    assert retry_after_s({"retry-after-ms": "1500", "retry-after": "9"}, now=NOON) == 1.5
    assert retry_after_s({"retry-after-ms": "x", "retry-after": "9"}, now=NOON) == 9
    assert retry_after_s({"retry-after-ms": "-1", "retry-after": "9"}, now=NOON) == 9
    assert retry_after_s({}, now=NOON) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("1m", 60.0),
        ("2d", 172_800.0),
        ("1s20ms", 1.02),
        ("12.5", 12.5),
        ("1793620830", 30.0),
        ("1793620830000", 30.0),
        ("2026-11-02T12:00:30Z", 30.0),
        ("2026-11-02T12:00:30", 30.0),
        ("-1", None),
        ("-1s", None),
        ("1x", None),
        ("", None),
        ("s", None),
        ("NaN", None),
    ],
)
def test_a_reset_is_a_duration_a_number_or_a_moment(value: str, seconds: float | None):
    assert read_hints({"x-ratelimit-reset-tokens": value}, now=NOON).reset_tokens_s == seconds


def test_openais_headers_are_read_whole():
    headers = {
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-limit-tokens": "2000000",
        "x-ratelimit-remaining-requests": "9999",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-requests": "6ms",
        "x-ratelimit-reset-tokens": "17s",
        "retry-after-ms": "120",
    }

    assert read_hints(headers, now=NOON) == RateHints(10_000, 2_000_000, 9_999, 0, 0.006, 17.0, 0.12)
    assert read_hints({}, now=NOON) == NO_HINTS


@pytest.mark.parametrize("value", ["0", "-5", "1.5", "many", "", "1e99", "9" * 30])
def test_a_limit_that_is_no_count_is_not_said(value: str):
    assert read_hints({"x-ratelimit-limit-requests": value}, now=NOON).limit_calls is None


NAMES = st.sampled_from(
    [
        "retry-after",
        "retry-after-ms",
        *(f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")),
    ]
)
GARBAGE = st.one_of(
    st.text(max_size=60),
    st.integers().map(str),
    st.floats().map(str),
    st.from_regex(r"[0-9]{0,12}(d|h|m|s|ms)?[0-9]{0,12}(m|s|ms)?", fullmatch=True),
    st.datetimes().map(lambda when: when.isoformat()),
    st.datetimes().map(lambda when: when.strftime("%a, %d %b %Y %H:%M:%S GMT")),
)


@given(st.dictionaries(NAMES, GARBAGE))
def test_whatever_a_provider_sends_is_read_without_an_error_into_sensible_numbers(headers: dict[str, str]):
    hints = read_hints(headers, now=NOON)

    for count in (hints.limit_calls, hints.limit_tokens):
        assert count is None or 1 <= count <= 10**12
    for count in (hints.remaining_calls, hints.remaining_tokens):
        assert count is None or 0 <= count <= 10**12
    for seconds in (hints.reset_calls_s, hints.reset_tokens_s, hints.retry_after_s):
        assert seconds is None or 0 <= seconds < float("inf")
    report = reports.of_error(ModelRateLimited("slow", answered=True, hints=hints), jitter=0.5)
    assert 0 <= report.block_s <= 3600


def test_used_up_counts_only_with_a_time_that_can_be_waited_for():
    assert exhausted_s(0, 12.0) == 12.0
    assert exhausted_s(0, None) is None
    assert exhausted_s(0, 86_400.0) is None
    assert exhausted_s(1, 12.0) is None
    assert exhausted_s(None, 12.0) is None


@pytest.mark.parametrize(
    ("error", "report"),
    [
        (
            ModelRateLimited("slow", answered=True, hints=RateHints(retry_after_s=7)),
            Report(Verdict.RATE, tokens=0, block_s=7, hints=RateHints(retry_after_s=7)),
        ),
        (ModelRateLimited("slow", answered=True), Report(Verdict.RATE, tokens=0, block_s=5)),
        (ModelQuotaExhausted("pay", answered=True), Report(Verdict.QUOTA, tokens=0)),
        (ModelKeyRefused("401", certain=True), Report(Verdict.KEY, tokens=0)),
        (ModelKeyRefused("403", certain=False), Report(Verdict.FORBIDDEN, tokens=0)),
        (ModelUnreachable("refused", sent=False), Report(Verdict.OUTAGE, calls=0, tokens=0)),
        (ModelUnreachable("cut"), Report(Verdict.OUTAGE)),
        (ModelOverloaded("busy", answered=True), Report(Verdict.OUTAGE, tokens=0)),
        (ModelMalformed("garbage"), Report(Verdict.OUTAGE)),
        (ModelRejected("no", answered=True), Report(Verdict.FINE, tokens=0)),
        (ContextTooLong("long", answered=True), Report(Verdict.FINE, tokens=0)),
        (ModelError("never sent", sent=False), UNUSED),
    ],
)
def test_each_failure_says_to_the_limiter_what_it_means(error: ModelError, report: Report):
    assert reports.of_error(error, jitter=0.5) == report


def test_without_retry_after_a_429_blocks_until_what_is_used_up_is_whole_again():
    hints = RateHints(remaining_calls=5, remaining_tokens=0, reset_calls_s=50, reset_tokens_s=11)

    assert reports.of_error(ModelRateLimited("slow", hints=hints), jitter=0.5).block_s == 11
    absurd = RateHints(retry_after_s=10**9, remaining_tokens=0, reset_tokens_s=11)
    assert reports.of_error(ModelRateLimited("slow", hints=absurd), jitter=0.5).block_s == 11


def test_a_good_answer_reports_what_it_used():
    usage = TokenUsage(prompt=90, completion=10, calls=1)

    assert reports.of_answer(usage, NO_HINTS, took_s=2.0) == Report(Verdict.FINE, tokens=100, took_s=2.0)
    assert reports.of_answer(None, NO_HINTS, took_s=2.0).tokens is None
