"""One migrated database for this folder, reached under each of its roles."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg import sql

from cope.adapters.postgres import PostgresApiStore, PostgresWorkerStore
from cope.adapters.postgres.migrate import API, OWNER, WORKER, create_roles, upgrade
from cope_local.postgres import EmbeddedPostgres
from tests.contracts.world import PostgresWorld

PASSWORD = "only-for-tests"


@dataclass(frozen=True)
class Place:
    """A database of this suite, as each role reaches it."""

    superuser: str
    owner: str
    api: str
    worker: str


def make_place(cluster: EmbeddedPostgres, database: str) -> Place:
    """A new, empty database with its three roles."""
    drop_place(cluster, database)
    create_roles(
        cluster.url(), owner_password=PASSWORD, api_password=PASSWORD, worker_password=PASSWORD, database=database
    )
    return Place(
        superuser=cluster.url(database),
        owner=cluster.url(database, OWNER, PASSWORD),
        api=cluster.url(database, API, PASSWORD),
        worker=cluster.url(database, WORKER, PASSWORD),
    )


def drop_place(cluster: EmbeddedPostgres, database: str) -> None:
    """Drop it, whoever is connected."""
    with psycopg.connect(cluster.url(), autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))


def _empty(place: Place) -> None:
    """No row left of the test before, and the events' offsets begin again."""
    with psycopg.connect(place.superuser, autocommit=True) as conn:
        rows = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        names = [sql.Identifier(name) for (name,) in rows if name not in {"alembic_version", "event_head"}]
        conn.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY CASCADE").format(sql.SQL(", ").join(names)))
        conn.execute("UPDATE event_head SET last = 0")


@pytest.fixture(scope="session")
def place(postgres_cluster: EmbeddedPostgres) -> Iterator[Place]:
    """Made by the real migrations."""
    made = make_place(postgres_cluster, "cope_postgres")
    upgrade(made.owner)
    yield made
    drop_place(postgres_cluster, "cope_postgres")


@pytest.fixture
def bare(postgres_cluster: EmbeddedPostgres) -> Iterator[Place]:
    """Without any table."""
    yield make_place(postgres_cluster, "cope_bare")
    drop_place(postgres_cluster, "cope_bare")


@pytest.fixture
async def world(place: Place) -> AsyncIterator[PostgresWorld]:
    """Both stores over an empty database, wide enough for many clients at once."""
    _empty(place)
    secret_key = Fernet.generate_key().decode()
    api = PostgresApiStore(place.api, secret_key=secret_key)
    worker = PostgresWorkerStore(place.worker, secret_key=secret_key, max_size=16)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(worker.aclose)
        stack.push_async_callback(api.aclose)
        await api.open()
        await worker.open()
        yield PostgresWorld(api, worker, place.superuser)
