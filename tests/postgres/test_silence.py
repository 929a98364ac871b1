"""A database that says nothing and a worker that stands still: neither keeps anybody waiting for ever."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from cryptography.fernet import Fernet
from ops.bench.faults.proxy import Proxies

from cope.adapters.postgres import PostgresWorkerStore
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
