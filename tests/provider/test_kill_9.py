"""kill -9 of the whole worker process around every request that it makes to the provider."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from cryptography.fernet import Fernet

from cope.adapters.postgres.money import ledger_difference
from cope.adapters.postgres.worker_store import PostgresWorkerStore
from tests.contracts.conftest import Urls
from tests.contracts.world import World
from tests.provider.scene import HALF_COST, Scene
from tests.provider.stand_in import BatchStandIn

pytestmark = pytest.mark.timeout(180)
_LINES = 8


@pytest.fixture
def provider() -> Iterator[BatchStandIn]:
    stand_in = BatchStandIn(done_after_s=0.3)
    yield stand_in
    stand_in.close()


class Process:
    """The worker, begun again after each death."""

    def __init__(self, urls: Urls, provider: BatchStandIn) -> None:
        self._arguments = [urls.worker, provider.base_url, Fernet.generate_key().decode()]
        self._process: subprocess.Popen[bytes] | None = None
        self.deaths = 0

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.provider.upkeep_process", *self._arguments]
        self._process = subprocess.Popen(command)

    def kill(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.deaths += 1

    def dead(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@pytest.mark.parametrize("world", [pytest.param("postgres", marks=pytest.mark.integration)], indirect=True)
@pytest.mark.parametrize(
    ("request_name", "when"),
    [
        ("upload", "before"),
        ("upload", "after"),
        ("create", "before"),
        ("create", "after"),
        ("create", "answered"),
        ("retrieve", "after"),
        ("content", "after"),
        ("content", "answered"),
    ],
)
async def test_nothing_is_paid_twice_and_no_line_is_lost(
    world: World, postgres_urls: Urls, provider: BatchStandIn, request_name: str, when: str
) -> None:
    scene = Scene(world)
    batch = await scene.submit(_LINES)
    process = Process(postgres_urls, provider)

    def kill_once(moment: str) -> None:
        if moment == when:
            provider.hooks.clear()
            process.kill()

    provider.hooks[request_name] = kill_once
    process.start()
    try:
        deadline = time.monotonic() + 90
        while (seen := await world.see(batch)).done < _LINES:
            assert time.monotonic() < deadline, (await world.states(batch), provider.asked)
            if process.dead():
                process.start()
            await asyncio.sleep(0.1)
    finally:
        process.stop()

    assert process.deaths == 1
    assert sorted(set(provider.billed)) == sorted(provider.billed)
    assert (len(provider.billed), provider.live, len(provider.batches)) == (_LINES, 0, 1)
    budget = await scene.budget(batch)
    assert (seen.spent, budget.spent, budget.reserved, budget.unconfirmed) == (
        _LINES * HALF_COST,
        _LINES * HALF_COST,
        0,
        0,
    )
    assert isinstance(world.worker, PostgresWorkerStore)
    async with world.worker._db.connection() as conn:
        assert await ledger_difference(conn) == []
