"""Named points at which a test makes a process fail. For testing only: nothing here is made, looked at or wrapped
unless COPE_TESTING=1 says so, and then only what COPE_FAULT_POINT names.

    COPE_FAULT_POINT=after_sent:0.05:7       name:probability:seed, several separated by blanks
    COPE_FAULT_POINT=after_sent:1:7:2        at most twice in each process
    COPE_FAULT_POINT=@/path/to/orders        the same, read again whenever that file changes

At a named point the process kills itself with signal 9, as a crash there would. With a file each firing leaves a line
``<name> <pid> <unix time>`` in ``<file>.fired``, and `times` counts over all processes.
"""

import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from cope.adapters.celery_wakeup import CeleryWakeUp
from cope.adapters.postgres import batches, commit
from cope.adapters.postgres.ingest import JobLost, ingest
from cope.adapters.postgres.worker_store import PostgresWorkerStore
from cope.core.errors import Misconfigured
from cope.core.ids import AttemptId
from cope.core.lifecycle import BatchStatus
from cope.core.records import StoredFile
from cope.ports.model import ChatAnswer, ChatModel, ChatRequest
from cope.ports.store import BatchJob, ClaimedTask, CommitStatus, NewTask, ReserveRequest, ReserveResult, StepCommit

KILLS = (
    "after_claim",  # tasks are leased, nothing is begun
    "after_reserve",  # money is set aside, nothing is sent
    "after_sent",  # `sent` is committed, the call is not made
    "after_answer",  # the model has answered, nobody wrote it down
    "inside_commit",  # every statement of the commit has run, COMMIT has not
    "after_commit",  # committed, and the worker never heard so
    "inside_ingest",  # the tasks are copied, COMMIT has not run
    "inside_finish",  # the result files are published, their rows are not
    "poison",  # a request holds `POISON`: the payload that kills whoever touches it
)
WAKE_UPS = {"wakeups_dropped": 0, "wakeups_x50": 50}
"""What each wake-up becomes. Probability, seed and times mean nothing here."""

POISON = "COPE_POISON"


@dataclass(frozen=True, slots=True)
class _Order:
    name: str
    probability: float
    seed: int
    times: int | None


def parse_orders(text: str) -> tuple[_Order, ...]:
    """The orders in a text. Raises `Misconfigured` naming the word that is wrong."""
    return tuple(_parse(word) for word in text.split())


def _parse(word: str) -> _Order:
    name, *rest = word.split(":")
    known = (*KILLS, *WAKE_UPS)
    try:
        probability, seed, times = (*rest, *("1", "0", "")[len(rest) :])
        order = _Order(name, float(probability), int(seed), int(times) if times else None)
        if name in known and 0 <= order.probability <= 1:
            return order
    except ValueError:
        pass
    raise Misconfigured(f"COPE_FAULT_POINT: {word!r} is not name:probability:seed[:times] with one of {known}.")


class FaultPoints:
    """What this process was told to fail at. Made once at the start."""

    def __init__(self, source: str) -> None:
        self._file = Path(source[1:]) if source.startswith("@") else None
        self._seen: tuple[int, int] | None = None
        self._orders: dict[str, _Order] = {}
        self._chance: dict[str, random.Random] = {}
        self._fired: dict[str, int] = {}
        if self._file is None:
            self._take(source)

    def order(self, name: str) -> _Order | None:
        """The present order of that name."""
        if self._file is not None:
            try:
                status = self._file.stat()
            except FileNotFoundError:
                return None
            if self._seen != (status.st_mtime_ns, status.st_ino):
                self._seen = (status.st_mtime_ns, status.st_ino)
                self._take(self._file.read_text())
        return self._orders.get(name)

    def pass_(self, name: str) -> None:
        """This process has come to that point: go on, or end here."""
        order = self.order(name)
        if order is not None and self._chance[name].random() < order.probability and self._may_fire(order):
            os.kill(os.getpid(), signal.SIGKILL)

    def wake_ups(self) -> int:
        """How many messages a wake-up becomes."""
        return next((number for name, number in WAKE_UPS.items() if self.order(name) is not None), 1)

    def _take(self, text: str) -> None:
        self._orders = {order.name: order for order in parse_orders(text)}
        # Children of one parent would draw alike without the process id; which of them dies is the machine's chance.
        self._chance = {name: random.Random(f"{o.seed}/{os.getpid()}") for name, o in self._orders.items()}  # noqa: S311

    def _may_fire(self, order: _Order) -> bool:
        if self._file is None:
            fired = self._fired[order.name] = self._fired.get(order.name, 0) + 1
            return order.times is None or fired <= order.times
        turn = 0
        while order.times is None or turn < order.times:
            try:
                mark = self._file.with_name(f"{self._file.name}.{order.name}-{order.seed}-{turn}")
                os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            except FileExistsError:
                turn += 1
                continue
            with self._file.with_name(f"{self._file.name}.fired").open("a") as log:
                log.write(f"{order.name} {os.getpid()} {time.time()}\n")
            return True
        return False


