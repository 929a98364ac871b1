"""Which file decides for which policy. A new policy adds one file and one line here."""

from typing import assert_never

from cope.core.history import History
from cope.core.policies import (
    abc,
    audit,
    cascade_verify,
    cascade_vote,
    cope,
    frugalgpt,
    large,
    large_plan,
    passthrough,
    plan_execute,
    small,
    small_guided,
    turns,
)
from cope.core.policies.decision import Accept, Decision
from cope.core.policies.spec import PolicyName
from cope.core.task import TaskSpec


def next_decision(task: TaskSpec, history: History) -> Decision:
    """What to do next for `task`, given its finished steps. Pure: equal arguments give equal decisions."""
    if task.problem.turns:
        return turns.next_decision(task, history, _decide)
    return _decide(task, history)


def answered_turns(task: TaskSpec, history: History) -> tuple[Accept, ...]:
    """The answers of a task of several turns so far; empty for any other task."""
    return turns.answered(task, history, _decide) if task.problem.turns else ()


def _decide(task: TaskSpec, history: History) -> Decision:
    match task.policy.name:
        case PolicyName.COPE | PolicyName.COPE_S2:
            return cope.next_decision(task, history)
        case PolicyName.SMALL | PolicyName.SMALL_MAJORITY | PolicyName.SMALL_MULTI:
            return small.next_decision(task, history)
        case PolicyName.LARGE:
            return large.next_decision(task, history)
        case PolicyName.CASCADE_VOTE:
            return cascade_vote.next_decision(task, history)
        case PolicyName.CASCADE_VERIFY:
            return cascade_verify.next_decision(task, history)
        case PolicyName.ABC:
            return abc.next_decision(task, history)
        case PolicyName.FRUGALGPT:
            return frugalgpt.next_decision(task, history)
        case PolicyName.PLAN_EXECUTE:
            return plan_execute.next_decision(task, history)
        case PolicyName.LARGE_PLAN:
            return large_plan.next_decision(task, history)
        case PolicyName.SMALL_GUIDED:
            return small_guided.next_decision(task, history)
        case PolicyName.PASSTHROUGH:
            return passthrough.next_decision(task, history)
        case PolicyName.AUDIT:
            return audit.next_decision(task, history)
        case _:
            assert_never(task.policy.name)
