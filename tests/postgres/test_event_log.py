"""What only the database's log has: partitions by the day, their end, an upgrade of what was there, one relay."""

import asyncio

import psycopg
import pytest
from cryptography.fernet import Fernet

from cope.adapters.postgres import PostgresApiStore, PostgresWorkerStore
from cope.adapters.postgres.migrate import downgrade, upgrade
from cope.core.ids import ProjectId
from tests.contracts.world import PostgresWorld, done
from tests.postgres.conftest import Place

pytestmark = pytest.mark.integration


def ask(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as conn:
        return conn.execute(query).fetchall()


async def test_a_dropped_day_is_the_logs_beginning_and_readers_learn_where_it_begins_now(
    world: PostgresWorld, place: Place
) -> None:
    project = await world.project()
    await world.finish_all(project)
    await world.sweep()
    # As if all of this had been logged two days ago.
    ask(place.superuser, "SELECT make_event_partition((now() AT TIME ZONE 'UTC')::date - 2)")
    with psycopg.connect(place.superuser, autocommit=True) as conn:
        conn.execute("UPDATE event_log SET logged_at = logged_at - interval '2 days'")
    await world.finish_all(project)
    await world.sweep()

    assert ask(place.worker, "SELECT drop_event_partitions((now() AT TIME ZONE 'UTC')::date - 1)") == [(1,)]

    bounds = await world.api.event_bounds(project.id)
    page = await world.api.read_events(project.id, after=0, limit=100)
    assert (bounds.start, bounds.head, bounds.missed(0), bounds.missed(2)) == (7, 12, 6, 4)
    assert [event.offset for event in page.events] == [7, 8, 9, 10, 11, 12]
    assert page.start == 7
    consumer = await world.api.put_consumer(project.id, "late", types=None, committed=2)
    assert (consumer.start, consumer.lag) == (7, 6)


async def test_a_log_of_which_nothing_is_kept_goes_on_with_its_next_offset(world: PostgresWorld, place: Place) -> None:
    project = await world.project()
    await world.finish_all(project)
    await world.sweep()
    with psycopg.connect(place.superuser, autocommit=True) as conn:
        conn.execute("TRUNCATE event_log")

    bounds = await world.api.event_bounds(project.id)
    assert (bounds.start, bounds.head) == (7, 6)
    await world.submit(project)
    await world.sweep()
    assert [event.offset for event in await world.events(project)] == [7]


async def test_todays_and_the_next_days_partitions_are_made_ahead(world: PostgresWorld, place: Place) -> None:
    await world.sweep()

    missing = ask(
        place.superuser,
        "SELECT n FROM generate_series(0, 2) n WHERE to_regclass("
        "'event_log_' || to_char((now() AT TIME ZONE 'UTC')::date + n, 'YYYY_MM_DD')) IS NULL",
    )
    assert missing == []
    assert ask(place.worker, "SELECT make_event_partition((now() AT TIME ZONE 'UTC')::date)") == [(False,)]


async def test_events_never_enter_the_log_at_an_earlier_time_than_those_before_them(
    world: PostgresWorld, place: Place
) -> None:
    project = await world.project()
    await world.finish_all(project)
    await world.sweep()
    with psycopg.connect(place.superuser, autocommit=True) as conn:
        conn.execute("UPDATE event_head SET logged_at = now() + interval '1 hour'")
    await world.finish_all(project)
    await world.sweep()

    rows = ask(place.superuser, 'SELECT logged_at FROM event_log ORDER BY "offset"')
    with psycopg.connect(place.superuser, autocommit=True) as conn:
        conn.execute("UPDATE event_head SET logged_at = now()")
    assert rows == sorted(rows)


async def test_only_one_process_relays_and_another_takes_over_when_it_ends(world: PostgresWorld, place: Place) -> None:
    other = PostgresWorkerStore(place.worker, secret_key=Fernet.generate_key().decode())
    await other.open()
    assert await other.try_lead_relay()
    assert await other.try_lead_relay()

    assert not await world.worker.try_lead_relay()
    await other.aclose()
    for _ in range(100):
        if await world.worker.try_lead_relay():
            break
        await asyncio.sleep(0.05)
    assert await world.worker.try_lead_relay()


async def test_a_database_with_events_is_upgraded_and_taken_back_without_losing_one(bare: Place) -> None:
    upgrade(bare.owner, "0010")
    with psycopg.connect(bare.superuser, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO projects (id, name, created_at, time_zone, default_kind, webhook_secret)"
            " SELECT 'proj_' || n, 'p', now(), 'UTC', 'math', 'x' FROM generate_series(1, 2) n"
        )
        conn.execute(
            "INSERT INTO events (id, project_id, batch_id, type, data)"
            " SELECT 'evt_' || n, 'proj_' || 1 + n %% 2, 'batch_1', 'batch.paused', '{}' FROM generate_series(1, 50) n"
            .replace("%%", "%")
        )  # fmt: skip
        conn.execute('UPDATE events SET "offset" = seq WHERE seq <= 40')
        conn.execute("UPDATE event_head SET last = 40")
    upgrade(bare.owner)
    secret = Fernet.generate_key().decode()
    api, worker = PostgresApiStore(bare.api, secret_key=secret), PostgresWorkerStore(bare.worker, secret_key=secret)
    await api.open()
    await worker.open()
    try:
        # A process of the version before numbers the rest by its own statement; it is numbered again.
        ask(bare.worker, 'UPDATE events SET "offset" = seq WHERE "offset" IS NULL RETURNING 1')
        assert await worker.sequence_events() == 50
        page = await api.read_events(ProjectId("proj_1"), after=0, limit=100)
    finally:
        await worker.aclose()
        await api.aclose()
    assert [event.offset for event in page.events] == list(range(1, 26))
    assert [event.id for event in page.events] == [f"evt_{n}" for n in range(2, 51, 2)]

    downgrade(bare.owner, "0010")
    assert ask(bare.superuser, 'SELECT count(*), count(DISTINCT "offset"), max("offset") FROM events') == [(50, 50, 50)]
    assert ask(bare.superuser, "SELECT last FROM event_head") == [(50,)]


async def test_an_old_worker_writes_and_numbers_events_beside_a_new_one(world: PostgresWorld, place: Place) -> None:
    project = await world.project()
    await world.batch(project)
    with psycopg.connect(place.worker, autocommit=True) as conn:
        numbered = conn.execute(
            """
            WITH fresh AS (
              SELECT seq, row_number() OVER (ORDER BY seq) AS place
              FROM (SELECT seq FROM events WHERE "offset" IS NULL ORDER BY seq LIMIT 20000) e
            ), head AS (
              UPDATE event_head SET last = last + (SELECT count(*) FROM fresh)
              WHERE id = 1 AND EXISTS (SELECT FROM fresh) RETURNING last
            )
            UPDATE events e SET "offset" = head.last - (SELECT count(*) FROM fresh) + fresh.place
            FROM fresh, head WHERE e.seq = fresh.seq
            """
        ).rowcount
    assert numbered == 2
    await world.commit(done(await world.claim_one()))

    assert [event.offset for event in await world.events(project)] == [1, 2, 3, 4, 5]
