"""A task: one problem, how it is to be solved, and what the caller asked of the answer's form."""

from dataclasses import dataclass
from enum import StrEnum

from cope.core.ids import TaskId
from cope.core.money import NanoUSD
from cope.core.policies.spec import PolicySpec
from cope.core.problem import Problem
from cope.core.responses.form import ResponseForm


class OnBudget(StrEnum):
    """What happens to a task whose next paid call does not fit under a cap: it waits, ends with the small model's
    majority answer (marked as degraded), or fails."""

    HOLD = "hold"
    BEST_VOTE = "best_vote"
    FAIL = "fail"


class StoreLevel(StrEnum):
    """What a finished task keeps: every text, the answers and plans that mattered, or decisions and counts only."""

    FULL = "full"
    ANSWERS = "answers"
    NONE = "none"


class ProviderBatch(StrEnum):
    """Whether a paid step may wait for the provider's own, cheaper Batch API: where the window allows, or never."""

    AUTO = "auto"
    OFF = "off"


class Cache(StrEnum):
    """Whether a task may be answered with the stored result of an identical one of its project."""

    OFF = "off"
    READ = "read"


@dataclass(frozen=True, slots=True)
class CallerOptions:
    """OpenAI fields of the request that act on solutions.

    `max_tokens` caps every solution (None: the policy's limit). `temperature` and `top_p` (0 < top_p ≤ 1) act on the
    executors of Stages 1 and 2, `stop` on every executor. `choices_n` ≥ 1 is OpenAI's `n`: how many choices to return.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    choices_n: int = 1


NO_OPTIONS = CallerOptions()
"""Those of a caller who asked for nothing."""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """Everything a policy may look at, beside the history. `requested_model` is echoed in the response; `max_cost`
    bounds what the task's paid calls may cost together (None: no cap of its own). `form` is set where the answer is to
    be written as a Response, None for a chat completion. `own_seed` is only kept of tasks that read the answer pool:
    whether the caller chose the seed."""

    task_id: TaskId
    problem: Problem
    policy: PolicySpec
    requested_model: str
    seed: int
    options: CallerOptions = CallerOptions()
    on_budget: OnBudget = OnBudget.HOLD
    store: StoreLevel = StoreLevel.ANSWERS
    max_cost: NanoUSD | None = None
    provider_batch: ProviderBatch = ProviderBatch.AUTO
    form: ResponseForm | None = None
    cache: Cache = Cache.OFF
    own_seed: bool = False
