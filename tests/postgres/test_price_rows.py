"""Price rows on real Postgres: what an older database's become, who may do what with them, and how a worker starts."""

import contextlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from cope.adapters.celery_wakeup import make_celery
from cope.adapters.postgres.migrate import downgrade, upgrade
from cope.bootstrap import open_worker
from cope.core.errors import Misconfigured, Unpriced
from cope.core.money import NanoUSD, Price
from cope.core.prices import PriceTable
from cope.settings import Settings
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


def settings(place: Place, **more: object) -> Settings:
    return Settings(
        worker_database_url=place.worker,
        secret_key=SecretStr(Fernet.generate_key().decode()),
        broker_url="",
        small_base_url="http://127.0.0.1:9/v1",
        small_model="small",
        large_base_url="http://127.0.0.1:9/v1",
        large_model="gpt-x",
        **more,  # type: ignore[arg-type]
    )


async def start(settings: Settings) -> PriceTable:
    """The prices that a worker process begins with."""
    async with contextlib.AsyncExitStack() as resources:
        return (await open_worker(settings, make_celery("memory://"), resources)).prices


async def test_a_worker_without_a_price_does_not_start_and_does_once_the_operator_has_added_one(
    world: PostgresWorld, place: Place
) -> None:
    with pytest.raises(Unpriced, match="cope prices add gpt-x --input"):
        await start(settings(place))
    later = Price("gpt-x", "1", NanoUSD(2), NanoUSD(1), NanoUSD(8), world.now() + timedelta(days=1), origin="operator")
    await world.api.add_prices([later])
    with pytest.raises(Unpriced, match="the next one begins at"):
        await start(settings(place))
    await world.api.add_prices([replace(later, version="2", effective_at=world.now())])

    prices = await start(settings(place))
    assert prices.at("gpt-x", world.now()).version == "2"
    assert {price.origin for price in await world.api.list_prices()} == {"shipped", "operator"}


async def test_a_row_of_a_file_that_was_changed_under_its_version_is_refused_at_the_start(
    world: PostgresWorld, place: Place, tmp_path: Path
) -> None:
    own = tmp_path / "prices.toml"
    row = 'version = "1"\n[[price]]\nid = "gpt-x"\neffective_at = "2024-01-01"\ninput = "2"\noutput = "{}"\n'
    own.write_text(row.format("8"))
    assert (await start(settings(place, prices_file=own))).at("gpt-x", NOON).version == "1"

    own.write_text(row.format("9"))
    with pytest.raises(Misconfigured, match=r"COPE_PRICES_FILE: .*give the new terms a new version"):
        await start(settings(place, prices_file=own))
