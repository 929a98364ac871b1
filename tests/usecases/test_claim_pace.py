"""How claims follow what the limiter serves."""

from cope.usecases.claim_pace import ClaimPace


def test_without_refusals_everything_that_is_free_is_claimed():
    pace = ClaimPace(33)

    assert (pace.room(0, now=0), pace.room(30, now=0), pace.room(40, now=0)) == (33, 3, 0)


def test_where_calls_are_limited_it_begins_small_and_doubles_until_the_first_refusal():
    pace, rooms = ClaimPace(33, first=4), []
    for _ in range(4):
        rooms.append(pace.room(0, now=0))
        for _ in range(rooms[-1]):
            pace.granted(now=0)

    assert rooms == [4, 8, 16, 32]
    assert pace.room(0, now=0) == 33


def test_refusals_shrink_what_may_be_in_hand_and_grants_let_it_grow_again():
    pace = ClaimPace(32)
    for _ in range(6):
        pace.refused(10, now=0)
    assert pace.room(0, now=0) == 5
    for _ in range(20):
        pace.granted(now=1)
    assert 5 <= pace.room(0, now=1) <= 6
    for _ in range(20):
        pace.granted(now=6)

    assert 8 <= pace.room(0, now=6) <= 9


def test_when_even_one_at_a_time_is_put_off_claims_pause_longer_and_longer_and_a_grant_ends_it():
    pace, pauses, now = ClaimPace(1), [], 0.0
    for _ in range(6):
        pace.refused(60, now=now)
        left = next(step / 4 for step in range(100) if pace.room(0, now=now + step / 4))
        pauses.append(left)
        now += left

    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    pace.granted(now=now)
    assert pace.room(0, now=now) == 1


def test_a_pause_is_no_longer_than_the_wait_it_is_for():
    pace = ClaimPace(1)
    for _ in range(5):
        pace.refused(2.5, now=0)

    assert pace.room(0, now=2.6) == 1
