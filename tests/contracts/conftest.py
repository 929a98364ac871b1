"""The stores that every contract is tested on."""

import pytest

from tests.contracts.world import MemoryWorld, World


@pytest.fixture(params=["memory"])
def world(request: pytest.FixtureRequest) -> World:
    """A fresh, empty store."""
    return MemoryWorld()
