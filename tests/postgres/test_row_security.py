"""A project sees only its own rows, and a transaction that names no project sees none."""

from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from cope.core.alerts import AlertKind
from cope.core.audit_sampling import WHOLE
from cope.core.ids import ProjectId, ProviderBatchId
from cope.core.money import NanoUSD
from cope.ports.provider_batches import GatherRequest
from cope.ports.store import Granted, WebhookOutcome
from tests.contracts import test_quotes
from tests.contracts.test_alerts import alert
from tests.contracts.test_external_usage import usage
from tests.contracts.world import PostgresWorld, accepted, ask, done
from tests.postgres.conftest import Place
from tests.support import finished_step, make_endpoint, make_key

pytestmark = pytest.mark.integration

PROJECT_TABLES = [
    "api_keys",
    "files",
    "blobs",
    "batches",
    "quotes",
    "batch_ends",
    "batch_pace",
    "batch_retries",
    "appended_lines",
    "tasks",
    "steps",
    "attempts",
    "audits",
    "audit_population",
    "provider_lines",
    "ledger",
    "budgets",
    "events",
    "event_log",
    "event_heads",
    "event_consumers",
    "webhook_endpoints",
    "webhook_old_secrets",
    "webhook_troubles",
    "deliveries",
    "spend_alerts",
    "usage_records",
    "budget_holds",
]


async def fill(world: PostgresWorld) -> str:
    """A project with rows in every table."""
    project = await world.project(cap=NanoUSD(10_000))
    await world.api.create_key(make_key(project.id, secret=f"sk-{project.id}"))
    endpoint = await world.api.create_endpoint(make_endpoint(project.id))
    await world.api.rotate_endpoint_secret(project.id, endpoint.id, "whsec_AAAA", keep_old_s=86_400)
    await world.api.put_consumer(project.id, "group", types=None, committed=0)
    await alert(world, project, AlertKind.AMOUNT, 100)
    await world.api.record_usage(usage(project, 10))
    batch = await world.batch(project, 1, queue="large")
    task = await world.claim_one("large")
    granted = await world.reserve(task, 10)
    assert granted
    await world.api.set_audit_share(project.id, WHOLE)
    await world.commit(replace(done(task, step=finished_step()), audit=accepted()))
    assert (await world.see(batch)).done == 1
    await world.finish(batch)
    (told,) = await world.worker.claim_deliveries(limit=1, lease_s=30)
    await world.worker.finish_deliveries([WebhookOutcome(told.id, False, 300, 500, None, "")])
    await test_quotes.ask(world, project)
    dry_run = await world.worker.claim_validation(lease_s=30)
    assert dry_run is not None
    await world.worker.fail_validation(dry_run, [])
    await world.live(project, queue="large")
    await world.hold(await world.claim_one("large"), 10**9)
    await world.sweep()
    await world.batch(project, 1, queue="large")
    waits = ask(await world.claim_one("large"), 10)
    (gathered,) = await world.worker.gather([GatherRequest(waits, "{}")])  # type: ignore[attr-defined]
    assert isinstance(gathered, Granted)
    await world.worker.form_provider_batch(  # type: ignore[attr-defined]
        ProviderBatchId(f"pbat_{project.id}"), "large", lines=9, size=999, lease_s=30
    )
    with psycopg.connect(world._superuser_url) as conn:  # as the sweep does, every few seconds
        conn.execute(
            "INSERT INTO batch_pace (batch_id, project_id, small_steps, large_steps, leased) VALUES (%s, %s, 1, 0, 0)",
            [batch.id, project.id],
        )
        conn.execute(
            "INSERT INTO batch_retries (batch_id, project_id, parent_id, lines) VALUES (%s, %s, 'batch_x', '{}')",
            [batch.id, project.id],
        )
        conn.execute(
            "INSERT INTO appended_lines (batch_id, project_id, name, digest) VALUES (%s, %s, 'n', 'd')",
            [batch.id, project.id],
        )
    return project.id


def count(conn: psycopg.Connection, table: str) -> int:
    row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
    assert row is not None
    return row[0]