class FaultyWorkerStore(PostgresWorkerStore):
    """The store, with points around and inside what a task goes through."""

    def __init__(self, points: FaultPoints, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._points = points

    async def claim(self, queue: str, *, worker: str, limit: int, lease_s: float) -> list[ClaimedTask]:
        """Point `after_claim`, where something was claimed."""
        claimed = await super().claim(queue, worker=worker, limit=limit, lease_s=lease_s)
        if claimed:
            self._points.pass_("after_claim")
        return claimed

    async def reserve(self, requests: Sequence[ReserveRequest]) -> list[ReserveResult]:
        """Point `after_reserve`."""
        results = await super().reserve(requests)
        self._points.pass_("after_reserve")
        return results

    async def mark_sent(self, attempts: Sequence[AttemptId]) -> set[AttemptId]:
        """Point `after_sent`."""
        marked = await super().mark_sent(attempts)
        self._points.pass_("after_sent")
        return marked

    async def commit(self, commits: Sequence[StepCommit]) -> list[CommitStatus]:
        """Points `inside_commit` and `after_commit`."""
        if not commits:
            return []
        async with self._db.transaction(limit_s=self._limit_s) as conn:
            statuses = await commit.commit(conn, self._policies, commits)
            self._points.pass_("inside_commit")
        self._points.pass_("after_commit")
        return statuses

    async def ingest(
        self,
        job: BatchJob,
        rows: AsyncIterator[Sequence[NewTask]],
        *,
        model: Callable[[], str | None],
        expires_in: timedelta | None,
    ) -> int | None:
        """Point `inside_ingest`."""
        try:
            async with self._db.transaction(limit_s=None) as conn:
                total = await ingest(conn, job, rows, model=model, expires_in=expires_in)
                self._points.pass_("inside_ingest")
        except JobLost:
            return None
        return total

    async def finish_batch(
        self, job: BatchJob, *, output: StoredFile | None, error: StoredFile | None, quote: str | None = None
    ) -> BatchStatus | None:
        """Point `inside_finish`."""
        async with self._db.transaction() as conn:
            status = await batches.finish_batch(conn, job, output=output, error=error, quote=quote)
            self._points.pass_("inside_finish")
        return status


class FaultyModel:
    """A model with the point `after_answer`, at which a poisoned request kills."""

    def __init__(self, points: FaultPoints, model: ChatModel) -> None:
        self._points = points
        self._model = model

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        """One answer, unless the process ends."""
        if any(POISON in message.content for message in request.messages):
            self._points.pass_("poison")
        answer = await self._model.chat(request)
        self._points.pass_("after_answer")
        return answer

    async def aclose(self) -> None:
        """Close connections."""
        await self._model.aclose()


class FaultyWakeUp(CeleryWakeUp):
    """Wake-ups that are lost or come fifty times."""

    def __init__(self, points: FaultPoints, app: Any, redis_url: str | None) -> None:
        super().__init__(app, redis_url)
        self._points = points

    def _send(self, queue: str) -> None:
        for _ in range(self._points.wake_ups()):
            super()._send(queue)


def armed(*, testing: bool, source: str) -> FaultPoints | None:
    """The points of this process; None in every process that is not under test. Raises `Misconfigured` for an order
    that can't be read."""
    return FaultPoints(source) if testing and source else None
