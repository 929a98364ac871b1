"""Where a month's spend is heading, as a table; all amounts are nano-dollars."""

from datetime import UTC, datetime, timedelta

import pytest

from cope.core.money import NanoUSD
from cope.core.projection import OpenBatch, Pace, Rate, project

DAY = timedelta(days=1)
NOV_11 = datetime(2026, 11, 11, tzinfo=UTC)
"""Ten days of November are over, twenty are left."""


def pace(
    spent: int = 0,
    *,
    reserved: int = 0,
    unconfirmed: int = 0,
    last_day: int = 0,
    first_at: datetime | None = datetime(2026, 10, 1, tzinfo=UTC),
    batches: tuple[OpenBatch, ...] = (),
) -> Pace:
    return Pace(NanoUSD(spent), NanoUSD(reserved), NanoUSD(unconfirmed), NanoUSD(last_day), first_at, batches)


def lines(total: int, finished: int, spent: int, left: int | None = None) -> OpenBatch:
    return OpenBatch(total, finished, NanoUSD(spent), None if left is None else NanoUSD(left))


@pytest.mark.parametrize(
    ("seen", "total", "rate"),
    [
        pytest.param(pace(), 0, Rate.NONE, id="nothing spent, nothing projected"),
        pytest.param(pace(1_000), 1_000 + 20 * 100, Rate.MONTH, id="the month's rate: 100 a day for 20 days"),
        pytest.param(pace(1_000, last_day=300), 1_000 + 20 * 300, Rate.LAST_DAY, id="the last day's is higher"),
        pytest.param(pace(1_000, last_day=99), 1_000 + 20 * 100, Rate.MONTH, id="the last day's is lower"),
        pytest.param(pace(1_000, last_day=100), 1_000 + 20 * 100, Rate.LAST_DAY, id="equal rates: the fresher one"),
        pytest.param(pace(1_001), 1_001 + 20 * 101, Rate.MONTH, id="rates are rounded up"),
        pytest.param(pace(0, reserved=70, unconfirmed=5), 75, Rate.NONE, id="what is open counts in full"),
        pytest.param(
            pace(500, last_day=500, first_at=NOV_11 - DAY + timedelta(seconds=1)), 500, Rate.NONE, id="under a day"
        ),
        pytest.param(
            pace(500, last_day=500, first_at=NOV_11 - DAY), 500 + 20 * 500, Rate.LAST_DAY, id="exactly a day of data"
        ),
        pytest.param(
            pace(600, first_at=NOV_11 - 2 * DAY), 600 + 20 * 300, Rate.MONTH, id="not thinned by the days before"
        ),
        pytest.param(pace(batches=(lines(1_000, 100, 5_000),)), 45_000, Rate.NONE, id="900 lines at 50 each"),
        pytest.param(pace(batches=(lines(1_000, 19, 5_000),)), 0, Rate.NONE, id="19 finished lines say nothing yet"),
        pytest.param(pace(batches=(lines(40, 20, 10),)), 10, Rate.NONE, id="20 do"),
        pytest.param(pace(batches=(lines(1_000, 100, 5_000, left=700),)), 700, Rate.NONE, id="its own cap bounds it"),
        pytest.param(pace(batches=(lines(1_000, 100, 5_000, left=-3),)), 0, Rate.NONE, id="a lowered cap"),
        pytest.param(pace(batches=(lines(30, 30, 900), lines(60, 30, 31))), 31, Rate.NONE, id="two, rounded up"),
        pytest.param(
            pace(1_000, reserved=10, last_day=200, batches=(lines(40, 20, 20),)),
            1_010 + 20 * 200 + 20,
            Rate.LAST_DAY,
            id="everything together",
        ),
    ],
)  # fmt: skip
def test_a_month_comes_to_what_is_open_plus_its_rate_plus_the_lines_that_wait(
    seen: Pace, total: int, rate: Rate
) -> None:
    ahead = project(seen, NOV_11, "UTC")

    assert (ahead.total, ahead.rate) == (total, rate)


def test_on_the_first_day_of_a_month_only_the_last_24_hours_count() -> None:
    noon = datetime(2026, 12, 1, 12, tzinfo=UTC)

    ahead = project(pace(400, last_day=700), noon, "UTC")

    assert (ahead.per_day, ahead.rate) == (700, Rate.LAST_DAY)
    assert ahead.total == 400 + 30 * 700 + 350


def test_the_time_left_is_the_projects_own_and_exact_where_clocks_change() -> None:
    # Berlin's October has 25 hours on its 25th; the month ends at 23:00 UTC.
    start = datetime(2026, 10, 24, 22, tzinfo=UTC)

    ahead = project(pace(0, last_day=86_400), start, "Europe/Berlin")

    assert ahead.total == 7 * 86_400 + 3_600


@pytest.mark.parametrize(
    ("cap", "reached"),
    [
        (NanoUSD(900), NOV_11),  # it already is
        (NanoUSD(1_100), NOV_11 + DAY),
        (NanoUSD(1_150), NOV_11 + timedelta(hours=36)),
    ],
)
def test_the_moment_at_which_the_cap_will_be_reached(cap: NanoUSD, reached: datetime) -> None:
    ahead = project(pace(1_000), NOV_11, "UTC")

    assert ahead.reaches_at(cap, NOV_11) == reached


def test_a_cap_that_nothing_is_heading_for_is_reached_at_no_moment() -> None:
    assert project(pace(10, first_at=None), NOV_11, "UTC").reaches_at(NanoUSD(11), NOV_11) is None
