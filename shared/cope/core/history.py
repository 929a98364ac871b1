"""What has been done for a task: finished steps and their samples. The only input of a policy beside the task."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cope.core.answers.model import AnswerKey
from cope.core.ids import TaskId
from cope.core.money import ZERO, NanoUSD, TokenUsage
from cope.core.stages import Stage, Tier


class SampleStatus(StrEnum):
    """How a chain ended: `aborted` by an early stop, `failed` by an error that repeating can't mend."""

    FINISHED = "finished"
    ABORTED = "aborted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Sample:
    """One chain of a step. `index` in [0, n). `key` is None for an unparsable answer: it never wins a vote.

    `plan` is the chain's own plan (None where the step draws none), `solution` the executor's text. `tests_passed` is
    how many visible tests a program passed, None where none was run. `mean_logprob` ≤ 0 is that of the solution's
    tokens, where the step asked for it and the server gave it.
    """

    index: int
    status: SampleStatus
    plan: str | None = None
    solution: str | None = None
    answer: str | None = None
    key: AnswerKey | None = None
    finish_reason: str | None = None
    error: str | None = None
    usage: TokenUsage = TokenUsage()
    solution_usage: TokenUsage = TokenUsage()
    tests_passed: int | None = None
    mean_logprob: float | None = None


@dataclass(frozen=True, slots=True)
class FinishedStep:
    """One step as it was carried out. `samples` are ordered by index and include aborted and failed ones.

    `reused_from` is the task that carried it out, where a retry took it over: it cost nothing again, so `cost` and
    `usage` are zero here. `scoring` says how the samples' log-probabilities were had and are read.
    """

    name: str
    stage: Stage
    tier: Tier
    model: str
    n: int
    samples: tuple[Sample, ...]
    reason: str
    prompt_version: str
    started_at: datetime
    finished_at: datetime
    usage: TokenUsage = TokenUsage()
    cost: NanoUSD = ZERO
    price_version: str | None = None
    stopped_early: str | None = None
    reused_from: TaskId | None = None
    scoring: str | None = None

    @property
    def arrived(self) -> tuple[Sample, ...]:
        """The samples that ran to their end, by index."""
        return tuple(sample for sample in self.samples if sample.status is SampleStatus.FINISHED)


History = tuple[FinishedStep, ...]


def step_named(history: History, name: str) -> FinishedStep | None:
    """The finished step of that name, or None while it has not been carried out."""
    return next((step for step in history if step.name == name), None)
