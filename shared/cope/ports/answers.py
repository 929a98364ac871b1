"""The answers port: from the text of solutions to answers and their keys, in bounded time."""

from collections.abc import Sequence
from typing import Protocol

from cope.core.answers.model import JudgedAnswer
from cope.core.problem import Kind, Problem


class AnswerJudge(Protocol):
    """Reads answers. What can't be read within its limits is unparsable, never an error."""

    async def judge(self, problem: Problem, texts: Sequence[str], *, programs: bool = False) -> list[JudgedAnswer]:
        """One entry per text, in order. The key depends on the answer alone: not on the problem, order or neighbours.

        With `programs` each text is a program, whose answer is what it computes.

        Raises `AnswerHelperUnavailable` if the means to read an answer can't be started at all.
        """
        ...

    async def grade(self, kind: Kind, gold: str, answer: str) -> bool:
        """Whether `answer` is right, for evaluation only. Not symmetric: the known answer comes first.

        Raises `AnswerHelperUnavailable` as `judge` does.
        """
        ...

    async def aclose(self) -> None:
        """Stop every helper. Nothing is read afterwards."""
        ...
