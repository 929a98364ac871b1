"""A dry run's last act: from its pilot's tasks and the project's past to the quote."""

import asyncio
import random
from datetime import datetime
from typing import Any, Protocol

import orjson

from cope.core.history import History, SampleStatus
from cope.core.lifecycle import TaskState
from cope.core.money import TokenUsage
from cope.core.quote import PilotOutcome, Quote, estimate
from cope.core.quote_json import encode_quote
from cope.core.records import Batch
from cope.core.survey import PilotLine, Survey, decode_survey
from cope.ports.store import PilotTask, WorkerStore
from cope.ports.support import Clock


class QuoteParts(Protocol):
    """What making a quote needs."""

    @property
    def store(self) -> WorkerStore: ...
    @property
    def clock(self) -> Clock: ...


async def quote_of(parts: QuoteParts, batch: Batch) -> str | None:
    """The quote as JSON text, from the pilot lines that ended; None where the file was not read to its end."""
    run = await parts.store.pilot(batch.id)
    if run.survey is None:
        return None
    survey = decode_survey(run.survey)
    past = await parts.store.past(
        batch.project_id,
        models=sorted({step.model for group in survey.groups for step in group.steps}),
        policies=sorted({group.policy for group in survey.groups if group.steps}),
    )
    outcomes = [outcome for task in run.tasks if (outcome := _outcome(survey, task)) is not None]
    chance = random.Random(survey.seed)  # noqa: S311 - a simulation that is to be repeated, not a secret
    # Thousands of imaginary batches take up to seconds: the loop must renew its leases meanwhile.
    quote = await asyncio.to_thread(estimate, survey, outcomes, past, chance)
    return encode_quote(quote, stage1_s=_pace(batch, quote, parts.clock.now()))


def _outcome(survey: Survey, task: PilotTask) -> PilotOutcome | None:
    """What a pilot line came to; None for one that was never tried."""
    line = survey.pilot.get(task.id)
    if line is None or task.state not in {TaskState.DONE, TaskState.FAILED}:
        return None
    result: dict[str, Any] = {} if task.state is TaskState.FAILED or not task.result else orjson.loads(task.result)
    told: dict[str, Any] = result.get("cope", {})
    return _from_steps(line, task.history, told, failed=task.state is TaskState.FAILED)


def _from_steps(line: PilotLine, steps: History, told: dict[str, Any], *, failed: bool) -> PilotOutcome:
    planner, small = TokenUsage(), TokenUsage()
    solutions: list[int] = []
    arrived = 0
    for step in steps:  # a pilot's are all of its first stage
        small += step.usage
        for sample in step.samples:
            if sample.status is not SampleStatus.FINISHED:
                continue
            arrived += 1
            if sample.solution_usage.completion:  # 0: a server that does not tell
                solutions.append(sample.solution_usage.completion)
            asked = sample.usage.prompt - sample.solution_usage.prompt
            if asked > 0:
                planner += TokenUsage(prompt=asked, calls=1)
    readable = sum(int(vote["count"]) for vote in told.get("votes", ()))
    return PilotOutcome(
        line=line,
        accepted=bool(told.get("accepted", False)),
        failed=failed,
        readable=readable > 0 and 2 * readable >= arrived,
        planner=planner,
        solutions=tuple(solutions),
        small=small,
    )


def _pace(batch: Batch, quote: Quote, now: datetime) -> int | None:
    """Seconds that Stage 1 of the whole file takes at the pilot's pace; None without a pilot."""
    piloted = sum(group.piloted for group in quote.groups)
    if not piloted or batch.in_progress_at is None:
        return None
    took = ((batch.finalizing_at or now) - batch.in_progress_at).total_seconds()
    lines = sum(group.group.lines for group in quote.groups if group.group.pilots)
    return round(took * lines / piloted)
