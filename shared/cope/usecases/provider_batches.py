"""The provider's own Batch API: gathered calls are sent together, looked after, and taken in again.

One provider batch goes `forming → submitting → working → ended`, one step at a time under a lease; whoever is killed at
any point leaves a row from which the next one goes on:

- `forming`: nothing has been sent. The input file may be uploaded twice, which costs nothing.
- `submitting`: the attempts are `sent`, committed before the creation leaves. Whoever comes upon this state looks for a
  batch with our marker first, and creates one only when the provider's list has not shown it for `DOUBT_S`.
- `working`: polled at growing intervals until the provider has ended it; then each line settles and commits.

When the shortest window among its tasks nears its end the batch is cancelled: what is finished is taken, the rest is
called live. If even then no word comes, the tasks go on without it and their reserves become unconfirmed; the batch is
looked after all the same, for a late result still settles its attempt.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Protocol, assert_never

from cope.core import ids
from cope.core.batch_tier import decode_order, must_end, must_give_up, next_look_s, poll_delay_s
from cope.core.errors import ModelError
from cope.core.ids import AttemptId, ProviderBatchId
from cope.core.models import BatchTier, ModelEntry
from cope.core.money import ZERO
from cope.ports.provider_batches import JobChange, ProviderJob, ProviderState, RemoteBatch
from cope.ports.store import GiveBack, Settlement
from cope.ports.support import WakeUp
from cope.usecases.batch_results import AT_ONCE, JobLost, ResultParts, Results
from cope.usecases.drain import GroupedLedger
from cope.usecases.keep import keep

logger = logging.getLogger(__name__)

MOST_BYTES = 64 * 1024**2
DOUBT_S = 120.0
"""How long a creation may take to show in the provider's list before it counts as never made."""
LOOKED_AFTER_S = 3 * 86_400.0
"""How long a batch is looked for after nobody waits for it any more."""
_CLOCKS_APART = timedelta(hours=1)
_LONGEST_TRUSTED_RETRY_AFTER_S = 3600.0
_TRIES_TO_FREEZE = 5
_POLL_S = 1.0
_IDLE_POLL_S = 10.0
_STOP_CHECK_S = 0.25
_ENDING = frozenset({"cancelling", "finalizing"})
_UNKNOWN = BatchTier()


class BatcherParts(ResultParts, Protocol):
    """What looking after provider batches needs."""

    @property
    def wake(self) -> WakeUp: ...


