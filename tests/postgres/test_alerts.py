"""Alerts on real Postgres: exactly once whoever dies, in the month that is, and the books stay right."""

import asyncio
import contextlib
from datetime import UTC, datetime

import psycopg
import pytest
from cryptography.fernet import Fernet

from cope.adapters.postgres import PostgresWorkerStore
from cope.adapters.postgres.alerts import _BOOKED, AlertWatch
from cope.adapters.postgres.database import Database, fetch
from cope.adapters.postgres.money import ledger_difference
from cope.core import ids
from cope.core.alerts import AlertKind, SpendAlert
from cope.core.ids import AlertId
from cope.core.money import NanoUSD
from cope.core.records import Project
from tests.contracts.test_alerts import alert, spend, told
from tests.contracts.test_external_usage import usage
from tests.contracts.world import LEASE_S, PostgresWorld
from tests.postgres.conftest import Place
from tests.support import make_endpoint, new_id

pytestmark = pytest.mark.integration


async def crossed(world: PostgresWorld) -> Project:
    """A project with an endpoint and an alert that is due."""
    project = await world.project(cap=NanoUSD(1_000))
    await world.api.create_endpoint(make_endpoint(project.id, event_types=("budget.alert",)))
    await alert(world, project, AlertKind.PERCENT, 50)
    await spend(world, project, 600)
    return project


async def test_eight_processes_that_sweep_at_once_tell_an_alert_once(world: PostgresWorld, place: Place) -> None:
    project = await crossed(world)
    async with contextlib.AsyncExitStack() as stack:
        sweepers = []
        for _ in range(8):
            store = PostgresWorkerStore(place.worker, secret_key=Fernet.generate_key().decode())
            stack.push_async_callback(store.aclose)
            await store.open()
            sweepers.append(store)
        for _ in range(3):
            await asyncio.gather(*(store.sweep(lease_s=LEASE_S) for store in sweepers))

    assert len(await told(world, project)) == 1
    assert len(await world.deliveries()) == 1


async def test_a_sweeper_that_dies_before_its_commit_has_told_nothing_and_the_next_one_tells_it(
    world: PostgresWorld, place: Place
) -> None:
    project = await crossed(world)
    with psycopg.connect(place.superuser, autocommit=True) as conn:
        # The event's insertion stops here, with the alert marked and its row locked.
        conn.execute("BEGIN")
        conn.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        db = Database(place.worker, min_size=1, max_size=2, name="doomed")
        await db.open()
        doomed = asyncio.create_task(AlertWatch().look(db))
        with psycopg.connect(place.superuser, autocommit=True) as other:
            waiting = "SELECT pid FROM pg_stat_activity WHERE application_name = 'doomed' AND wait_event_type = 'Lock'"
            while (row := other.execute(waiting).fetchone()) is None:
                await asyncio.sleep(0.01)
            other.execute("SELECT pg_terminate_backend(%s)", [row[0]])
        conn.execute("ROLLBACK")
    with pytest.raises(Exception, match="did not answer"):
        await doomed
    await db.close()

    assert len(await told(world, project)) == 1
    assert len(await world.deliveries()) == 1


async def test_a_new_month_arms_every_alert_again(world: PostgresWorld, place: Place) -> None:
    project = await crossed(world)
    await alert(world, project, AlertKind.AMOUNT, 100)
    assert (await world.sweep()).alerted == 2

    with psycopg.connect(place.superuser) as conn:  # what was this month is a month long ago
        conn.execute("UPDATE budgets SET month = '2020-01' WHERE month <> ''")
        conn.execute("UPDATE ledger SET month = '2020-01'")
        conn.execute("UPDATE spend_alerts SET fired_month = '2020-01'")
    assert (await world.sweep()).alerted == 0  # the new month has spent nothing
    await spend(world, project, 500)

    assert (await world.sweep()).alerted == 2
    assert {event["month"] for event in await told(world, project)} >= {(await world.budget(project)).month}


