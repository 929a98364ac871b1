"""The stores of the contract suite: memory, and Postgres under its three roles."""

from tests.contracts.conftest import postgres_urls, world

__all__ = ["postgres_urls", "world"]
