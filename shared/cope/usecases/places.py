"""A paid call's place with the limiter: asked for, waited for a moment, given back once with what the call showed."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import assert_never

from cope.core.budget import output_limit
from cope.core.lifecycle import HoldReason
from cope.core.limits.types import UNUSED, Ask, Grant, Report, Wait, WaitReason
from cope.core.models import ModelEntry
from cope.core.problem import Message
from cope.core.prompts import PromptSet
from cope.core.stages import Step
from cope.core.task import TaskSpec
from cope.ports.limiter import Limiter
from cope.ports.store import ClaimedTask, GiveBack
from cope.usecases.chains import executor_messages, planner_messages

logger = logging.getLogger(__name__)

LONGEST_WAIT_IN_SLOT_S = 2.0


class Place:
    """A grant, given back once: `report` is what is said of it if nobody says more."""

    def __init__(self, limiter: Limiter, grant: Grant, *, due: float) -> None:
        """`due` is the event loop's time at which the grant's turn came, at the earliest that it may have been."""
        self._limiter = limiter
        self._grant = grant
        self._due = due
        self._late_s = 0.0
        self._ended = False
        self.report = UNUSED

    @property
    def endpoint(self) -> str:
        """Where the call may go."""
        return self._grant.endpoint

    def sending(self) -> None:
        """A call of it leaves now. The last one counts: the provider's window goes by when a call reached it."""
        self._late_s = max(0.0, asyncio.get_running_loop().time() - self._due)

    async def end(self, report: Report | None = None) -> None:
        """The first time counts. Never raises: nobody's answer or money depends on the limiter's books."""
        if self._ended:
            return
        self._ended = True
        try:
            await self._limiter.give_back(self._grant, replace(report or self.report, late_s=self._late_s))
        except Exception:
            logger.warning("a place could not be given back; it expires by itself", exc_info=True)


async def find_place(
    limiter: Limiter, task: ClaimedTask, model: str, ask: Ask, *, on_limited: Callable[[float], None]
) -> Place | GiveBack:
    """A place at one of the model's endpoints, its turn come; or how the task is to be given back to wait longer.

    `on_limited` is told 0 for a task that got on, and the wait for one that the limiter puts off.
    """
    clock = asyncio.get_running_loop()
    while True:
        asked_at = clock.time()
        answer = await limiter.acquire(model, ask)
        match answer:
            case Grant():
                on_limited(0.0)
                try:
                    await asyncio.sleep(answer.wait_s)
                except BaseException:
                    await limiter.give_back(answer, UNUSED)
                    raise
                return Place(limiter, answer, due=asked_at + answer.wait_s)
            case Wait(seconds, WaitReason.QUOTA):
                on_limited(0.0)  # to be held is where it belongs: the others are to follow soon
                return GiveBack(
                    task.task_id, task.fence, delay_s=seconds, hold=HoldReason.PROVIDER_QUOTA, note="provider_quota"
                )
            # An audit takes what the limiter has to spare: waiting in a slot it would keep out real work.
            case Wait(seconds, _) if seconds > LONGEST_WAIT_IN_SLOT_S or task.is_audit:
                on_limited(seconds)
                return GiveBack(task.task_id, task.fence, delay_s=max(seconds, LONGEST_WAIT_IN_SLOT_S))
            case Wait(seconds, _):
                await asyncio.sleep(seconds)
            case _:
                assert_never(answer)


def ask_of(spec: TaskSpec, step: Step, entry: ModelEntry, prompts: PromptSet) -> Ask:
    """What the limiter is asked for: all of a step's calls, by estimate."""
    messages = (
        planner_messages(spec, step, prompts)
        if step.planner is not None
        else executor_messages(spec, step, prompts, None)
    )
    calls = [call for call in (step.planner, step.executor) if call is not None]
    limit = sum(output_limit(entry, messages, call.max_tokens) for call in calls)
    tokens = step.n * (len(calls) * _about(messages) + limit)
    return Ask(tokens, calls=step.n * len(calls), parallel=step.n)


def _about(messages: Sequence[Message]) -> int:
    """A prompt's tokens as providers estimate them on arrival: four bytes a token, and the few that a chat template
    adds. Too much would leave a part of the limit unused where the estimate counts; too little is corrected by the
    answer, and by what the provider says is left."""
    return sum(-(-len(m.content.encode("utf-8", "surrogatepass")) // 4) + 4 for m in messages) + 3
