"""What only kind `action` knows: the admissible actions of one decision. Refusals name the key."""

from collections.abc import Mapping
from dataclasses import replace

from cope.core.answers.actions import MAX_ACTION_CHARS, first_twins
from cope.core.errors import BadRequest
from cope.core.problem import Kind, Problem
from cope.core.request_values import as_text_list

ACTION_KEYS = frozenset({"actions"})
MAX_ACTIONS = 512
_PARAM = "cope.actions"


def action_problem(problem: Problem, cope: Mapping[str, object]) -> Problem:
    """`problem` with its actions; as it is for any other kind, which may bring none. Raises `BadRequest`."""
    if problem.kind is not Kind.ACTION:
        refuse_action_keys(cope, f"belongs to kind `action`, and this line's is `{problem.kind.value}`.")
        return problem
    if cope.get("actions") is None:
        raise BadRequest(
            'Kind `action` needs `cope.actions`: the admissible actions, such as ["go to desk 1", "open drawer 2"].',
            param=_PARAM,
        )
    actions = as_text_list(cope["actions"], _PARAM, fewest=1, most=MAX_ACTIONS)
    for place, action in enumerate(actions):
        if len(action) > MAX_ACTION_CHARS or len(action.splitlines()) != 1 or not action.strip():
            raise BadRequest(
                f"`{_PARAM}[{place}]` must be one line of at most {MAX_ACTION_CHARS} characters, not blank: a model "
                "states an action in one line.",
                param=f"{_PARAM}[{place}]",
            )
    twins = first_twins(actions)
    if twins is not None:
        before, place = twins
        raise BadRequest(
            f"`{_PARAM}[{place}]` is `{_PARAM}[{before}]` again: without regard to case, spaces, numbering, quotes and "
            "punctuation at the end, which votes do without. Leave one of them out, or word them apart.",
            param=f"{_PARAM}[{place}]",
        )
    return replace(problem, actions=actions)


def refuse_action_keys(cope: Mapping[str, object], why: str) -> None:
    """Raises `BadRequest` where actions are given and can't be honoured."""
    if cope.get("actions") is not None:
        raise BadRequest(f"`actions` {why}", param=_PARAM)