async def test_a_project_whose_zone_is_in_another_month_is_judged_by_its_own(
    world: PostgresWorld, place: Place
) -> None:
    # The two zones are 26 hours apart: at any moment their dates differ, and at the turn of a month their months do.
    for zone in ("Pacific/Kiritimati", "Etc/GMT+12"):
        project = await world.project(cap=NanoUSD(1_000), time_zone=zone)
        await alert(world, project, AlertKind.AMOUNT, 100)
        await spend(world, project, 100)
        await world.sweep()

        (event,) = await told(world, project)
        with psycopg.connect(place.superuser) as conn:
            row = conn.execute("SELECT to_char(now() AT TIME ZONE %s, 'YYYY-MM')", [zone]).fetchone()
        assert row is not None
        assert event["month"] == row[0]


async def test_a_sweep_looks_at_no_alert_of_a_project_whose_budget_has_not_changed(
    world: PostgresWorld, place: Place
) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await alert(world, project, AlertKind.PERCENT, 50)
    await spend(world, project, 100)
    db = Database(place.worker, min_size=1, max_size=2, name="watch")
    await db.open()
    watch = AlertWatch()
    await watch.look(db)
    with psycopg.connect(place.superuser) as conn:  # whoever looked now would have to wait
        conn.execute("LOCK TABLE spend_alerts IN EXCLUSIVE MODE")
        assert await asyncio.wait_for(watch.look(db), 10) == 0
    await db.close()


async def test_the_last_days_bookings_are_those_of_the_last_24_hours_and_of_every_kind_that_is_money(
    world: PostgresWorld, place: Place
) -> None:
    project = await world.project(cap=NanoUSD(100_000))
    await spend(world, project, 1_000)
    await world.advance(90_000)
    await spend(world, project, 200)
    await world.api.record_usage(usage(project, 30))

    async with await psycopg.AsyncConnection.connect(place.worker) as conn:
        (row,) = await fetch(conn, _BOOKED, [[project.id]])

    assert row["last_day"] == 230
    assert (datetime.now(UTC) - row["first_at"]).total_seconds() >= 90_000


async def test_external_spend_over_the_cap_leaves_the_books_right_and_the_ceiling_over_it(
    world: PostgresWorld, place: Place
) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    key = await world.key(project, cap=NanoUSD(10))
    await spend(world, project, 400)

    await world.api.record_usage(usage(project, 700, key_id=key.id))
    await world.api.record_usage(usage(project, 1))

    with psycopg.connect(place.superuser) as conn:
        rows = conn.execute(
            "SELECT scope, spent, cap, ceiling FROM budgets WHERE scope IN ('project', %s) ORDER BY scope DESC",
            [key.id],
        ).fetchall()
        kinds = conn.execute(
            "SELECT kind, attempt_id LIKE 'usage_%%', price_version FROM ledger WHERE kind = 'external'"
        ).fetchall()
    assert rows == [("project", 1_101, 1_000, 1_101), (key.id, 700, 10, 700)]
    assert kinds == [("external", True, "external")] * 2
    async with await psycopg.AsyncConnection.connect(place.worker) as conn:
        assert await ledger_difference(conn) == []


async def test_external_spend_and_reservations_at_once_never_lose_either(world: PostgresWorld, place: Place) -> None:
    project = await world.project(cap=NanoUSD(10_000))
    key = await world.key(project, cap=NanoUSD(9_000))
    await world.batch(project, 20, queue="large", key_id=key.id)
    tasks = await world.claim("large", limit=20)

    await asyncio.gather(
        *(world.reserve(task, 400) for task in tasks),
        *(world.api.record_usage(usage(project, 100, key_id=key.id)) for _ in range(20)),
    )

    project_sums, key_sums = await world.budget(project), await world.api.get_budget(project.id, scope=key.id)
    assert (project_sums.spent, key_sums.spent) == (2_000, 2_000)
    assert key_sums.reserved == project_sums.reserved >= 7_000 - 400
    async with await psycopg.AsyncConnection.connect(place.worker) as conn:
        assert await ledger_difference(conn) == []


async def test_an_alert_made_by_one_process_is_seen_by_a_sweeper_that_has_looked_before(world: PostgresWorld) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await spend(world, project, 900)
    assert (await world.sweep()).alerted == 0

    made = SpendAlert(AlertId(new_id(ids.ALERT)), project.id, AlertKind.PERCENT, 90, (), None, datetime.now(UTC))
    await world.api.create_alert(made)

    assert (await world.sweep()).alerted == 1
