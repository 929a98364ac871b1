"""One worker child: a single asyncio loop in a thread of its own, from fork to exit.

The loop owns everything that waits: claims, model calls, leases, commits. Celery's side of the child only pokes it.
It never stops between jobs: a loop that ran only inside a job would freeze between them, and leases would run out.
"""

import asyncio
import contextlib
import gc
import logging
import mmap
import os
import socket
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Protocol

from celery import Celery

from cope.bootstrap import WorkerParts, open_event_sink, open_worker
from cope.core.errors import Misconfigured, Unpriced
from cope.settings import Settings
from cope.usecases.deliver_webhooks import Courier
from cope.usecases.drain import Drainer
from cope.usecases.provider_batches import ProviderBatcher
from cope.usecases.relay_events import Relay
from cope.usecases.retention import Retention
from cope.usecases.sweep import Sweeper
from cope.usecases.upkeep import Upkeep
from cope.usecases.watch_prices import watch_prices

logger = logging.getLogger(__name__)

_RETRY_START_S = 2.0
_HEARTBEAT_S = 5.0
ALIVE = Path(tempfile.gettempdir()) / "cope-worker-alive"


class _Runner(Protocol):
    def poke(self) -> None: ...
    def run(self, stopping: Any) -> Coroutine[Any, Any, None]: ...


class StopFlag:
    """One byte shared by the parent and every child forked after it was made: 1 means stop claiming."""

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)

    def raise_(self) -> None:
        """Tell every process."""
        self._byte[0] = 1

    def __call__(self) -> bool:
        """Whether it was raised."""
        return self._byte[0] == 1


class WorkerProcess:
    """The loop's thread and the runners in it."""

    def __init__(self, app: Celery, queues: tuple[str, ...], stopping: StopFlag) -> None:
        self._app = app
        self._queues = queues
        self._stopping = stopping
        self._runners: dict[str, _Runner] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._main, name="cope-loop")

    def start(self) -> None:
        """Begin; call after the fork."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait until the loop has ended: claims stopped, paid calls committed."""
        self._thread.join(timeout_s)

    def poke(self, queue: str) -> None:
        """Wake the runner of `queue`, from any thread."""
        loop, runner = self._loop, self._runners.get(queue)
        if loop is not None and runner is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just closed
                loop.call_soon_threadsafe(runner.poke)

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except Misconfigured as wrong:
            logger.critical("%s", wrong)
            os._exit(2)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        settings = Settings()
        async with contextlib.AsyncExitStack() as resources:
            parts = await self._open(settings, resources)
            if parts is None:
                return
            self._runners = {queue: _runner(queue, parts, settings) for queue in self._queues}
            sweeper = Sweeper(parts, lease_s=settings.lease_s, every_s=settings.sweep_s)
            heartbeat = asyncio.create_task(_heartbeat())
            try:
                async with asyncio.TaskGroup() as group:
                    for runner in self._runners.values():
                        group.create_task(runner.run(self._stopping))
                    group.create_task(sweeper.run(self._stopping))
                    group.create_task(watch_prices(parts, self._stopping))
                    if "upkeep" in self._queues:
                        group.create_task(ProviderBatcher(parts, lease_s=settings.lease_s).run(self._stopping))
                        new_sink = open_event_sink(settings)
                        if new_sink is not None:
                            group.create_task(Relay(parts.store, new_sink).run(self._stopping))
                        group.create_task(Retention(parts, settings.keeping).run(self._stopping))
            finally:
                heartbeat.cancel()

    async def _open(self, settings: Settings, resources: contextlib.AsyncExitStack) -> WorkerParts | None:
        while not self._stopping():
            attempt = contextlib.AsyncExitStack()
            try:
                parts = await open_worker(settings, self._app, attempt)
            except Unpriced as missing:
                # The API serves meanwhile, and takes the command that the message holds.
                await attempt.aclose()
                logger.warning("no work is begun: %s", missing)
                await asyncio.sleep(_RETRY_START_S)
            except Misconfigured:
                await attempt.aclose()
                raise
            except Exception as away:
                await attempt.aclose()
                logger.warning("can't start yet (%s: %s); trying again", type(away).__name__, away)
                await asyncio.sleep(_RETRY_START_S)
            else:
                resources.push_async_exit(attempt)
                return parts
        return None


async def _heartbeat() -> None:
    """Touch a file while the loop turns: what a container's health check looks at."""
    while True:
        ALIVE.touch()
        await asyncio.sleep(_HEARTBEAT_S)


def _runner(queue: str, parts: WorkerParts, settings: Settings) -> _Runner:
    if queue == "upkeep":
        return Upkeep(parts, lease_s=settings.lease_s)
    if queue == "webhooks":
        return Courier(parts, timeout_s=settings.webhook_timeout_s, schedule=settings.webhook_schedule)
    concurrency = settings.small_concurrency if queue == "small" else settings.large_concurrency
    worker = f"{socket.gethostname()}:{os.getpid()}:{queue}"
    return Drainer(parts, queue=queue, worker=worker, concurrency=concurrency, lease_s=settings.lease_s)


_current: WorkerProcess | None = None


def begin(app: Celery, queues: tuple[str, ...], stopping: StopFlag) -> None:
    """Start this child's loop."""
    global _current
    # What was made before the fork stays; a young generation of 700 objects is swept several times a page of rows.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    _current = WorkerProcess(app, queues, stopping)
    _current.start()


def end(timeout_s: float) -> None:
    """Wait for this child's loop."""
    if _current is not None:
        _current.join(timeout_s)


def poke(queue: str) -> None:
    """Wake this child's runner of `queue`, if there is one."""
    if _current is not None:
        _current.poke(queue)
