"""Breakers: when calls stop, who tries first, and when they go on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cope.core.limits.breaker import PROBE_ENDS_S, PROBE_LEASE_S, Breaker, Cause, door_after, probing, purse_after
from cope.core.limits.types import Verdict

NOW = 1_000.0
OPEN = Breaker(Cause.OUTAGE, 0, 1, until=NOW + 5)


def after(breaker: Breaker, *verdicts: Verdict, probe: bool = False) -> Breaker:
    for verdict in verdicts:
        breaker = door_after(breaker, verdict, probe=probe, now=NOW)
    return breaker


def test_five_failures_in_a_row_open_the_door_and_a_success_between_starts_the_count_again():
    out, fine = Verdict.OUTAGE, Verdict.FINE

    assert after(Breaker(), *[out] * 4).cause is None
    assert after(Breaker(), *[out] * 4, fine, *[out] * 4).cause is None
    assert after(Breaker(), *[out] * 5) == OPEN


@pytest.mark.parametrize("verdict", [Verdict.FINE, Verdict.RATE, Verdict.QUOTA, Verdict.KEY])
def test_any_answer_of_the_provider_proves_that_it_is_there(verdict: Verdict):
    assert after(Breaker(failures=4), verdict) == Breaker()
    assert after(OPEN, verdict, probe=True) == Breaker()


@pytest.mark.parametrize("verdict", list(Verdict))
def test_calls_that_began_before_the_door_opened_change_nothing(verdict: Verdict):
    assert after(OPEN, verdict) == OPEN


def test_each_failed_probe_keeps_it_open_for_longer_up_to_two_minutes():
    door, waits = OPEN, []
    for _ in range(7):
        door = after(door, Verdict.OUTAGE, probe=True)
        waits.append(door.until - NOW)

    assert waits == [10, 20, 40, 80, 120, 120, 120]


def test_half_open_lets_one_call_through_until_it_ends_or_is_lost():
    later = NOW + 6
    assert OPEN.shut_until(NOW) == NOW + 5
    assert (OPEN.state(NOW), OPEN.state(later)) == ("open", "half_open")
    assert OPEN.shut_until(later) == 0
    under_way = probing(OPEN, later)
    assert under_way.shut_until(later + 1) == later + 1 + PROBE_ENDS_S, "the probe ends sooner than its lease"
    assert under_way.shut_until(later + PROBE_LEASE_S - 1) == later + PROBE_LEASE_S
    assert under_way.shut_until(later + PROBE_LEASE_S) == 0
    assert door_after(under_way, Verdict.UNUSED, probe=True, now=later).shut_until(later) == 0


def test_an_empty_purse_opens_at_once_for_as_long_as_told_or_a_minute_and_more_each_time():
    quota = Verdict.QUOTA
    told = purse_after(Breaker(), quota, probe=False, now=NOW, told_s=900)
    assert (told.cause, told.until) == (Cause.QUOTA, NOW + 900)
    purse, waits = Breaker(), []
    for _ in range(5):
        purse = purse_after(purse, quota, probe=purse.cause is not None, now=NOW)
        waits.append(purse.until - NOW)
    assert waits == [60, 120, 240, 300, 300]


def test_a_refused_key_opens_at_once_and_forbidden_requests_only_three_in_a_row():
    assert purse_after(Breaker(), Verdict.KEY, probe=False, now=NOW).cause is Cause.KEY
    purse = Breaker()
    for verdict in (Verdict.FORBIDDEN, Verdict.FORBIDDEN, Verdict.FINE, Verdict.FORBIDDEN, Verdict.FORBIDDEN):
        purse = purse_after(purse, verdict, probe=False, now=NOW)
    assert purse.cause is None
    assert purse_after(purse, Verdict.FORBIDDEN, probe=False, now=NOW).cause is Cause.KEY


def test_an_outage_says_nothing_about_money_and_frees_the_probe():
    purse = probing(Breaker(Cause.QUOTA, 0, 1, NOW - 1), NOW)

    assert purse_after(purse, Verdict.OUTAGE, probe=True, now=NOW).shut_until(NOW) == 0
    assert purse_after(purse, Verdict.OUTAGE, probe=True, now=NOW).cause is Cause.QUOTA


@given(st.lists(st.tuples(st.sampled_from(list(Verdict)), st.booleans(), st.floats(0, 500))))
def test_whatever_happens_an_open_breaker_lets_a_probe_through_within_the_longest_wait(
    events: list[tuple[Verdict, bool, float]],
):
    for step in (door_after, purse_after):
        breaker, now = Breaker(), NOW
        for verdict, probe, pause in events:
            now += pause
            asked = breaker.cause is not None and probe and breaker.shut_until(now) == 0
            if asked:
                breaker = probing(breaker, now)
            breaker = step(breaker, verdict, probe=asked, now=now)
            assert breaker.shut_until(now) <= now + 300
            assert (breaker.cause is None) == (breaker.state(now) == "closed")
