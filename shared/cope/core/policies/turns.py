"""Several user turns in one task (kind `open`): one cascade per turn, each on the accepted earlier turns.

The steps of turn 2 are named `turn2/stage1` and so on; those of the first turn keep their names. Any policy decides for
a turn as it would for a task of that conversation.
"""

from collections.abc import Callable
from dataclasses import replace

from cope.core.history import History, step_named
from cope.core.policies.decision import Accept, Decision
from cope.core.problem import Message, Problem
from cope.core.stages import Step
from cope.core.task import TaskSpec

Decide = Callable[[TaskSpec, History], Decision]


def next_decision(task: TaskSpec, history: History, decide: Decide) -> Decision:
    """The next step of the first turn without an answer; the last turn's acceptance once all have theirs.

    It counts as accepted only where every turn was.
    """
    decision, _ = _walk(task, history, decide)
    return decision


def answered(task: TaskSpec, history: History, decide: Decide) -> tuple[Accept, ...]:
    """The acceptance of each turn that has one, in order."""
    return _walk(task, history, decide)[1]


def _walk(task: TaskSpec, history: History, decide: Decide) -> tuple[Decision, tuple[Accept, ...]]:
    problem = task.problem
    accepted: tuple[Accept, ...] = ()
    conversation = problem.conversation
    for number in range(1, len(problem.turns) + 2):
        if number > 1:
            conversation = (*conversation, Message("user", problem.turns[number - 2]))
        turn = replace(task, problem=replace(problem, conversation=conversation, turns=()))
        decision = decide(turn, _of_turn(history, number))
        if isinstance(decision, Step):
            return replace(decision, name=prefix(number) + decision.name, problem=turn.problem), accepted
        if not isinstance(decision, Accept):
            return decision, accepted
        accepted = (*accepted, replace(decision, step=prefix(number) + decision.step))
        conversation = (*conversation, Message("assistant", _solution(history, accepted[-1])))
    last = accepted[-1]
    return replace(last, accepted=all(turn.accepted for turn in accepted)), accepted


def prefix(number: int) -> str:
    """What stands before the names of the steps of turn `number` ≥ 1."""
    return "" if number == 1 else f"turn{number}/"


def _of_turn(history: History, number: int) -> History:
    if number == 1:
        return tuple(step for step in history if "/" not in step.name)
    start = prefix(number)
    return tuple(replace(s, name=s.name.removeprefix(start)) for s in history if s.name.startswith(start))


def _solution(history: History, accept: Accept) -> str:
    step = step_named(history, accept.step)
    if step is None:
        raise ValueError(f"step {accept.step!r} was accepted but never carried out")
    return next((s.solution or "" for s in step.samples if s.index == accept.sample_index), "")


def problem_of(task: TaskSpec, step: Step) -> Problem:
    """What a step is asked: its turn's problem, else the task's."""
    return task.problem if step.problem is None else step.problem
