"""A configured model named in the request: one call with the caller's own messages, budgeted and recorded."""

from cope.core.history import History, step_named
from cope.core.policies.common import single
from cope.core.policies.decision import Decision
from cope.core.policies.spec import SOLUTION_TOKENS
from cope.core.prompts.model import Role
from cope.core.stages import Call, Stage, Step, Tier
from cope.core.task import TaskSpec

CALL = "call"


def next_decision(task: TaskSpec, history: History) -> Decision:
    """The caller's messages, verbatim, to the named model; OpenAI's `n` is served by as many samples."""
    called = step_named(history, CALL)
    if called is not None:
        return single(called, "a single call, passed through")
    options = task.options
    tier = task.policy.passthrough_tier
    return Step(
        name=CALL,
        stage=Stage.LARGE_EXECUTES if tier is Tier.LARGE else Stage.SMALL_PLANS_AND_EXECUTES,
        tier=tier,
        model=task.policy.large if tier is Tier.LARGE else task.policy.small,
        n=options.choices_n,
        planner=None,
        executor=Call(
            Role.EXECUTOR,
            1.0 if options.temperature is None else options.temperature,
            SOLUTION_TOKENS if options.max_tokens is None else options.max_tokens,
        ),
        verbatim=True,
        reason="the request names this model",
    )
