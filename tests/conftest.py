"""Fixtures shared by all tests. Real servers are started by the tests themselves, once per process, and end with it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from cope_local.postgres import EmbeddedPostgres
from cope_local.redis import EmbeddedRedis

_PASSWORD = "only-for-tests"

# How long an example takes says what the machine is doing (in a new clone the first text builds a table for seconds),
# not whether the code is right: like every unit test, these do not judge by the clock.
settings.register_profile("cope", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("cope")


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder that an unprivileged server process can enter too (pytest's own temporary folders are closed)."""
    folder = Path(tempfile.mkdtemp(prefix="cope-tests-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_cluster(scratch: Path) -> Iterator[EmbeddedPostgres]:
    """A real Postgres server, empty, without its durability: nothing here outlives the tests."""
    settings = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    with EmbeddedPostgres(scratch / "postgres", password=_PASSWORD, settings=settings) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(scratch: Path) -> Iterator[EmbeddedRedis]:
    """A real Redis server."""
    with EmbeddedRedis(scratch / "redis", password=_PASSWORD) as server:
        yield server
