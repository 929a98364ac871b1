"""What is taken from a solution: the answer as written, and its canonical key."""

from dataclasses import dataclass
from typing import NewType

AnswerKey = NewType("AnswerKey", str)
"""Canonical form of one answer; equal keys are one vote class."""


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """`answer` as the solution words it, None where there is none; `key` None where it can't be read."""

    answer: str | None
    key: AnswerKey | None
