"""Spend alerts: each fires once a month, as soon as a sweep sees it crossed, and again only when it is armed again."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from cope.core import ids
from cope.core.alerts import MOST_ALERTS, AlertKind, SpendAlert
from cope.core.errors import Conflict
from cope.core.ids import AlertId
from cope.core.money import NanoUSD
from cope.core.records import Project
from cope.ports.store import GiveBack
from tests.contracts.world import World, bill, done, large_step
from tests.support import make_endpoint, new_id


async def alert(world: World, project: Project, kind: AlertKind, threshold: int | None = None) -> SpendAlert:
    """A stored alert without recipients."""
    made = SpendAlert(AlertId(new_id(ids.ALERT)), project.id, kind, threshold, (), None, world.now())
    return await world.api.create_alert(made)


async def spend(world: World, project: Project, amount: int) -> None:
    """One paid call that is settled at `amount`."""
    await world.batch(project, 1, queue="large")
    task = await world.claim_one("large")
    granted = await world.send(task, amount)
    await world.commit(done(task, step=large_step(amount), bills=(bill(granted, amount),)))


async def told(world: World, project: Project, type_: str = "budget.alert") -> list[dict[str, Any]]:
    """The data of every event of this type so far."""
    return [json.loads(event.data) for event in await world.events(project) if event.type == type_]


async def test_a_percentage_of_the_cap_fires_in_the_sweep_after_it_is_crossed_and_not_before(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    eighty = await alert(world, project, AlertKind.PERCENT, 80)
    await spend(world, project, 799)
    assert (await world.sweep()).alerted == 0

    await spend(world, project, 1)

    assert (await world.sweep()).alerted == 1
    assert (await world.sweep()).alerted == 0
    (event,) = await told(world, project)
    assert (event["id"], event["kind"], event["percent"]) == (eighty.id, "percent", 80)
    assert (event["threshold_nanousd"], event["spent_nanousd"], event["cap_nanousd"]) == (800, 800, 1_000)
    assert event["month"] == (await world.budget(project)).month


async def test_several_thresholds_crossed_at_once_fire_each_for_itself(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    for percent in (50, 80, 100):
        await alert(world, project, AlertKind.PERCENT, percent)
    await alert(world, project, AlertKind.AMOUNT, 850)

    await spend(world, project, 900)

    assert sorted(event["threshold_nanousd"] for event in await told(world, project)) == [500, 800, 850]


async def test_an_amount_needs_no_cap_and_a_percentage_of_no_cap_never_fires(world: World) -> None:
    project = await world.project()
    await alert(world, project, AlertKind.AMOUNT, 300)
    await alert(world, project, AlertKind.PERCENT, 1)

    await spend(world, project, 300)

    assert [event["kind"] for event in await told(world, project)] == ["amount"]


async def test_what_is_only_reserved_fires_nothing_and_what_may_have_been_billed_does(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await alert(world, project, AlertKind.PERCENT, 90)
    await world.batch(project, 1, queue="large")
    await world.send(await world.claim_one("large", lease_s=30), 950)
    assert (await world.sweep()).alerted == 0

    await world.advance(31)
    await world.sweep()

    (event,) = await told(world, project)
    assert (event["spent_nanousd"], event["unconfirmed_nanousd"]) == (0, 950)


async def test_eight_sweeps_at_once_tell_it_once(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await world.api.create_endpoint(make_endpoint(project.id, event_types=("budget.alert",)))
    await alert(world, project, AlertKind.PERCENT, 50)
    await alert(world, project, AlertKind.AMOUNT, 100)
    await spend(world, project, 600)

    reports = await asyncio.gather(*(world.sweep() for _ in range(8)))

    assert sum(report.alerted for report in reports) == 2
    assert len(await told(world, project)) == 2
    assert len(await world.deliveries()) == 2


async def test_a_raised_cap_arms_the_percentage_again_and_a_crossed_one_stays_silent(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await alert(world, project, AlertKind.PERCENT, 80)
    await spend(world, project, 800)
    assert (await world.sweep()).alerted == 1

    await world.api.set_cap(project.id, NanoUSD(900))
    await world.api.set_cap(project.id, NanoUSD(1_000))
    assert (await world.sweep()).alerted == 0
    await world.api.set_cap(project.id, NanoUSD(2_000))
    assert (await world.sweep()).alerted == 0
    await spend(world, project, 800)

    assert (await world.sweep()).alerted == 1
    assert [event["threshold_nanousd"] for event in await told(world, project)] == [800, 1_600]


async def test_a_raise_that_leaves_the_threshold_crossed_does_not_tell_it_twice(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await alert(world, project, AlertKind.PERCENT, 80)
    await spend(world, project, 950)
    assert (await world.sweep()).alerted == 1

    await world.api.set_cap(project.id, NanoUSD(1_100))

    assert (await world.sweep()).alerted == 0


async def test_a_fixed_amount_is_told_once_a_month_whatever_happens_to_the_cap(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await alert(world, project, AlertKind.AMOUNT, 500)
    await spend(world, project, 600)
    assert (await world.sweep()).alerted == 1

    await world.api.set_cap(project.id, NanoUSD(5_000))
    await spend(world, project, 600)

    assert (await world.sweep()).alerted == 0


async def test_the_whole_cap_counts_as_reached_when_a_task_can_never_be_paid_this_month(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await alert(world, project, AlertKind.PERCENT, 100)
    await alert(world, project, AlertKind.PERCENT, 99)
    await spend(world, project, 900)
    await world.batch(project, 1, queue="large")
    assert (await world.sweep()).alerted == 0

    await world.hold(await world.claim_one("large"), 200)
    await world.sweep()

    assert [event["percent"] for event in await told(world, project)] == [100]


async def test_a_task_that_waits_only_for_calls_in_flight_is_no_reason_to_call_the_cap_reached(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await alert(world, project, AlertKind.PERCENT, 100)
    await world.batch(project, 2, queue="large")
    paying, waiting = await world.claim("large", limit=2)
    await world.send(paying, 900)
    await world.hold(waiting, 200)

    await world.sweep()

    assert await told(world, project) == []


async def test_a_projected_overrun_fires_while_the_cap_still_has_money(world: World) -> None:
    project = await world.project(cap=NanoUSD(10_000))
    await alert(world, project, AlertKind.PROJECTED)
    await world.batch(project, 200, queue="large")
    tasks = await world.claim("large", limit=20)
    paid = [await world.send(task, 60) for task in tasks]
    ends = [done(t, step=large_step(60), bills=(bill(p, 60),)) for t, p in zip(tasks, paid, strict=True)]
    await world.commit(*ends[:19])
    assert (await world.sweep()).alerted == 0

    await world.commit(ends[19])  # 20 lines at 60 each: the other 180 are expected to need 10,800

    assert (await world.sweep()).alerted == 1
    (event,) = await told(world, project)
    assert event["kind"] == "projected"
    assert (event["spent_nanousd"], event["backlog_nanousd"], event["projected_nanousd"]) == (1_200, 10_800, 12_000)
    assert abs(event["projected_at"] - world.now().timestamp()) < 3_600

    await world.api.set_cap(project.id, NanoUSD(11_000))
    assert (await world.sweep()).alerted == 1  # a higher cap, and still beyond it
    await world.api.set_cap(project.id, NanoUSD(50_000))
    assert (await world.sweep()).alerted == 0


async def test_a_batch_whose_own_cap_stops_it_in_time_is_no_overrun(world: World) -> None:
    project = await world.project(cap=NanoUSD(10_000))
    await alert(world, project, AlertKind.PROJECTED)
    await world.batch(project, 200, queue="large", cap=NanoUSD(9_000))
    tasks = await world.claim("large", limit=20)
    paid = [await world.send(task, 60) for task in tasks]
    await world.commit(*[done(t, step=large_step(60), bills=(bill(p, 60),)) for t, p in zip(tasks, paid, strict=True)])

    assert (await world.sweep()).alerted == 0


async def test_a_deleted_alert_is_silent_and_a_changed_one_is_armed_again(world: World) -> None:
    project, stranger = await world.project(cap=NanoUSD(1_000)), await world.project()
    gone = await alert(world, project, AlertKind.PERCENT, 50)
    kept = await alert(world, project, AlertKind.PERCENT, 60)
    assert not await world.api.delete_alert(stranger.id, gone.id)
    assert await world.api.delete_alert(project.id, gone.id)
    await spend(world, project, 700)
    assert (await world.sweep()).alerted == 1

    async def change(threshold: int, recipients: tuple[str, ...]) -> SpendAlert | None:
        return await world.api.update_alert(
            project.id,
            kept.id,
            kind=AlertKind.PERCENT,
            threshold=threshold,
            recipients=recipients,
            subject_prefix="money",
        )

    same = await change(60, ("a@example.com",))
    assert same is not None
    assert (same.recipients, same.subject_prefix) == (("a@example.com",), "money")
    assert same.fired_month is not None
    assert (await world.sweep()).alerted == 0
    other = await change(70, ())
    assert other is not None
    assert other.fired_month is None
    assert (await world.sweep()).alerted == 1
    (listed,) = await world.api.list_alerts(project.id)
    assert (listed.fired_threshold, listed.fired_month) == (700, (await world.budget(project)).month)
    assert await world.api.list_alerts(stranger.id) == ()


async def test_one_projects_spend_fires_no_alert_of_another(world: World) -> None:
    spender, other = await world.project(cap=NanoUSD(1_000)), await world.project(cap=NanoUSD(1_000))
    await alert(world, other, AlertKind.PERCENT, 1)

    await spend(world, spender, 900)

    assert (await world.sweep()).alerted == 0


async def test_a_project_has_a_limited_number_of_alerts(world: World) -> None:
    project = await world.project()
    for percent in range(1, MOST_ALERTS + 1):
        await alert(world, project, AlertKind.PERCENT, percent)

    with pytest.raises(Conflict, match="at most 100"):
        await alert(world, project, AlertKind.PERCENT, 101)


async def test_waiting_for_money_is_told_once_for_each_batch_and_for_the_project_and_so_is_its_end(
    world: World,
) -> None:
    project = await world.project(cap=NanoUSD(0))
    first, second = await world.batch(project, 1, queue="large"), await world.batch(project, 2, queue="large")
    for task in await world.claim("large", limit=3):
        await world.hold(task, 100)

    await world.sweep()
    await world.sweep()
    assert sorted(event["scope"] for event in await told(world, project, "budget.held")) == sorted(
        [first.id, second.id, "project"]
    )
    await world.api.set_cap(project.id, NanoUSD(200))  # covers one line of each
    await world.sweep()
    assert [event["scope"] for event in await told(world, project, "budget.resumed")] == [first.id]
    await world.api.set_cap(project.id, NanoUSD(1_000))
    await world.sweep()

    assert len(await told(world, project, "budget.held")) == 3
    assert sorted(event["scope"] for event in await told(world, project, "budget.resumed")) == sorted(
        [first.id, second.id, "project"]
    )


async def test_a_cancelled_batch_no_longer_waits_for_money(world: World) -> None:
    project = await world.project(cap=NanoUSD(0))
    batch = await world.batch(project, 1, queue="large")
    await world.hold(await world.claim_one("large"), 100)
    await world.sweep()

    await world.api.cancel_batch(project.id, batch.id)
    await world.sweep()

    assert len(await told(world, project, "budget.resumed")) == 2


async def test_only_endpoints_that_asked_for_it_get_a_budget_event(world: World) -> None:
    project, stranger = await world.project(cap=NanoUSD(0)), await world.project()
    asked = make_endpoint(project.id, event_types=("budget.held", "batch.completed"))
    await world.api.create_endpoint(asked)
    await world.api.create_endpoint(make_endpoint(project.id))
    await world.api.create_endpoint(make_endpoint(stranger.id, event_types=("budget.held",)))
    gone = replace(make_endpoint(project.id, event_types=("budget.held",)), disabled_at=world.now())
    await world.api.create_endpoint(gone)
    batch = await world.batch(project, 1, queue="large")
    await world.hold(await world.claim_one("large"), 100)

    await world.sweep()

    sent = await world.deliveries()
    assert {delivery.endpoint_id for delivery in sent} == {asked.id}
    bodies = [json.loads(delivery.body) for delivery in sent]
    assert {body["type"] for body in bodies} == {"budget.held"}
    assert {body["data"]["id"] for body in bodies} == {batch.id, project.id}
    assert {body["id"] for body in bodies} == {
        event.id for event in await world.events(project) if event.type == "budget.held"
    }


async def test_an_overrun_is_a_webhook_too(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await world.api.create_endpoint(make_endpoint(project.id, event_types=("budget.overrun",)))
    await alert(world, project, AlertKind.PERCENT, 200)
    await world.batch(project, 1, queue="large")
    task = await world.claim_one("large")
    granted = await world.send(task, 1_000)

    await world.worker.give_back(
        [GiveBack(task.task_id, task.fence, settlements=(bill(granted, 1_000, overrun=1_500),))]
    )

    (delivery,) = await world.deliveries()
    assert json.loads(delivery.body)["data"]["overrun_nanousd"] == 1_500
    (event,) = await told(world, project)
    assert (event["percent"], event["overrun_nanousd"]) == (200, 1_500)


async def test_a_second_batch_that_the_month_can_not_pay_is_noticed_though_no_budget_has_moved(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await alert(world, project, AlertKind.PERCENT, 100)
    await world.batch(project, 1, queue="large", cap=NanoUSD(0))
    await world.hold(await world.claim_one("large"), 10)
    await world.batch(project, 1, queue="large")
    paid = await world.claim_one("large")
    granted = await world.send(paid, 600)
    await world.commit(done(paid, step=large_step(600), bills=(bill(granted, 600),)))
    await world.sweep()
    assert await told(world, project) == []

    await world.batch(project, 1, queue="large")
    await world.hold(await world.claim_one("large"), 500)
    await world.sweep()

    assert len(await told(world, project)) == 1
