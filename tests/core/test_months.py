"""When a month begins and ends in a project's own zone, also where clocks change at that very moment."""

from datetime import UTC, datetime, timedelta

import pytest

from cope.core.budget import month_of, month_start, next_month_start


@pytest.mark.parametrize(
    ("zone", "now", "start", "end"),
    [
        ("UTC", "2026-11-25T04:11:00", "2026-11-01T00:00:00", "2026-12-01T00:00:00"),
        ("UTC", "2026-12-31T23:59:59", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
        ("Asia/Kolkata", "2026-11-30T18:29:59", "2026-10-31T18:30:00", "2026-11-30T18:30:00"),
        ("Asia/Kolkata", "2026-11-30T18:30:00", "2026-11-30T18:30:00", "2026-12-31T18:30:00"),
        # Summer time on one side of the month and not on the other.
        ("Europe/Berlin", "2026-10-10T00:00:00", "2026-09-30T22:00:00", "2026-10-31T23:00:00"),
        ("America/New_York", "2026-03-20T00:00:00", "2026-03-01T05:00:00", "2026-04-01T04:00:00"),
        # Clocks went from 00:00 to 01:00 on the first of October 2023: the month begins at the moment they did.
        ("America/Asuncion", "2023-09-15T00:00:00", "2023-09-01T04:00:00", "2023-10-01T04:00:00"),
        # Clocks went back from 01:00 to 00:00 on the first of November 2015: of two midnights it is the first.
        ("America/Havana", "2015-10-15T00:00:00", "2015-10-01T04:00:00", "2015-11-01T04:00:00"),
    ],
)
def test_a_month_of_a_zone_begins_and_ends_at_exact_moments(zone: str, now: str, start: str, end: str) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)

    assert month_start(moment, zone) == datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert next_month_start(moment, zone) == datetime.fromisoformat(end).replace(tzinfo=UTC)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Asuncion", "America/Havana", "Pacific/Apia"])
def test_the_budgets_month_changes_at_that_moment_and_not_a_second_before(zone: str) -> None:
    moment = datetime(2009, 1, 15, tzinfo=UTC)
    for _ in range(200):
        end = next_month_start(moment, zone)
        assert month_of(end, zone) != month_of(end - timedelta(seconds=1), zone) == month_of(moment, zone)
        moment = end
