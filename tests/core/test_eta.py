"""When a batch will be done, and what it waits for."""

from datetime import UTC, datetime, timedelta

import pytest

from cope.core.eta import Eta, LimitedBy, PaceSample, Workload, estimate
from cope.core.lifecycle import HoldReason

NOON = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)


def samples(*rows: tuple[int, int, int], leased: int = 0) -> list[PaceSample]:
    """Rows of (seconds after noon, small steps, large steps)."""
    return [PaceSample(NOON + timedelta(seconds=at), small, large, leased) for at, small, large in rows]


def told(
    work: Workload, seen: list[PaceSample] | None = None, *, after_s: float = 60, hold: HoldReason | None = None
) -> Eta | None:
    return estimate(work, seen or [], began_at=NOON, now=NOON + timedelta(seconds=after_s), hold=hold)


def test_nothing_is_said_before_the_first_step():
    assert told(Workload(100, 0, 0, 0, 0, 0)) is None


def test_a_steady_small_model_says_when_it_will_be_done():
    work = Workload(total=1000, ended=600, at_large=0, first_large=0, small_steps=600, large_steps=0)
    seen = samples(*((at, at * 10, 0) for at in range(0, 61, 5)))

    eta = told(work, seen)

    assert eta is not None
    assert (eta.p50, eta.limited_by) == (40, LimitedBy.SMALL_MODEL)
    assert eta.p90 is not None
    assert 44 <= eta.p90 <= 50


def test_tasks_that_pile_up_before_the_large_model_are_not_forgotten():
    # 10 small steps a second, every second line escalates, and the large model does one a second: of 1,000 lines, 600
    # were decided in the first minute, 300 of them escalated, 60 of these are done. 500 are to come of the large model.
    work = Workload(total=1000, ended=360, at_large=240, first_large=0, small_steps=600, large_steps=60)
    seen = samples(*((at, at * 10, at) for at in range(0, 61, 5)))

    eta = told(work, seen)

    assert eta is not None
    assert eta.limited_by is LimitedBy.PROVIDER_RATE
    assert eta.p50 == pytest.approx(240 + 400 * 0.5, rel=0.02)


def test_a_line_that_comes_back_from_the_large_model_is_small_work_again():
    # Stage 2: each escalated line gets a plan from the large model and is solved again by the small one.
    work = Workload(total=100, ended=0, at_large=100, first_large=0, small_steps=100, large_steps=0)
    fresh = told(work, samples((0, 0, 0), (60, 100, 0)))
    assert fresh == Eta(None, None, LimitedBy.PROVIDER_RATE), "the large model has done nothing yet"

    half = Workload(total=100, ended=0, at_large=50, first_large=0, small_steps=100, large_steps=50)
    eta = told(half, samples((0, 100, 0), (50, 100, 50)))
    assert eta is not None
    assert eta.p50 is not None


def test_the_rate_is_that_of_the_last_minutes_and_not_of_the_batch_s_whole_life():
    work = Workload(total=2000, ended=1000, at_large=0, first_large=0, small_steps=1000, large_steps=0)
    slower_now = samples((2900, 900, 0), (2950, 950, 0), (3000, 1000, 0))

    eta = told(work, slower_now, after_s=3000)

    assert eta is not None
    assert eta.p50 == 1000


def test_without_samples_the_whole_life_must_do():
    work = Workload(total=30, ended=20, at_large=0, first_large=0, small_steps=20, large_steps=0)
    eta = told(work, after_s=4)
    assert eta is not None
    assert eta.p50 == 2


def test_time_over_which_nothing_was_seen_counts_for_nothing():
    # An hour's hold lies between the second and the third sample.
    work = Workload(total=400, ended=300, at_large=0, first_large=0, small_steps=300, large_steps=0)
    seen = samples((3400, 100, 0), (3410, 200, 0), (3500, 200, 0), (3510, 300, 0))
    eta = told(work, seen, after_s=3510)
    assert eta is not None
    assert eta.p50 == 10


def test_an_uneven_pace_widens_what_is_promised():
    work = Workload(total=2000, ended=1200, at_large=0, first_large=0, small_steps=1200, large_steps=0)
    steady = told(work, samples(*((at, at * 10, 0) for at in range(0, 121, 5))), after_s=120)
    bursts = told(work, samples(*((at, (at // 30) * 300, 0) for at in range(0, 121, 5))), after_s=120)
    assert steady is not None
    assert bursts is not None
    assert steady.p50 == bursts.p50
    assert (steady.p90 or 0) < (bursts.p90 or 0)


@pytest.mark.parametrize(
    ("hold", "limit"),
    [
        (HoldReason.BUDGET, LimitedBy.BUDGET),
        (HoldReason.PROVIDER_QUOTA, LimitedBy.PROVIDER_QUOTA),
        (HoldReason.PAUSED, LimitedBy.PAUSED),
        (HoldReason.UNPARSABLE, LimitedBy.PAUSED),
    ],
)
def test_nobody_knows_when_what_is_held_goes_on(hold: HoldReason, limit: LimitedBy):
    work = Workload(total=100, ended=50, at_large=0, first_large=0, small_steps=50, large_steps=0)
    assert told(work, hold=hold) == Eta(None, None, limit)


def test_where_every_task_left_is_being_worked_on_nothing_limits():
    work = Workload(total=100, ended=92, at_large=0, first_large=0, small_steps=92, large_steps=0)
    eta = told(work, samples((0, 0, 0), (55, 90, 0), leased=8))
    assert eta is not None
    assert eta.limited_by is None


def test_a_batch_that_has_ended_takes_no_time():
    assert told(Workload(10, 10, 0, 0, 10, 0)) == Eta(0, 0, None)


@pytest.mark.parametrize("small_rate", [5.0, 20.0])
@pytest.mark.parametrize("large_rate", [0.5, 2.0, 20.0])
@pytest.mark.parametrize("share", [0.1, 0.4])
def test_told_in_the_middle_of_a_cascade_it_comes_true(small_rate: float, large_rate: float, share: float):
    """Both tiers work at their rates; a fixed share escalates to one large step and ends there."""
    total, step_s = 2000, 5.0
    small = large = done = 0.0
    queue, at, history = 0.0, 0.0, [(0, 0, 0)]
    moments: list[tuple[float, Eta | None]] = []
    while done < total - 0.5:
        solved = min(total - small, small_rate * step_s)
        small += solved
        queue += solved * share
        paid = min(queue, large_rate * step_s)
        queue, large = queue - paid, large + paid
        done += solved * (1 - share) + paid
        at += step_s
        history.append((int(at), int(small), int(large)))
        work = Workload(total, int(done), round(queue), 0, int(small), int(large))
        moments.append((at, told(work, samples(*history), after_s=at)))
    judged = [(moment, eta) for moment, eta in moments if 0.15 * at < moment < 0.8 * at]
    assert judged
    for moment, eta in judged:
        assert eta is not None
        assert eta.p50 is not None
        assert eta.p50 == pytest.approx(at - moment, rel=0.3, abs=10)
        assert eta.p90 is not None
        assert eta.p90 >= 0.9 * (at - moment)
