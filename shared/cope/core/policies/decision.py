"""What a policy can decide: carry out a step, accept an answer, or stop because there is none."""

from dataclasses import dataclass
from fractions import Fraction

from cope.core.errors import ErrorInfo
from cope.core.stages import Stage, Step
from cope.core.vote import Vote


@dataclass(frozen=True, slots=True)
class Accept:
    """The task's answer is that of sample `sample_index` of step `step`.

    `accepted` is False where a policy returns its best answer without having reached its threshold (`max_stage` 2,
    `small-majority`). `degraded` is True where money stopped the cascade short of its end. `confidence` and
    `threshold` are None where nothing was voted on.
    """

    step: str
    sample_index: int
    stage: Stage
    accepted: bool
    reason: str
    confidence: Fraction | None = None
    threshold: Fraction | None = None
    vote: Vote | None = None
    degraded: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """The task ends without an answer."""

    error: ErrorInfo


Decision = Step | Accept | Stop
