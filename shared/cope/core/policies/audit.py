"""The shadow audit's own policy: the large model solves it once, greedily, in a step called `audit`. Not selectable."""

from dataclasses import replace

from cope.core.history import History, step_named
from cope.core.policies import large
from cope.core.policies.common import single
from cope.core.policies.decision import Decision
from cope.core.stages import Step
from cope.core.task import TaskSpec

AUDIT = "audit"


def next_decision(task: TaskSpec, history: History) -> Decision:
    """As policy `large`; the step's name keeps its cost apart from every answer's."""
    asked = step_named(history, AUDIT)
    if asked is not None:
        return single(asked, "the large model's own answer, to compare with")
    step = large.next_decision(task, ())
    if not isinstance(step, Step):
        raise TypeError("a policy begins with a step")
    return replace(step, name=AUDIT, reason="an answer that was not escalated is compared with the large model's")
