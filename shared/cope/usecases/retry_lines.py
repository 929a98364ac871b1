"""From lines of another batch to tasks: the same questions, with the finished steps that need not be done again."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from cope.core.codec import decode_policy, decode_task
from cope.core.errors import BadRequest
from cope.core.history import History
from cope.core.ids import TASK, TaskId
from cope.core.line_retry import LineRetry
from cope.core.models import ModelCatalog
from cope.core.policies.spec import PolicyName, PolicySpec
from cope.core.priced import refuse_unpriced
from cope.core.prices import PriceTable
from cope.core.records import LineError
from cope.core.reuse import reusable, taken_over
from cope.core.stages import Step, Tier
from cope.ports.store import NewTask, OldLine
from cope.ports.support import Clock, IdMaker
from cope.usecases.answer_pool import prompt_version

MAX_ERRORS = 1000
NOTHING = LineError(
    "nothing_to_retry", "Every line that was to be retried was taken over by another retry meanwhile.", None, None
)


class RetryParts(Protocol):
    """What making the tasks of a retry needs."""

    @property
    def catalog(self) -> ModelCatalog: ...
    @property
    def prices(self) -> PriceTable: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def ids(self) -> IdMaker: ...


class CannotRetry(Exception):
    """Some lines can't be carried out as they stand; `errors` lists them by the line numbers of their own batch."""

    def __init__(self, errors: tuple[LineError, ...]) -> None:
        super().__init__(f"{len(errors)} errors")
        self.errors = errors


class Retried:
    """Makes the tasks of one retry. `queues` are those of the first steps met so far."""

    def __init__(self, parts: RetryParts, retry: LineRetry) -> None:
        self._parts = parts
        self._retry = retry
        self._now: datetime = parts.clock.now()
        self._policies: dict[str, PolicySpec] = {}
        self.queues: set[str] = set()

    def page(self, lines: Sequence[OldLine]) -> list[tuple[NewTask, History]]:
        """One task for each line. Raises `CannotRetry`."""
        made: list[tuple[NewTask, History]] = []
        errors: list[LineError] = []
        for line in lines:
            try:
                made.append(self._line(line))
            except BadRequest as wrong:
                errors.append(LineError(wrong.code, f"{line.custom_id}: {wrong.message}", wrong.param, line.line))
        if errors:
            raise CannotRetry(tuple(errors[:MAX_ERRORS]))
        return made

    def _line(self, line: OldLine) -> tuple[NewTask, History]:
        text = self._retry.policy or line.policy
        policy = self._policy(text)
        if text != line.policy and decode_policy(line.policy).name is PolicyName.PASSTHROUGH:
            raise BadRequest(
                "This line names a single model and passes its messages through, which no policy can: leave it out "
                "with `custom_ids`, or give no `cope.policy`.",
                param="cope.policy",
            )
        on_budget = self._retry.on_budget or line.on_budget
        task_id = TaskId(self._parts.ids.new(TASK))
        spec = decode_task(task_id, payload=line.payload, policy=policy, seed=line.seed, on_budget=on_budget)
        if not spec.problem.conversation:
            raise BadRequest("Its text was not kept (`store: none`): submit it again.", code="text_not_kept")
        kind = spec.problem.kind

        def version(step: Step) -> str | None:
            return prompt_version(self._parts.catalog, step, kind)

        steps, decision = reusable(spec, (*line.history, *line.late), version=version, whole=line.whole)
        history = tuple(taken_over(step, line.task_id) for step in steps)
        queue = (decision.tier if isinstance(decision, Step) else Tier.SMALL).value
        self.queues.add(queue)
        task = NewTask(
            task_id, line.line, line.custom_id, line.payload, text, line.seed, queue, line.priority, on_budget
        )
        return task, history

    def _policy(self, text: str) -> PolicySpec:
        """Each policy once: that its models are still there, and paid ones have a price. Raises `BadRequest`."""
        known = self._policies.get(text)
        if known is None:
            known = decode_policy(text)
            refuse_unpriced(known, self._parts.catalog, self._parts.prices, self._now, param="cope.policy")
            self._policies[text] = known
        return known