class ProviderBatcher:
    """Sends what is gathered and looks after what is sent. Any number may run, in any processes."""

    def __init__(self, parts: BatcherParts, *, lease_s: float, doubt_s: float = DOUBT_S) -> None:
        self._parts = parts
        self._lease_s = lease_s
        self._doubt_s = doubt_s
        self._ledger = GroupedLedger(parts.store, parts.wake)

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Until `stopping()` is true; the job in hand is finished first."""
        used = any(entry.batch is not None for entry in self._parts.catalog.entries.values())
        while not stopping():
            worked = False
            try:
                worked = await self.send_gathered() | await self.work_next()
            except Exception:
                logger.exception(
                    "a provider batch could not be looked after; its lease runs out and it is taken up again"
                )
                await asyncio.sleep(_POLL_S)
            waited = 0.0
            while not worked and waited < (_POLL_S if used else _IDLE_POLL_S) and not stopping():
                await asyncio.sleep(_STOP_CHECK_S)
                waited += _STOP_CHECK_S

    async def send_gathered(self) -> bool:
        """Form and send one batch of each model that has gathered enough; whether there was any. Calls that have waited
        for so long that no time is left for the provider go live."""
        store, sent = self._parts.store, False
        for waiting in await store.gathered():
            entry = self._parts.catalog.entries.get(waiting.model)
            tier = None if entry is None else entry.batch
            below = None if tier is None else tier.turnaround_s + tier.margin_s
            if await store.return_gathered(waiting.model, window_below_s=below):
                await self._parts.wake.poke("large")
            if tier is None or (waiting.lines < tier.min_lines and waiting.oldest_s < tier.max_wait_s):
                continue
            job = await store.form_provider_batch(
                ProviderBatchId(self._parts.ids.new(ids.PROVIDER_BATCH)),
                waiting.model,
                lines=tier.max_lines,
                size=MOST_BYTES,
                lease_s=self._lease_s,
            )
            if job is not None:
                await self._work(job)
                sent = True
        return sent

    async def work_next(self) -> bool:
        """Take the longest due provider batch one step further; False if none is due."""
        job = await self._parts.store.claim_provider_job(lease_s=self._lease_s)
        if job is not None:
            await self._work(job)
        return job is not None

    async def _work(self, job: ProviderJob) -> None:
        renew = self._parts.store.renew_provider_job
        async with keep(lambda: renew(job, lease_s=self._lease_s), lease_s=self._lease_s):
            entry = self._parts.catalog.entries.get(job.model)
            with contextlib.suppress(JobLost):
                if entry is None:
                    logger.error("%s: model %r is not configured any more", job.id, job.model)
                    await self._without_model(job)
                    return
                try:
                    await self._step(job, entry)
                except ModelError as error:
                    await self._failed(job, entry, error)

    async def _step(self, job: ProviderJob, entry: ModelEntry) -> None:
        match job.state:
            case ProviderState.FORMING:
                await self._form(job, entry)
            case ProviderState.SUBMITTING:
                await self._find(job, entry)
            case ProviderState.WORKING:
                await self._look(job, entry)
            case ProviderState.ENDED:
                return
            case _:
                assert_never(job.state)

    # ---- before the provider has it --------------------------------------------------------------------------------

    async def _form(self, job: ProviderJob, entry: ModelEntry) -> None:
        """Upload and freeze: where a task was cancelled in between, once more without it."""
        if must_end(_tier(entry), job.window_left_s):
            await self._disband(job, live=True)
            return
        for _ in range(_TRIES_TO_FREEZE):
            lines = await self._bodies(job)
            if not lines:
                break
            try:
                file_id = await self._parts.batches.upload(entry, name=f"{job.id}.jsonl", lines=lines)
            except ModelError as error:
                if error.retryable:
                    raise
                logger.warning("%s: the provider takes no batch: %s", job.id, error.message)
                break
            await self._change(job, JobChange(file_id=file_id))
            if await self._parts.store.send_provider_batch(job, [AttemptId(attempt) for attempt, _ in lines]):
                await self._create(job, entry, file_id)
                return
        await self._disband(job, live=True)

    async def _bodies(self, job: ProviderJob) -> list[tuple[str, str]]:
        bodies: list[tuple[str, str]] = []
        after: AttemptId | None = None
        while lines := await self._parts.store.provider_lines(job, after=after, limit=AT_ONCE):
            bodies += [(line.attempt_id, decode_order(line.order).body) for line in lines]
            after = lines[-1].attempt_id
        return bodies

    async def _create(self, job: ProviderJob, entry: ModelEntry, file_id: str) -> None:
        try:
            remote = await self._parts.batches.create(entry, file_id=file_id, marker=job.id)
        except ModelError as error:
            if error.sent and not error.answered:
                await self._put_off(job, entry, self._doubt_s, note=error.code)
                return
            await self._change(job, JobChange(doubt=False))
            if error.retryable:
                raise
            logger.warning("%s: the provider takes no such batch: %s", job.id, error.message)
            await self._return(job, flag=f"refused: {error.code}")
            await self._change(job, JobChange(state=ProviderState.ENDED, note=error.message[:300], delay_s=0.0))
            return
        await self._created(job, entry, remote)

    async def _created(self, job: ProviderJob, entry: ModelEntry, remote: RemoteBatch) -> None:
        change = JobChange(
            state=ProviderState.WORKING, provider_id=remote.id, status=remote.status, doubt=False, polls=0
        )
        delay_s = next_look_s(_tier(entry), _tier(entry).poll_s, job.window_left_s)
        await self._change(job, change, delay_s=delay_s)

    async def _find(self, job: ProviderJob, entry: ModelEntry) -> None:
        """Somebody died, or heard nothing, about the creation: look for it before it is made again."""
        found = await self._parts.batches.find(entry, marker=job.id, since=job.created_at - _CLOCKS_APART)
        if found:
            for twin in found[1:]:
                logger.error("%s: the provider has a second batch of it, %s, which is cancelled", job.id, twin.id)
                await self._parts.batches.cancel(entry, twin.id)
            await self._created(job, entry, found[0])
            return
        tier = _tier(entry)
        in_doubt = job.doubt_s is not None and job.doubt_s < self._doubt_s
        if job.wanted and not must_end(tier, job.window_left_s) and job.file_id is not None:
            if in_doubt:
                await self._put_off(job, entry, self._doubt_s - (job.doubt_s or 0.0))
                return
            await self._change(job, JobChange(doubt=True))
            await self._create(job, entry, job.file_id)
            return
        if job.doubt_s is None:
            await self._return(job, flag="never_created")
            await self._change(job, JobChange(state=ProviderState.ENDED, delay_s=0.0))
            return
        await self._unanswered(job, entry)

    # ---- while the provider has it ---------------------------------------------------------------------------------

    async def _look(self, job: ProviderJob, entry: ModelEntry) -> None:
        assert job.provider_id is not None
        remote = await self._parts.batches.retrieve(entry, job.provider_id)
        if remote.ended:
            await self._change(job, JobChange(status=remote.status))
            await Results(self._parts, self._ledger, job, entry).take(remote)
            await self._change(job, JobChange(state=ProviderState.ENDED, note=remote.error, delay_s=0.0))
            await self._parts.wake.poke("large")
            return
        if job.unsettled and self._is_over(job, entry) and remote.status not in _ENDING:
            remote = await self._parts.batches.cancel(entry, job.provider_id)
            await self._change(job, JobChange(cancelling=True))
            job = replace(job, polls=0)
        await self._give_up_in_time(job, entry)
        await self._put_off(job, entry, poll_delay_s(_tier(entry).poll_s, job.polls), status=remote.status)

    def _is_over(self, job: ProviderJob, entry: ModelEntry) -> bool:
        return not job.wanted or must_end(_tier(entry), job.window_left_s)

    async def _give_up_in_time(self, job: ProviderJob, entry: ModelEntry | None) -> None:
        if job.waiting and must_give_up(_tier(entry), job.window_left_s, job.cancel_s):
            logger.warning("%s: %d tasks go on without the provider's word", job.id, job.waiting)
            await self._return(job, flag=None)

    async def _failed(self, job: ProviderJob, entry: ModelEntry, error: ModelError) -> None:
        """The provider is away, or refuses. Time goes on: what must end, ends without it."""
        logger.info("%s: %s", job.id, error.message)
        if job.state is ProviderState.FORMING:
            if must_end(_tier(entry), job.window_left_s):
                await self._disband(job, live=True)
                return
        else:
            await self._unanswered(job, entry, put_off=False)
        told = error.retry_after_s or 0.0
        told = told if told <= _LONGEST_TRUSTED_RETRY_AFTER_S else 0.0
        delay_s = max(told, poll_delay_s(_tier(entry).poll_s, job.polls))
        await self._put_off(job, entry, delay_s, note=f"{error.code}: {error.message}"[:300])

    async def _unanswered(self, job: ProviderJob, entry: ModelEntry, *, put_off: bool = True) -> None:
        if self._is_over(job, entry):
            await self._change(job, JobChange(cancelling=True))
        await self._give_up_in_time(job, entry)
        if not job.waiting and (self._parts.clock.now() - job.created_at).total_seconds() > LOOKED_AFTER_S:
            await self._forget(job)
        elif put_off:
            await self._put_off(job, entry, poll_delay_s(_tier(entry).poll_s, job.polls))

    async def _without_model(self, job: ProviderJob) -> None:
        if job.state is ProviderState.FORMING:
            await self._disband(job, live=True)
            return
        await self._give_up_in_time(job, None)
        await self._put_off(job, None, poll_delay_s(_UNKNOWN.poll_s, job.polls), note="the model is not configured")

    # ---- the ways out ----------------------------------------------------------------------------------------------

    async def _return(self, job: ProviderJob, *, flag: str | None) -> None:
        """Every task that waits goes on by a live call. With a `flag` the calls were certainly not carried out: they
        cost nothing and their lines close. Without one, the sweep leaves their reserves unconfirmed, and the lines stay
        for a late result."""
        after: AttemptId | None = None
        while lines := await self._parts.store.provider_lines(job, after=after, limit=AT_ONCE):
            after = lines[-1].attempt_id
            backs = [
                GiveBack(
                    line.task.task_id,
                    line.task.fence,
                    note="provider batch",
                    settlements=() if flag is None else (Settlement(line.attempt_id, ZERO, ZERO, None, flag[:200]),),
                    submitted=True,
                    batch_off=line.step,
                )
                for line in lines
                if flag is not None or line.waiting
            ]
            await self._parts.store.give_back(backs)
            if flag is not None and not await self._parts.store.close_provider_lines(
                job, [line.attempt_id for line in lines]
            ):
                raise JobLost
        await self._parts.wake.poke("large")

    async def _forget(self, job: ProviderJob) -> None:
        while lines := await self._parts.store.provider_lines(job, after=None, limit=AT_ONCE):
            if not await self._parts.store.close_provider_lines(job, [line.attempt_id for line in lines]):
                raise JobLost
        await self._change(job, JobChange(state=ProviderState.ENDED, note="never found", delay_s=0.0))

    async def _disband(self, job: ProviderJob, *, live: bool) -> None:
        if not await self._parts.store.disband_provider_batch(job, live=live):
            raise JobLost
        await self._parts.wake.poke("large")

    async def _put_off(
        self,
        job: ProviderJob,
        entry: ModelEntry | None,
        delay_s: float,
        *,
        note: str | None = None,
        status: str | None = None,
    ) -> None:
        change = JobChange(polls=job.polls + 1, note=note, status=status)
        await self._change(job, change, delay_s=next_look_s(_tier(entry), delay_s, job.window_left_s))

    async def _change(self, job: ProviderJob, change: JobChange, *, delay_s: float | None = None) -> None:
        change = change if delay_s is None else replace(change, delay_s=delay_s)
        if not await self._parts.store.change_provider_job(job, change):
            raise JobLost


def _tier(entry: ModelEntry | None) -> BatchTier:
    """How its provider is dealt with; a model that has lost its batch tier is dealt with as any."""
    return _UNKNOWN if entry is None or entry.batch is None else entry.batch
