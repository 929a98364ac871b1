"""Alerts over a clock that the test moves: months, zones whose clocks change, and a day's rate of spending."""

import json
from datetime import UTC, datetime

from tests.support import make_project

from cope.adapters.memory import FixedClock, MemoryStore, SequentialIds
from cope.core import ids
from cope.core.alerts import AlertKind, SpendAlert
from cope.core.ids import AlertId, ProjectId, UsageId
from cope.core.money import NanoUSD
from cope.ports.spend import NewUsage


class Desk:
    """A project in Berlin with one alert, whose spend is reported to it."""

    def __init__(self, now: str) -> None:
        self.clock, self.ids = FixedClock(datetime.fromisoformat(now).replace(tzinfo=UTC)), SequentialIds()
        self.store = MemoryStore(self.clock, self.ids)
        self.project = ProjectId("")

    async def open(self, kind: AlertKind, threshold: int | None) -> None:
        project = await self.store.create_project(make_project(cap=NanoUSD(1_000), time_zone="Europe/Berlin"), "whsec_")
        self.project = project.id
        alert = SpendAlert(AlertId(self.ids.new(ids.ALERT)), project.id, kind, threshold, (), None, self.clock.now())
        await self.store.create_alert(alert)

    async def spend(self, amount: int) -> None:
        usage_id = UsageId(self.ids.new(ids.USAGE))
        await self.store.record_usage(
            NewUsage(usage_id, self.project, None, NanoUSD(amount), None, None, None, None, b"")
        )

    def at(self, moment: str) -> None:
        self.clock.set(datetime.fromisoformat(moment).replace(tzinfo=UTC))

    async def fired(self) -> list[dict[str, object]]:
        """The data of what fired so far."""
        await self.store.sweep(lease_s=30)
        events = await self.store.list_events(self.project, after=0, limit=100, batch_id=None)
        return [json.loads(event.data) for event in events if event.type == "budget.alert"]


async def test_a_new_month_of_the_projects_own_zone_arms_every_alert_again() -> None:
    desk = Desk("2026-11-30T22:59:59")  # a second before Berlin's December
    await desk.open(AlertKind.PERCENT, 50)
    await desk.spend(500)
    assert [event["month"] for event in await desk.fired()] == ["2026-11"]

    desk.at("2026-11-30T23:00:00")
    assert len(await desk.fired()) == 1  # nothing of December is spent
    await desk.spend(500)

    assert [event["month"] for event in await desk.fired()] == ["2026-11", "2026-12"]


async def test_the_hour_that_summer_time_gives_and_takes_moves_no_spend_into_another_month() -> None:
    desk = Desk("2026-03-31T21:59:59")  # summer time began two days ago: a second before April
    await desk.open(AlertKind.AMOUNT, 400)
    await desk.spend(300)
    desk.at("2026-03-31T22:00:00")
    await desk.spend(300)
    assert await desk.fired() == []

    await desk.spend(100)

    assert [(event["month"], event["spent_nanousd"]) for event in await desk.fired()] == [("2026-04", 400)]


async def test_a_days_spending_that_would_overrun_the_month_is_told_once_there_is_a_day_of_it() -> None:
    desk = Desk("2026-11-10T23:00:00")  # Berlin's eleventh of November: twenty days are left
    await desk.open(AlertKind.PROJECTED, None)
    await desk.spend(10)
    assert await desk.fired() == []
    desk.at("2026-11-11T11:00:00")
    await desk.spend(50)
    assert await desk.fired() == []  # half a day says nothing yet

    desk.at("2026-11-11T23:00:00")

    (event,) = await desk.fired()
    # 60 in a day and 19 days left: 60 + 19 × 60 = 1,200 of 1,000; the last 24 hours alone saw 50.
    assert (event["projected_nanousd"], event["rate"], event["rate_nanousd_per_day"]) == (1_200, "month_so_far", 60)
    # 940 are missing, at 60 a day: 15 days and 16 hours on.
    assert event["projected_at"] == int(datetime(2026, 11, 27, 15, tzinfo=UTC).timestamp())
