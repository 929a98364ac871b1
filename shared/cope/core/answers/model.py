"""What is taken from a solution: the answer as written, and its canonical key."""

import hashlib
from dataclasses import dataclass
from typing import NewType

from cope.core.answers.limits import MAX_KEY_CHARS

AnswerKey = NewType("AnswerKey", str)
"""Canonical form of one answer; equal keys are one vote class."""


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """`answer` as the solution words it, None where there is none; `key` None where it can't be read.

    Kind `code`: the program, a key only where it passes every visible test, and how many it passes (None: not run).
    """

    answer: str | None
    key: AnswerKey | None
    tests_passed: int | None = None


@dataclass(frozen=True, slots=True)
class Keyed:
    """The answer's key, found in the caller's process."""

    key: AnswerKey


@dataclass(frozen=True, slots=True)
class Unkeyable:
    """The answer can't be read: it never wins a vote. `reason` is for people."""

    reason: str


@dataclass(frozen=True, slots=True)
class NeedsHelper:
    """Reading this answer needs real arithmetic, which runs only where it can be killed."""


class Unreadable(Exception):
    """Raised inside this package: the answer has no key."""


class HelperNeeded(Exception):
    """Raised inside this package: the answer's key can't be found in the caller's process."""


def shortened(key: str) -> AnswerKey:
    """The key itself, or its head and SHA-256 where it is long. Injective for all practical purposes."""
    if len(key) <= MAX_KEY_CHARS:
        return AnswerKey(key)
    return AnswerKey(f"{key[:64]}#{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}")
