"""The limiters that every contract is tested on, all by one clock that the test holds."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from cope.adapters.local_limiter import LocalLimiter
from cope.adapters.postgres.limiter import PostgresLimiter
from cope.adapters.postgres.migrate import OWNER, WORKER, create_roles, upgrade
from cope.adapters.redis_limiter import RedisLimiter
from cope.core.limits.types import Pace
from cope.core.models import Endpoint, ModelCatalog, ModelEntry
from cope.core.prompts import BUILT_IN
from cope.core.stages import Tier
from cope.ports.limiter import Limiter
from cope_local.postgres import EmbeddedPostgres
from cope_local.redis import EmbeddedRedis

_DATABASE = "cope_limits"
_PASSWORD = "only-for-tests"


def model(*endpoints: Endpoint, name: str = "large") -> ModelEntry:
    """A paid model with these endpoints; each has its own account."""
    return ModelEntry(
        name,
        name,
        endpoints[0].base_url,
        Tier.LARGE,
        "instruct",
        4096,
        price_id="p",
        endpoints=endpoints,
    )


def endpoint(
    name: str = "only",
    *,
    rpm: int | None = None,
    tpm: int | None = None,
    concurrency: int | None = None,
    weight: float = 1.0,
    group: str | None = None,
    counts: str = "used",
) -> Endpoint:
    """An endpoint of an account and a group that no other test knows."""
    own = uuid.uuid4().hex
    return Endpoint(
        name,
        f"http://{own}/v1",
        f"sk-{own}",
        rpm,
        tpm,
        concurrency,
        weight=weight,
        limit_group=group or own,
        tpm_counts=counts,  # type: ignore[arg-type]
    )


@dataclass
class Bench:
    """Makes limiters of one kind; `now` is their clock, in seconds."""

    kind: str
    make: Callable[[ModelCatalog, Pace | None], Awaitable[Limiter]]
    now: float = 1_800_000_000.0

    async def limiter(self, *entries: ModelEntry, pace: Pace | None = None) -> Limiter:
        """Another process's limiter over the same books."""
        return await self.make(
            ModelCatalog({e.name: e for e in entries}, entries[0].name, entries[0].name, BUILT_IN), pace
        )


@pytest.fixture(scope="session")
def limits_database(postgres_cluster: EmbeddedPostgres) -> Iterator[str]:
    """A migrated database of this suite's own, as its worker role."""
    create_roles(
        postgres_cluster.url(),
        owner_password=_PASSWORD,
        api_password=_PASSWORD,
        worker_password=_PASSWORD,
        database=_DATABASE,
    )
    upgrade(postgres_cluster.url(_DATABASE, OWNER, _PASSWORD))
    return postgres_cluster.url(_DATABASE, WORKER, _PASSWORD)


@pytest.fixture(
    params=[
        "local",
        pytest.param("redis", marks=pytest.mark.integration),
        pytest.param("postgres", marks=pytest.mark.integration),
    ]
)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Limiters of one kind, closed after the test."""
    kind = request.param
    async with AsyncExitStack() as stack:
        bench = Bench(kind, lambda *_: None)  # type: ignore[arg-type, return-value]
        kept: dict[str, Limiter] = {}

        async def local(catalog: ModelCatalog, pace: Pace | None) -> Limiter:
            # One process's books are one object: another "process" is the same one.
            key = ",".join(place.group for entry in catalog.entries.values() for place in entry.places)
            return kept.setdefault(key, LocalLimiter(catalog, pace=pace, clock=lambda: bench.now))

        async def redis(catalog: ModelCatalog, pace: Pace | None) -> Limiter:
            server: EmbeddedRedis = request.getfixturevalue("redis_server")
            made = RedisLimiter(server.url, catalog, pace=pace, clock=lambda: bench.now)
            stack.push_async_callback(made.aclose)
            return made

        async def postgres(catalog: ModelCatalog, pace: Pace | None) -> Limiter:
            made = PostgresLimiter(
                request.getfixturevalue("limits_database"), catalog, pace=pace, clock=lambda: bench.now
            )
            stack.push_async_callback(made.aclose)
            await made.open()
            return made

        bench.make = {"local": local, "redis": redis, "postgres": postgres}[kind]
        yield bench


async def empty(server: EmbeddedRedis) -> None:
    """What an operator's FLUSHALL does."""
    client = Redis.from_url(server.url)
    await client.flushall()
    await client.aclose()
