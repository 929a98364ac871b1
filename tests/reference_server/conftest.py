"""Tiny models, and engines that end with their test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cope_reference.engine import Engine
from tests.reference_server.tiny import write_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that never ends by itself; context 256."""
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def long_winded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with room for more tokens than any test waits for."""
    return write_tiny(tmp_path_factory.mktemp("long"), context=1 << 17)


@pytest.fixture
def start() -> Iterator[Callable[..., Engine]]:
    """Start an engine on a folder."""
    engines = []

    def started(folder: Path, **options: Any) -> Engine:
        engines.append(Engine(folder, seed=7, **options))
        return engines[-1]

    yield started
    for engine in engines:
        engine.close()
