"""From a problem, a role and plans to the messages that are sent."""

import re
from collections.abc import Sequence

from cope.core.plans import GoalPlan, GuidelinePlan
from cope.core.problem import Kind, Message, Problem
from cope.core.prompts.model import PromptSet, Shot

_PLACES = re.compile(r"\{(?:entry_point|tests)\}")
_TESTS_SHOWN = 5
"""The paper's benchmark shows three; a hundred would crowd out the problem."""


def render_goal_planner(prompts: PromptSet, problem: Problem) -> tuple[Message, ...]:
    """The messages that ask the small model for a goal plan. Raises `KeyError` for a kind the set has no prompt for."""
    return _render(prompts, problem, (prompts.kinds[problem.kind].goal_planner,))


def render_guideline_planner(prompts: PromptSet, problem: Problem) -> tuple[Message, ...]:
    """The messages that ask the large model for a guideline plan: it sees the problem only (cascade, Stage 2)."""
    return _render(prompts, problem, (prompts.kinds[problem.kind].guideline_planner,))


def render_executor(
    prompts: PromptSet, problem: Problem, *, goal: GoalPlan | None = None, guideline: GuidelinePlan | None = None
) -> tuple[Message, ...]:
    """The messages that ask for a solution, with no plan, a goal, a guideline, or both (Stage 2: p1* then p2)."""
    asked = prompts.kinds[problem.kind].executor
    parts = [asked]
    if goal is not None:
        parts.append(prompts.goal_label + goal.text)
    if guideline is not None:
        parts.append(prompts.guideline_label + guideline.text)
    plain = _PLACES.sub("", asked) if problem.kind is Kind.CODE else asked
    shots = [turn for shot in prompts.shots.get(problem.kind, ()) for turn in _turns(prompts, shot, plain)]
    return _render(prompts, problem, tuple(parts), shots)


def _turns(prompts: PromptSet, shot: Shot, instruction: str) -> tuple[Message, Message]:
    """An example as the model will see the problem itself, and its solution as if the model had said it."""
    asked = f"{shot.problem}{prompts.separator}{_with_actions(_with_choices(instruction, shot.choices), shot.choices)}"
    return Message("user", asked), Message("assistant", shot.solution)


def _with_choices(instruction: str, choices: Sequence[str]) -> str:
    if not choices:
        return instruction
    return instruction.replace("{choices}", "\n".join(f"- {choice}" for choice in choices), 1)


def _with_actions(instruction: str, actions: Sequence[str]) -> str:
    if not actions:
        return instruction
    return instruction.replace("{actions}", "\n".join(f"- {action}" for action in actions), 1)


def _render(
    prompts: PromptSet, problem: Problem, parts: tuple[str, ...], shots: Sequence[Message] = ()
) -> tuple[Message, ...]:
    conversation = list(problem.conversation)
    system = prompts.system
    if conversation and conversation[0].role in {"system", "developer"}:
        own = conversation.pop(0).content
        system = f"{system}\n\n{own}" if system else own
    if problem.kind is Kind.CODE:  # before the plans are joined: a model's words are no template
        parts = (_fill_in_code(parts[0], problem), *parts[1:])
    if problem.kind is Kind.ACTION:  # before the plans are joined: a model's words are no template
        parts = (_with_actions(parts[0], problem.actions), *parts[1:])
    instruction = prompts.separator.join(parts)
    if problem.kind is Kind.CHOICE:
        instruction = _with_choices(instruction, problem.choices)
    if conversation and conversation[-1].role == "user":
        asked = conversation.pop().content
        instruction = f"{asked}{prompts.separator}{instruction}"
    messages = [Message("system", system)] if system else []
    return (*messages, *shots, *conversation, Message("user", instruction))


def _fill_in_code(instruction: str, problem: Problem) -> str:
    """`{entry_point}` and `{tests}` of kind `code`; a set without these places leaves both to the caller's words.

    One pass over the template, so that braces in the caller's own code stand for nothing.
    """
    tests = "\n".join(problem.tests[:_TESTS_SHOWN])
    words = {
        "{entry_point}": f" that defines `{problem.entry_point}`" if problem.entry_point else "",
        "{tests}": f" It must pass these tests:\n{tests}" if tests else "",
    }
    return _PLACES.sub(lambda place: words[place.group()], instruction)
