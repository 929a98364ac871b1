"""One problem as the cascade sees it: its kind, the caller's conversation, and what an answer may look like."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

MessageRole = Literal["system", "developer", "user", "assistant"]


class Kind(StrEnum):
    """How answers are judged (paper, section 4 and appendix B; `exact` is its exact string match)."""

    MATH = "math"
    CHOICE = "choice"
    EXACT = "exact"
    CODE = "code"
    OPEN = "open"
    ACTION = "action"


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message. `content` is plain text: parts of other types are refused at the edge."""

    role: MessageRole
    content: str


@dataclass(frozen=True, slots=True)
class Problem:
    """What a task asks, without how it is to be solved.

    `conversation` is the caller's own, in order, never empty; its last message is the user's.
    `choices` is non-empty exactly for kind `choice`. `answer_pattern` (a regular expression with at most one group)
    and `answer_pointer` (RFC 6901) belong to kind `exact` and are mutually exclusive. `turns` are the user's later
    messages, one cascade each, and `category` names the threshold that judges it: both belong to kind `open`.

    Kind `code`: `tests` (the visible ones, each a statement), `setup` and `entry_point` as in
    `cope.core.programs.ProgramRun`. With `by_behaviour`, programs that pass are told apart by what they do with
    further inputs.

    `actions`, non-empty exactly for kind `action`, are the admissible ones, as the caller spells them.
    """

    kind: Kind
    conversation: tuple[Message, ...]
    choices: tuple[str, ...] = ()
    answer_pattern: str | None = None
    answer_pointer: str | None = None
    tests: tuple[str, ...] = ()
    setup: str = ""
    entry_point: str | None = None
    by_behaviour: bool = False
    turns: tuple[str, ...] = ()
    category: str | None = None
    actions: tuple[str, ...] = ()
