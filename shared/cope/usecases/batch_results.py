"""What comes back from a provider's batch: each line settles its attempt and commits its step exactly once.

Everything here may run again after a crash: a line that was committed is closed, or its commit is fenced, and the
settlement of an attempt counts once.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from cope.core.batch_tier import decode_order
from cope.core.budget import settle
from cope.core.ids import AttemptId
from cope.core.models import ModelEntry
from cope.core.money import ZERO
from cope.core.policies.registry import next_decision
from cope.core.stages import Step
from cope.ports.model import ChatAnswer
from cope.ports.provider_batches import BatchProvider, ProviderBatchStore, ProviderJob, ProviderLine, RemoteBatch
from cope.ports.provider_batches import RemoteLine as Result
from cope.ports.store import GiveBack, Settlement
from cope.usecases.drain import GroupedLedger
from cope.usecases.run_step import StepParts, StepRun

logger = logging.getLogger(__name__)

AT_ONCE = 200
# The provider's queue is full, which is nobody's fault: such a batch is sent again later instead of live.
_NOT_NOW = "token_limit_exceeded"
_NOT_NOW_S = 300.0


class JobLost(Exception):
    """Another worker has the job: nothing more may be written under it."""


class ResultParts(StepParts, Protocol):
    """What taking in results needs."""

    @property
    def store(self) -> ProviderBatchStore: ...
    @property
    def batches(self) -> BatchProvider: ...


class Results:
    """Takes in the results of one provider batch."""

    def __init__(self, parts: ResultParts, ledger: GroupedLedger, job: ProviderJob, model: ModelEntry) -> None:
        self._parts = parts
        self._ledger = ledger
        self._job = job
        self._model = model
        self._seen: set[str] = set()
        self._completed = 0
        self._doubled = 0

    async def take(self, remote: RemoteBatch) -> None:
        """Every line of an ended batch. Raises a `ModelError` where a file can't be had now, `JobLost`."""
        for file_id in (remote.output_file_id, remote.error_file_id):
            if file_id is not None:
                await self._file(file_id)
        if self._doubled:
            logger.warning("%s: %d result lines came twice; the first of each counts", self._job.id, self._doubled)
        await self._rest(remote)

    async def _file(self, file_id: str) -> None:
        page: list[Result] = []
        async for result in self._parts.batches.results(self._model, file_id):
            if result.custom_id in self._seen:
                self._doubled += 1
                continue
            self._seen.add(result.custom_id)
            self._completed += result.answer is not None or result.malformed
            page.append(result)
            if len(page) >= AT_ONCE:
                await self._page(page)
                page = []
        await self._page(page)

    async def _page(self, page: Sequence[Result]) -> None:
        if not page:
            return
        named = [AttemptId(result.custom_id) for result in page]
        lines = await self._parts.store.provider_lines(self._job, after=None, limit=len(page), only=named)
        known = {line.attempt_id: line for line in lines}
        # A line that is not there was settled before a crash, or was never ours.
        pairs = [(known[AttemptId(r.custom_id)], r) for r in page if r.custom_id in known]
        await asyncio.gather(*(self._settle(line, result) for line, result in pairs))
        await self._close([line.attempt_id for line, _ in pairs])

    async def _settle(self, line: ProviderLine, result: Result) -> None:
        if result.answer is not None:
            await self._answered(line, result.answer)
        elif result.malformed:
            bill = Settlement(line.attempt_id, line.reserved, ZERO, None, "malformed")
            await self._back(line, bill, note="model_malformed", count_try=True)
        else:
            why = (result.error or "failed").partition(":")[0]
            await self._back(line, Settlement(line.attempt_id, ZERO, ZERO, None, f"refused: {why}"[:200]), note=why)

    async def _answered(self, line: ProviderLine, answer: ChatAnswer) -> None:
        order, step = decode_order(line.order), next_decision(line.task.spec, line.task.history)
        if isinstance(step, Step) and step.name == line.step:
            run = StepRun(self._parts, self._ledger, line.task, gate=asyncio.Semaphore(1), on_chain_end=_nothing)
            await run.settle_batched(
                step,
                order,
                answer,
                attempt_id=line.attempt_id,
                amount=line.reserved,
                started=self._job.created_at,
            )
            return
        # The task went on by a live call meanwhile: what is left of this one is its bill.
        bill = settle(order.price, answer.usage, line.reserved)
        await self._back(
            line, Settlement(line.attempt_id, bill.cost, bill.overrun, answer.usage, bill.flag, answer.provider_id)
        )

    async def _rest(self, remote: RemoteBatch) -> None:
        """Lines of which nothing came back. Where the provider's own count says that every call it carried out has been
        seen, they cost nothing; else nobody knows, and their reserves become unconfirmed."""
        unbilled = remote.status == "failed" or (remote.completed is not None and self._completed >= remote.completed)
        not_now = remote.status == "failed" and (remote.error or "").startswith(_NOT_NOW)
        after: AttemptId | None = None
        while lines := await self._parts.store.provider_lines(self._job, after=after, limit=AT_ONCE):
            after = lines[-1].attempt_id
            flag = f"batch_{remote.status}"
            for line in lines:
                bill = Settlement(line.attempt_id, ZERO, ZERO, None, flag) if unbilled else None
                await self._back(line, bill, note=flag, again_in_s=_NOT_NOW_S if not_now else None)
            await self._close([line.attempt_id for line in lines])

    async def _back(
        self,
        line: ProviderLine,
        bill: Settlement | None,
        *,
        note: str | None = None,
        count_try: bool = False,
        again_in_s: float | None = None,
    ) -> None:
        await self._ledger.give_back(
            GiveBack(
                line.task.task_id,
                line.task.fence,
                delay_s=again_in_s or 0.0,
                count_try=count_try,
                note=note,
                settlements=() if bill is None else (bill,),
                submitted=True,
                batch_off=line.step if again_in_s is None else "",
            )
        )

    async def _close(self, attempts: Sequence[AttemptId]) -> None:
        if not await self._parts.store.close_provider_lines(self._job, attempts):
            raise JobLost


def _nothing() -> None:
    """A batched call has no place in a worker's count of chains."""
