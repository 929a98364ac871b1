"""What an older database's price rows become, and who may see attempts to price them anew."""

from datetime import timedelta

import psycopg
import pytest

from cope.adapters.postgres.migrate import downgrade, upgrade
from cope.core.money import NanoUSD, Price
from tests.contracts.world import PostgresWorld, bill, done
from tests.postgres.conftest import Place
from tests.support import NOON

pytestmark = pytest.mark.integration


def test_batch_tiers_that_were_ids_become_a_tier_and_can_be_taken_back(bare: Place) -> None:
    upgrade(bare.owner, "0002")
    with psycopg.connect(bare.worker, autocommit=True) as conn:
        for price_id in ("gpt-x", "gpt-x:batch", ":batch"):
            conn.execute("INSERT INTO prices VALUES (%s, '2026-11-01', 2, 1, 8, '2024-08-06Z')", [price_id])
    upgrade(bare.owner)
    with psycopg.connect(bare.worker, autocommit=True) as conn:
        rows = conn.execute("SELECT price_id, tier, version, origin FROM prices ORDER BY 1, 2 DESC").fetchall()
    assert rows == [
        (":batch", "standard", "2026-11-01", "shipped"),
        ("gpt-x", "standard", "2026-11-01", "shipped"),
        ("gpt-x", "batch", "2026-11-01", "shipped"),
    ]
    downgrade(bare.owner, "0002")
    with psycopg.connect(bare.worker, autocommit=True) as conn:
        rows = conn.execute("SELECT price_id, version FROM prices ORDER BY 1").fetchall()
    assert sorted(rows) == [(":batch", "2026-11-01"), ("gpt-x", "2026-11-01"), ("gpt-x:batch", "2026-11-01")]


async def test_the_api_adds_rows_and_can_neither_change_nor_remove_one(world: PostgresWorld, place: Place) -> None:
    row = Price("gpt-x", "1", NanoUSD(2), NanoUSD(1), NanoUSD(8), NOON, origin="operator")
    await world.api.add_prices([row])
    for statement in ("UPDATE prices SET output_per_mtok = 1", "DELETE FROM prices"):
        with psycopg.connect(place.api) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(statement)


async def test_only_the_operators_question_sees_attempts_of_every_project(world: PostgresWorld, place: Place) -> None:
    for body in (b"one", b"two"):
        await world.live(await world.project(), queue="large", body=body)
        task = await world.claim_one("large")
        await world.commit(done(task, bills=(bill(await world.send(task, 1000), 200),), stage=3))
    row = Price("gpt-x", "1", NanoUSD(10**7), NanoUSD(10**7), NanoUSD(10**7), NOON)

    found = await world.api.reprice(row, models=["large"], since=world.now() - timedelta(days=1))
    assert (found.attempts, found.spent, found.repriced) == (2, 400, 600)
    with psycopg.connect(place.api) as conn:
        assert conn.execute("SELECT count(*) FROM attempts").fetchone() == (0,)
        conn.execute("SELECT set_config('cope.operator', 'on', true)")
        assert conn.execute("SELECT count(*) FROM attempts").fetchone() == (2,)
        assert conn.execute("UPDATE attempts SET cost = 0").rowcount == 0
