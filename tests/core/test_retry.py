"""The retry table."""

import pytest

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
from cope.core.retry import MAX_TRIES, GiveUp, HoldForQuota, RetryDecision, RetryLater, decide, describe


@pytest.mark.parametrize(
    ("error", "tries", "wait", "counts"),
    [
        (ModelRateLimited("slow", retry_after_s=7), 0, 7.0, False),
        (ModelRateLimited("slow"), 5, 5.0, False),
        (ModelRateLimited("slow", retry_after_s=1e9), 0, 5.0, False),
        (ModelRateLimited("slow", retry_after_s=-3), 0, 5.0, False),
        (ModelUnreachable("away", sent=False), MAX_TRIES, 3.0, False),
        (ModelUnreachable("cut"), 0, 1.0, True),
        (ModelOverloaded("busy"), 3, 8.0, True),
        (ModelOverloaded("busy", retry_after_s=30), 0, 30.0, True),
        (ModelMalformed("garbage"), 1, 2.0, True),
    ],
)
def test_what_may_succeed_later_is_tried_later(error: ModelError, tries: int, wait: float, counts: bool):
    assert decide(error, tries, jitter=0.5) == RetryLater(wait, counts)


@pytest.mark.parametrize(
    ("error", "tries"),
    [(ModelRejected("no"), 0), (ContextTooLong("long"), 0), (ModelOverloaded("busy"), MAX_TRIES - 1)],
)
def test_what_repeating_cannot_mend_or_was_repeated_enough_is_given_up(error: ModelError, tries: int):
    decision = decide(error, tries, jitter=0.5)

    assert isinstance(decision, GiveUp)
    assert decision.error.code == error.code


def test_a_provider_without_money_is_a_hold_and_never_a_try():
    assert decide(ModelQuotaExhausted("pay"), MAX_TRIES, jitter=0.1) == HoldForQuota(300.0)
    assert decide(ModelQuotaExhausted("pay", retry_after_s=60), 0, jitter=0.1) == HoldForQuota(60)


def test_a_refused_key_holds_the_task_and_a_doubtful_refusal_is_a_counted_wait_that_ends_one_day():
    assert decide(ModelKeyRefused("401", certain=True), MAX_TRIES + 9, jitter=0.1) == HoldForQuota(300.0)
    assert decide(ModelKeyRefused("403", certain=False), 0, jitter=0.1) == RetryLater(300.0, counts=True)
    assert isinstance(decide(ModelKeyRefused("403", certain=False), MAX_TRIES - 1, jitter=0.1), GiveUp)


def test_waits_are_spread_around_their_middle():
    low, high = (decide(ModelOverloaded("busy"), 2, jitter=j) for j in (0.0, 0.999))

    assert isinstance(low, RetryLater)
    assert isinstance(high, RetryLater)
    assert 3.0 <= low.delay_s < 4.0 < high.delay_s < 5.0


@pytest.mark.parametrize("error", [ModelRejected("no"), ModelOverloaded("busy"), ModelQuotaExhausted("pay")])
def test_every_decision_has_a_description(error: ModelError):
    decision: RetryDecision = decide(error, 0, jitter=0.5)
    assert describe(decision)


@pytest.mark.parametrize("told", [0.0, 0.2, 0.999])
def test_a_429_is_never_answered_at_once_whatever_it_says(told: float):
    assert decide(ModelRateLimited("slow", retry_after_s=told), 0, jitter=0.5) == RetryLater(1.0, counts=False)
