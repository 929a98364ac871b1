"""The stores of the contract suite: memory, and Postgres under its three roles, in a database of this suite's own."""

from collections.abc import Iterator

import pytest

from cope_local.postgres import EmbeddedPostgres
from tests.contracts.conftest import Urls, migrated, world

__all__ = ["postgres_urls", "world"]


@pytest.fixture(scope="session")
def postgres_urls(postgres_cluster: EmbeddedPostgres) -> Iterator[Urls]:
    """Made by the real migrations."""
    yield from migrated(postgres_cluster, "cope_provider")
