"""The migrations make exactly the tables that the code knows, and can be taken back."""

import threading

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import SchemaItem

from cope.adapters.postgres import PostgresApiStore, migrate
from cope.adapters.postgres.migrate import SCHEMA, alembic_config, create_roles, downgrade, upgrade
from cope.adapters.postgres.tables import METADATA
from cope.core.errors import StoreUnavailable
from tests.postgres.conftest import PASSWORD, Place

pytestmark = pytest.mark.integration

_CATALOGUE = {
    "columns": """
      SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name, is_identity
      FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
        AND table_name NOT IN (SELECT relname FROM pg_class WHERE relispartition)
      ORDER BY 1, 2
    """,
    "indexes": """
      SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'
        AND tablename NOT IN (SELECT relname FROM pg_class WHERE relispartition)
      ORDER BY 1
    """,
    "constraints": """
      SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
      WHERE connamespace = 'public'::regnamespace AND conrelid <> 'alembic_version'::regclass AND contype <> 'n'
        AND NOT (SELECT relispartition FROM pg_class WHERE oid = conrelid)
      ORDER BY 1, 2
    """,
}


def catalogue(url: str) -> dict[str, list[tuple[object, ...]]]:
    with psycopg.connect(url) as conn:
        return {name: conn.execute(query).fetchall() for name, query in _CATALOGUE.items()}


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as conn:
        rows = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return {name for (name,) in rows}


def no_partition(thing: SchemaItem, name: str | None, kind: str, _reflected: bool, _other: SchemaItem | None) -> bool:
    """Partitions are made while the service runs: the models know the whole tables alone."""
    table = name if kind == "table" else getattr(getattr(thing, "table", None), "name", None)
    return table is None or not table.startswith(("ledger_", "event_log_", "steps_"))


def engine_of(url: str) -> Engine:
    return create_engine(make_url(url).set(drivername="postgresql+psycopg"), poolclass=NullPool)


def set_passwords(place: Place, password: str) -> None:
    create_roles(
        place.superuser,
        owner_password=password,
        api_password=password,
        worker_password=password,
        database="cope_bare",
    )


def test_alembic_finds_no_difference_between_the_models_and_the_migrated_tables(place: Place) -> None:
    engine = engine_of(place.owner)
    with engine.connect() as conn:
        opts = {"compare_type": True, "compare_server_default": True, "include_object": no_partition}
        context = MigrationContext.configure(conn, opts=opts)
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_the_models_make_the_same_columns_indexes_and_constraints_as_the_migrations(place: Place, bare: Place) -> None:
    engine = engine_of(bare.owner)
    with engine.begin() as conn:
        METADATA.create_all(conn)
        conn.exec_driver_sql("CREATE TABLE alembic_version ()")
    engine.dispose()
    assert catalogue(bare.superuser) == catalogue(place.superuser)


def test_upgrading_taking_it_back_and_upgrading_again_ends_where_it_began(bare: Place, place: Place) -> None:
    upgrade(bare.owner)
    downgrade(bare.owner)
    assert tables(bare.superuser) == {"alembic_version"}
    upgrade(bare.owner)
    upgrade(bare.owner)
    assert catalogue(bare.superuser) == catalogue(place.superuser)


def test_an_upgrade_that_meets_the_locks_of_running_work_waits_without_holding_others_up_and_then_goes_through(
    bare: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_LOCK_WAIT_S", 0.1)
    upgrade(bare.owner, "0011")
    with psycopg.connect(bare.superuser) as busy:
        busy.execute("LOCK TABLE tasks IN ROW EXCLUSIVE MODE")
        threading.Timer(0.8, busy.commit).start()
        upgrade(bare.owner)
        assert busy.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
    with psycopg.connect(bare.superuser) as conn:
        assert conn.execute("SELECT version_num FROM alembic_version").fetchone() == (SCHEMA,)


def test_the_code_names_the_newest_revision_as_its_schema(place: Place) -> None:
    engine = engine_of(place.owner)
    with engine.connect() as conn:
        assert ScriptDirectory.from_config(alembic_config(conn)).get_current_head() == SCHEMA
    engine.dispose()


def test_roles_can_be_made_again_and_then_have_the_new_passwords(bare: Place) -> None:
    create_roles(
        bare.superuser,
        owner_password="another",
        api_password="another",
        worker_password="another",
        database="cope_bare",
    )
    try:
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(bare.api)
        with psycopg.connect(bare.api.replace(PASSWORD, "another")) as conn:
            assert conn.execute("SELECT current_user").fetchone() == ("cope_api",)
    finally:
        create_roles(
            bare.superuser,
            owner_password=PASSWORD,
            api_password=PASSWORD,
            worker_password=PASSWORD,
            database="cope_bare",
        )


async def test_an_api_over_an_unmigrated_database_says_so(bare: Place, place: Place) -> None:
    key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    good = PostgresApiStore(place.api, secret_key=key)
    await good.open()
    await good.ping()
    await good.aclose()
    with psycopg.connect(bare.owner, autocommit=True) as conn:
        conn.execute("CREATE TABLE alembic_version (version_num text)")
        conn.execute("INSERT INTO alembic_version VALUES ('0000')")
        conn.execute("GRANT SELECT ON alembic_version TO cope_api")
    old = PostgresApiStore(bare.api, secret_key=key)
    await old.open()
    with pytest.raises(StoreUnavailable, match="run the migrations"):
        await old.ping()
    await old.aclose()