def as_project(conn: psycopg.Connection, project_id: str) -> None:
    conn.execute("SELECT set_config('cope.project', %s, true)", [project_id])


async def test_without_a_project_the_api_role_sees_no_row_of_any_table(world: PostgresWorld, place: Place) -> None:
    await fill(world)
    with psycopg.connect(place.api) as conn:
        every = [*PROJECT_TABLES, "projects", "provider_batches"]
        assert {table: count(conn, table) for table in every} == dict.fromkeys(every, 0)


async def test_even_the_owner_of_the_tables_sees_no_row(world: PostgresWorld, place: Place) -> None:
    await fill(world)
    with psycopg.connect(place.owner) as conn:
        assert [table for table in PROJECT_TABLES if count(conn, table)] == []


async def test_a_project_sees_its_own_rows_in_every_table_and_nobody_elses(world: PostgresWorld, place: Place) -> None:
    mine, theirs = await fill(world), await fill(world)
    for one in (mine, theirs):  # an event that no sweep has moved into the log yet
        await world.api.update_project(ProjectId(one), paused=True)
    with psycopg.connect(place.api) as conn:
        as_project(conn, mine)
        assert [table for table in PROJECT_TABLES if not count(conn, table)] == []
        for table in PROJECT_TABLES:
            if table != "steps":
                query = sql.SQL("SELECT DISTINCT project_id FROM {}").format(sql.Identifier(table))
                assert conn.execute(query).fetchall() == [(mine,)]
        assert count(conn, "steps") == 1
        assert conn.execute("SELECT id FROM provider_batches").fetchall() == [(f"pbat_{mine}",)]
        assert conn.execute("SELECT id FROM projects").fetchall() == [(mine,)]
        assert conn.execute("UPDATE tasks SET note = 'x' WHERE project_id = %s", [theirs]).rowcount == 0


async def test_a_row_of_another_project_can_not_be_written(world: PostgresWorld, place: Place) -> None:
    mine, theirs = await fill(world), await fill(world)
    with psycopg.connect(place.api) as conn:
        as_project(conn, mine)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(
                "INSERT INTO events (id, project_id, type, data) VALUES ('evt_1', %s, 'forged', '{}')", [theirs]
            )


async def test_the_ledger_and_the_prices_can_only_be_added_to(world: PostgresWorld, place: Place) -> None:
    await fill(world)
    for url in (place.api, place.worker):
        for statement in (
            "UPDATE ledger SET amount = 0",
            "DELETE FROM ledger",
            "UPDATE prices SET output_per_mtok = 0",
        ):
            with psycopg.connect(url) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement)


async def test_a_task_that_names_no_batch_is_seen_by_its_id_alone_and_a_batchs_task_is_not(
    world: PostgresWorld, place: Place
) -> None:
    project = await world.project()
    batch = await world.batch(project, 1)
    live = await world.live(project)
    page = await world.api.list_tasks(project.id, batch.id, state=None, after=None, limit=10)
    with psycopg.connect(place.api) as conn:
        conn.execute("SELECT set_config('cope.live_ids', %s, true)", [f"{live},{page.items[0].id}"])
        assert conn.execute("SELECT id FROM tasks").fetchall() == [(live,)]


async def test_webhook_secrets_are_not_readable_in_the_tables(world: PostgresWorld, place: Place) -> None:
    project = await world.project(secret="whsec_dGhlIHByb2plY3QncyBzZWNyZXQ=")
    await world.api.create_endpoint(make_endpoint(project.id, secret="whsec_dGhlIGVuZHBvaW50J3Mgc2VjcmV0"))
    with psycopg.connect(place.superuser) as conn:
        stored = conn.execute(
            "SELECT webhook_secret FROM projects WHERE id = %(id)s UNION ALL "
            "SELECT secret FROM webhook_endpoints WHERE project_id = %(id)s",
            {"id": project.id},
        ).fetchall()
    assert len(stored) == 2
    assert not any("whsec_" in secret for (secret,) in stored)
