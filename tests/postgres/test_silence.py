"""A database that says nothing and a worker that stands still: neither keeps anybody waiting for ever."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from cryptography.fernet import Fernet
from ops.bench.faults.proxy import Proxies

from cope.adapters.postgres import PostgresWorkerStore
from cope.adapters.postgres.database import Connection, Database, fetch
from cope.core.errors import StoreUnavailable
from cope_local.postgres import EmbeddedPostgres
from tests.postgres.conftest import Place

pytestmark = pytest.mark.integration


@pytest.fixture
def link(postgres_cluster: EmbeddedPostgres) -> Iterator[Proxies]:
    """A way to the database that can go wrong."""
    proxies = Proxies()
    proxies.add("postgres", postgres_cluster.port)
    yield proxies
    proxies.close()


def make_store(url: str, lease_s: float) -> PostgresWorkerStore:
    return PostgresWorkerStore(url, secret_key=Fernet.generate_key().decode(), lease_s=lease_s, max_size=2)


async def test_a_frozen_connection_is_given_up_after_a_lease_and_the_next_one_works(
    place: Place, postgres_cluster: EmbeddedPostgres, link: Proxies
) -> None:
    port = link.links["postgres"].port
    store = make_store(place.worker.replace(f":{postgres_cluster.port}/", f":{port}/"), lease_s=5.0)
    await store.open()
    try:
        assert await store.claim("small", worker="w", limit=1, lease_s=5.0) == []
        link.freeze("postgres")

        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(store.claim("small", worker="w", limit=1, lease_s=5.0), 20)
        assert await asyncio.wait_for(store.claim("small", worker="w", limit=1, lease_s=5.0), 20) == []
    finally:
        await store.aclose()


@pytest_asyncio.fixture
async def two_ways(
    place: Place, postgres_cluster: EmbeddedPostgres, link: Proxies
) -> AsyncIterator[tuple[Database, Database]]:
    """To one database: by the link, which frees what it holds after half a second, and straight."""
    port = link.links["postgres"].port
    away = place.worker.replace(f":{postgres_cluster.port}/", f":{port}/")
    cut_off = Database(away, min_size=0, max_size=1, name="cut-off", idle_s=0.5)
    other = Database(place.worker, min_size=0, max_size=1, name="other")
    await cut_off.open()
    await other.open()
    yield cut_off, other
    await cut_off.close()
    await other.close()


async def test_what_a_silent_link_holds_in_the_middle_of_a_transaction_is_free_again_soon(
    link: Proxies, two_ways: tuple[Database, Database]
) -> None:
    cut_off, other = two_ways

    async def cut_off_in_the_middle() -> None:
        async with cut_off.transaction(limit_s=6) as conn:
            await conn.execute("SELECT pg_advisory_xact_lock(77)")
            link.freeze("postgres")
            async with other.transaction(limit_s=5) as free:
                await free.execute("SELECT pg_advisory_xact_lock(77)")

    with pytest.raises(StoreUnavailable):
        await cut_off_in_the_middle()


async def test_what_a_silent_link_holds_in_the_middle_of_a_pipeline_is_free_again_soon(
    link: Proxies, two_ways: tuple[Database, Database]
) -> None:
    """There the server does not count itself as idle, whatever it waits for."""
    cut_off, other = two_ways

    async def taken(conn: Connection) -> bool:
        return bool(await fetch(conn, "SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 77 AND granted"))

    async def cut_off_in_the_middle() -> None:
        async with cut_off.connection(limit_s=8) as conn, conn.pipeline(), conn.transaction():
            await conn.execute("SELECT pg_advisory_xact_lock(77)")
            async with other.connection(limit_s=5) as looking:
                while not await taken(looking):
                    await asyncio.sleep(0.02)
            link.freeze("postgres")
            async with other.transaction(limit_s=5) as free:
                await free.execute("SELECT pg_advisory_xact_lock(77)")

    with pytest.raises(StoreUnavailable):
        await cut_off_in_the_middle()
    async with other.connection(limit_s=5) as looking:
        assert not await taken(looking)


async def test_a_transaction_may_take_as_long_as_it_was_allowed_to(place: Place) -> None:
    hasty = Database(place.worker, min_size=0, max_size=1, name="hasty", idle_s=0.2)
    await hasty.open()
    try:
        for limit_s in (5.0, None):
            async with hasty.transaction(limit_s=limit_s) as conn:
                await conn.execute("SELECT pg_sleep(1.5)")
        async with hasty.connection() as conn:
            rows = await fetch(conn, "SHOW transaction_timeout")
        assert rows == [{"transaction_timeout": "1200ms"}]
    finally:
        await hasty.close()


async def test_nobody_waits_in_the_server_for_a_client_that_has_hung_up(place: Place) -> None:
    holder, waiter = (Database(place.worker, min_size=0, max_size=1, name=name) for name in ("holder", "waiter"))
    await holder.open()
    await waiter.open()

    async def wait_too_long() -> None:
        async with waiter.transaction(limit_s=0.3) as late:
            await late.execute("SELECT pg_advisory_xact_lock(77)")

    try:
        async with holder.transaction() as conn:
            await conn.execute("SELECT pg_advisory_xact_lock(77)")
            with pytest.raises(StoreUnavailable):
                await wait_too_long()
            deadline = time.monotonic() + 10
            while await fetch(conn, "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
    finally:
        await holder.close()
        await waiter.close()


async def test_a_leader_that_stands_still_for_a_lease_is_followed_by_another(place: Place) -> None:
    still, other = make_store(place.worker, lease_s=0.5), make_store(place.worker, lease_s=0.5)
    await still.open()
    await other.open()
    try:
        assert await still.try_lead()
        assert not await other.try_lead()

        time.sleep(0.7)

        deadline = time.monotonic() + 10
        while not await other.try_lead():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert not await still.try_lead()
    finally:
        await still.aclose()
        await other.aclose()
