"""The loop of a worker process: claim, run, commit, renew. It owns every lease of its process.

At most `concurrency` model calls are in flight. As many tasks are claimed as keep those busy, plus one task's worth in
hand, so that the model server never waits for the database.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cope.core.errors import StoreUnavailable
from cope.core.ids import TaskId
from cope.core.policies.registry import next_decision
from cope.core.stages import Step
from cope.core.waves import launched
from cope.ports.answer_pool import Pooled, PoolQuestion
from cope.ports.provider_batches import GatherRequest, ProviderBatchStore
from cope.ports.store import (
    ClaimedTask,
    CommitStatus,
    GiveBack,
    Granted,
    Lease,
    ReserveRequest,
    ReserveResult,
    Settlement,
    StepCommit,
    ToQueue,
)
from cope.ports.support import WakeUp
from cope.usecases.claim_pace import ClaimPace
from cope.usecases.grouping import Grouper
from cope.usecases.run_step import StepParts, StepRun
from cope.usecases.suspects import most_beside

logger = logging.getLogger(__name__)

IDLE_POLL_S = 1.0
LOOK_OUT_S = 0.5
_FAILURE_PAUSE_S = 1.0
_TYPICAL_CHAINS = 8
_FIRST_CLAIM = 4
_STOP_CHECK_S = 0.25
_COMMIT_ATTEMPTS = 8


class DrainParts(StepParts, Protocol):
    """What the loop needs beside what its steps need."""

    @property
    def store(self) -> ProviderBatchStore: ...
    @property
    def wake(self) -> WakeUp: ...


@dataclass(slots=True)
class _Running:
    task: ClaimedTask
    run: StepRun
    handle: "asyncio.Task[None]"


class GroupedLedger:
    """`StepLedger` over the store: what many tasks want at once becomes one statement."""

    def __init__(self, store: ProviderBatchStore, wake: WakeUp) -> None:
        self._store = store
        self._wake = wake
        self.live: set[TaskId] = set()
        self._reserve: Grouper[ReserveRequest, ReserveResult] = Grouper(store.reserve)
        self._gather: Grouper[GatherRequest, ReserveResult] = Grouper(store.gather)
        self._sent: Grouper[Granted, bool] = Grouper(self._mark_group)
        self._pooled: Grouper[PoolQuestion, tuple[Pooled, ...]] = Grouper(store.pooled)
        self._commit: Grouper[StepCommit, CommitStatus] = Grouper(self._commit_group)
        self._back: Grouper[GiveBack, None] = Grouper(self._back_group)

    async def reserve(self, request: ReserveRequest) -> ReserveResult:
        return await self._reserve.submit(request)

    async def gather(self, request: GatherRequest) -> ReserveResult:
        return await self._gather.submit(request)

    async def mark_sent(self, granted: Granted) -> bool:
        return await self._sent.submit(granted)

    async def pooled(self, question: PoolQuestion) -> tuple[Pooled, ...]:
        return await self._pooled.submit(question)

    async def commit(self, commit: StepCommit) -> CommitStatus:
        return await _until_done(lambda: self._commit.submit(commit))

    async def give_back(self, back: GiveBack) -> None:
        await _until_done(lambda: self._back.submit(back))

    async def store_late_answer(self, settlement: Settlement, answer: str) -> None:
        await _until_done(lambda: self._store.store_late_answer(settlement, answer))

    async def _mark_group(self, group: Sequence[Granted]) -> Sequence[bool]:
        marked = await self._store.mark_sent([granted.attempt_id for granted in group])
        return [granted.attempt_id in marked for granted in group]

    async def _commit_group(self, group: Sequence[StepCommit]) -> Sequence[CommitStatus]:
        statuses = await self._store.commit(group)
        for queue in {c.next.queue for c in group if isinstance(c.next, ToQueue)}:
            await self._wake.poke(queue)
        ended = [c.task_id for c in group if not isinstance(c.next, ToQueue)]
        live = [task_id for task_id in ended if task_id in self.live]
        if live:
            await self._wake.announce(live)
        if ended:
            await self._wake.poke("upkeep")
        return statuses

    async def _back_group(self, group: Sequence[GiveBack]) -> Sequence[None]:
        await self._store.give_back(group)
        return [None] * len(group)


T = TypeVar("T")


async def _until_done(act: Callable[[], Awaitable[T]]) -> T:
    """Repeat what must not be lost while the database is away.

    Commits are fenced and settlements idempotent: repeating one that went through unseen changes nothing.
    """
    for attempt in range(_COMMIT_ATTEMPTS - 1):
        try:
            return await act()
        except StoreUnavailable:
            logger.warning("the database is away; the result is kept and written again")
            await asyncio.sleep(min(_FAILURE_PAUSE_S * 2**attempt, 10.0))
    return await act()


class Drainer:
    """Drains one queue until told to stop. `poke` shortens the idle wait; unpoked, it polls once a second."""

    def __init__(self, parts: DrainParts, *, queue: str, worker: str, concurrency: int, lease_s: float) -> None:
        self._parts = parts
        self._queue = queue
        self._worker = worker
        self._concurrency = concurrency
        self._lease_s = lease_s
        self._ledger = GroupedLedger(parts.store, parts.wake)
        self._gate = asyncio.Semaphore(concurrency)
        self._wake = asyncio.Event()
        self._running: dict[TaskId, _Running] = {}
        self._one_ended = asyncio.Event()
        self._chains = 0
        self._typical_chains = float(_TYPICAL_CHAINS if queue == "small" else 1)
        self._pace = ClaimPace(concurrency + 1, first=None if queue == "small" else _FIRST_CLAIM)

    @property
    def in_flight(self) -> int:
        """Tasks under lease in this process."""
        return len(self._running)

    def poke(self) -> None:
        """There may be work. Call from the loop's own thread (`loop.call_soon_threadsafe` from another)."""
        self._wake.set()

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Until `stopping()` is true; then no claim is made, unpaid steps are given back, paid calls are awaited."""
        watchers = [asyncio.create_task(self._renew_forever()), asyncio.create_task(self._look_out_forever())]
        try:
            while not stopping():
                claimed = await self._claim()
                if not claimed:
                    await self._wait(stopping)
        finally:
            await self._finish()
            for watcher in watchers:
                watcher.cancel()
            await asyncio.gather(*watchers, return_exceptions=True)

    # ---- claiming --------------------------------------------------------------------------------------------------

    async def _claim(self) -> int:
        wanted = self._wanted()
        if wanted <= 0:
            return 0
        self._wake.clear()
        try:
            tasks = await self._parts.store.claim(self._queue, worker=self._worker, limit=wanted, lease_s=self._lease_s)
        except Exception:
            logger.warning("claiming from %r failed; trying again", self._queue, exc_info=True)
            await asyncio.sleep(_FAILURE_PAUSE_S)
            return 0
        for task in tasks:
            self._start(task)
        return len(tasks)

    def _wanted(self) -> int:
        """Tasks to claim so that every call slot is busy and about one task waits in hand."""
        if self._chains >= self._concurrency + self._typical_chains:
            return 0
        free = self._concurrency + self._typical_chains - self._chains
        room = self._pace.room(len(self._running), now=asyncio.get_running_loop().time())
        room = min(room, most_beside(r.task.crashes for r in self._running.values()) - len(self._running))
        return min(int(free // self._typical_chains), room)

    def _start(self, task: ClaimedTask) -> None:
        decision = next_decision(task.spec, task.history)
        # Chains of later waves count from when they are launched: most of them never are.
        chains = launched(decision.waves, decision.n, 0) if isinstance(decision, Step) else 0
        if chains:
            self._typical_chains += (chains - self._typical_chains) / 16
        self._chains += chains
        ended = _Countdown(chains, self._chain_ended)
        run = StepRun(
            *(self._parts, self._ledger, task),
            gate=self._gate,
            on_chain_end=ended.one,
            on_limited=self._put_off,
            on_more_chains=ended.more,
        )
        handle = asyncio.create_task(self._carry_out(task, run, ended))
        self._running[task.task_id] = _Running(task, run, handle)
        if task.batch_id is None and not task.is_audit:
            self._ledger.live.add(task.task_id)

    def _chain_ended(self, count: int) -> None:
        self._chains -= count
        if self._wanted() > 0:
            self._wake.set()

    def _put_off(self, wait_s: float) -> None:
        if wait_s > 0:
            self._pace.refused(wait_s, now=asyncio.get_running_loop().time())
        else:
            self._pace.granted(now=asyncio.get_running_loop().time())

    async def _carry_out(self, task: ClaimedTask, run: StepRun, ended: "_Countdown") -> None:
        try:
            while len(self._running) > most_beside([task.crashes]):
                # It may bring this process down: it waits until few others are here. Meanwhile none is claimed, so of
                # two suspects only one ever waits.
                self._one_ended.clear()
                await self._one_ended.wait()
            await run.run()
        except asyncio.CancelledError:
            raise
        except Exception:
            # A defect or an outage of the store: the lease runs out and the task is reclaimed; nothing is lost.
            logger.exception("task %s: the step could not be carried out", task.task_id)
        finally:
            self._running.pop(task.task_id, None)
            self._one_ended.set()
            self._ledger.live.discard(task.task_id)
            ended.all()
            if task.crashes and self._wanted() > 0:
                self._wake.set()  # this one's chains may have ended while it still kept others out

    # ---- waiting, renewing, stopping -------------------------------------------------------------------------------

    async def _wait(self, stopping: Callable[[], bool]) -> None:
        waited = 0.0
        while waited < IDLE_POLL_S and not stopping() and not self._wake.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _STOP_CHECK_S)
            waited += _STOP_CHECK_S
        self._wake.clear()

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            leases = [Lease(r.task.task_id, r.task.fence) for r in self._running.values()]
            if not leases:
                continue
            try:
                lost = await self._parts.store.renew(leases, lease_s=self._lease_s)
            except Exception:
                logger.warning("leases could not be renewed; trying again", exc_info=True)
                continue
            self._give_up(lost)

    async def _look_out_forever(self) -> None:
        """Cancelled work is dropped within half a second, long before its lease would have told."""
        while True:
            await asyncio.sleep(LOOK_OUT_S)
            leases = [Lease(r.task.task_id, r.task.fence) for r in self._running.values() if not r.run.paying]
            if not leases:
                continue
            try:
                self._give_up(await self._parts.store.lost(leases))
            except Exception:
                logger.debug("could not look out for cancelled tasks; the renewal will tell", exc_info=True)

    def _give_up(self, lost: set[TaskId]) -> None:
        for task_id in lost:
            running = self._running.get(task_id)
            # A paid call is never cut: its answer settles its money even if the task is someone else's by now.
            if running is not None and not running.run.paying:
                running.handle.cancel()

    async def _finish(self) -> None:
        unpaid = [r for r in self._running.values() if not r.run.paying]
        for running in unpaid:
            running.handle.cancel()
        await asyncio.gather(*(r.handle for r in unpaid), return_exceptions=True)
        for running in unpaid:  # a handle that was cancelled before its first step cleaned up nothing
            self._running.pop(running.task.task_id, None)
        with contextlib.suppress(Exception):
            await self._parts.store.give_back([GiveBack(r.task.task_id, r.task.fence) for r in unpaid])
        while self._running:
            await asyncio.wait([r.handle for r in self._running.values()])


class _Countdown:
    """Counts chains down once each, whatever ends them."""

    def __init__(self, count: int, tell: Callable[[int], None]) -> None:
        self._left = count
        self._tell = tell

    def one(self) -> None:
        if self._left > 0:
            self._left -= 1
            self._tell(1)

    def more(self, count: int) -> None:
        self._left += count
        self._tell(-count)

    def all(self) -> None:
        left, self._left = self._left, 0
        if left:
            self._tell(left)
