"""The stores that every contract is tested on: in memory, and on real Postgres under its three roles."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg import sql

from cope.adapters.postgres.api_store import PostgresApiStore
from cope.adapters.postgres.migrate import API, OWNER, WORKER, create_roles, upgrade
from cope.adapters.postgres.worker_store import PostgresWorkerStore
from cope_local.postgres import EmbeddedPostgres
from tests.contracts.s3_server import S3Server, running_s3
from tests.contracts.world import MemoryWorld, PostgresWorld, World

_DATABASE = "cope_contracts"
_PASSWORD = "only-for-tests"


@dataclass(frozen=True)
class Urls:
    """One migrated database, as each role reaches it."""

    superuser: str
    api: str
    worker: str


@pytest.fixture(scope="session")
def postgres_urls(postgres_cluster: EmbeddedPostgres) -> Iterator[Urls]:
    """A database of the suite's own, made by the real migrations."""
    yield from migrated(postgres_cluster, _DATABASE)


def migrated(postgres_cluster: EmbeddedPostgres, database: str) -> Iterator[Urls]:
    """A database of this name, made by the real migrations and dropped at the end."""
    create_roles(
        postgres_cluster.url(),
        owner_password=_PASSWORD,
        api_password=_PASSWORD,
        worker_password=_PASSWORD,
        database=database,
    )
    upgrade(postgres_cluster.url(database, OWNER, _PASSWORD))
    yield Urls(
        superuser=postgres_cluster.url(database),
        api=postgres_cluster.url(database, API, _PASSWORD),
        worker=postgres_cluster.url(database, WORKER, _PASSWORD),
    )
    # Another suite may make its own databases in the same server; connections must not keep this one alive.
    with psycopg.connect(postgres_cluster.url(), autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A server of the S3 protocol."""
    with running_s3() as server:
        yield server


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A fresh, empty store."""
    if request.param == "memory":
        yield MemoryWorld()
        return
    urls: Urls = request.getfixturevalue("postgres_urls")
    _empty(urls.superuser)
    secret_key = Fernet.generate_key().decode()
    api = PostgresApiStore(urls.api, secret_key=secret_key)
    worker = PostgresWorkerStore(urls.worker, secret_key=secret_key)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(worker.aclose)
        stack.push_async_callback(api.aclose)
        await api.open()
        await worker.open()
        yield PostgresWorld(api, worker, urls.superuser)


def _empty(superuser_url: str) -> None:
    """No row left of the test before, and the events' offsets begin again."""
    with psycopg.connect(superuser_url, autocommit=True) as conn:
        tables = conn.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            " AND tablename NOT IN ('alembic_version', 'event_head')"
        ).fetchall()
        names = sql.SQL(", ").join(sql.Identifier(name) for (name,) in tables)
        conn.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY CASCADE").format(names))
        conn.execute("UPDATE event_head SET last = 0")
