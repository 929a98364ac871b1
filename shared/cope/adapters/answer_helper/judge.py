"""The `AnswerJudge` adapter: the quick path here, the rest by a helper, and a memory for keys already found."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol, assert_never

from cope.adapters.answer_helper import messages, work
from cope.adapters.answer_helper.pool import HelperLimits, HelperPool, Outcome
from cope.core.answers import extract, extraction_needs_helper, quick_key
from cope.core.answers.limits import MAX_SOLUTION_CHARS
from cope.core.answers.model import AnswerKey, JudgedAnswer, Keyed, NeedsHelper, Unkeyable
from cope.core.answers.program import program_answer, program_of
from cope.core.errors import AnswerHelperUnavailable
from cope.core.problem import Kind, Problem
from cope.core.prompts.model import PROGRAM_ANSWER
from cope.ports.program_values import ProgramValues

MAX_PROGRAM_VALUE = 4_000


class _Performer(Protocol):
    async def perform(self, request: messages.Request) -> Outcome: ...

    async def aclose(self) -> None: ...


class _HereAndNow:
    """Every request in the caller's own process, with no limit of time: for tests and trusted answers."""

    async def perform(self, request: messages.Request) -> Outcome:
        return Outcome(work.perform(request), certain=True)

    async def aclose(self) -> None:
        return None


class CachingJudge:
    """An `AnswerJudge`. Keeps the last `memory` keys that a helper found, by kind and answer."""

    def __init__(self, performer: _Performer, *, memory: int, programs: ProgramValues | None = None) -> None:
        self._performer = performer
        self._programs = programs
        self._memory = memory
        self._found: OrderedDict[tuple[Kind, str], AnswerKey | None] = OrderedDict()

    async def judge(self, problem: Problem, texts: Sequence[str], *, programs: bool = False) -> list[JudgedAnswer]:
        """See `AnswerJudge.judge`."""
        read = self._run if programs else self._judge
        return [await read(problem, text) for text in texts]

    async def grade(self, kind: Kind, gold: str, answer: str) -> bool:
        """math-verify for mathematics; for the other kinds equal keys."""
        if kind is not Kind.MATH:
            key = await self._key(kind, gold)
            return key is not None and key == await self._key(kind, answer)
        return (await self._performer.perform(messages.Grade(gold, answer))).value is True

    async def aclose(self) -> None:
        """Stop the helpers."""
        await self._performer.aclose()

    async def _judge(self, problem: Problem, text: str) -> JudgedAnswer:
        answer = await self._extract(problem, text)
        return JudgedAnswer(answer, None if answer is None else await self._key(problem.kind, answer))

    async def _run(self, problem: Problem, text: str) -> JudgedAnswer:
        if self._programs is None:
            raise AnswerHelperUnavailable(
                "A task's solutions are programs, and this worker has nothing that runs them: configure the sandbox "
                "for workers as it is for the API."
            )
        program = program_of(text)
        value = None if program is None else await self._programs.value_of(program, PROGRAM_ANSWER)
        answer = None if value is None else program_answer(value[:MAX_PROGRAM_VALUE])
        return JudgedAnswer(answer, None if answer is None else await self._key(problem.kind, answer))

    async def _extract(self, problem: Problem, text: str) -> str | None:
        if not extraction_needs_helper(problem):
            return extract(problem, text)
        assert problem.answer_pattern is not None
        request = messages.Find(problem.answer_pattern, text[-MAX_SOLUTION_CHARS:])
        value = (await self._performer.perform(request)).value
        return value if isinstance(value, str) else None

    async def _key(self, kind: Kind, answer: str) -> AnswerKey | None:
        quick = quick_key(kind, answer)
        match quick:
            case Keyed(key):
                return key
            case Unkeyable():
                return None
            case NeedsHelper():
                return await self._helped_key(kind, answer)
            case _:
                assert_never(quick)

    async def _helped_key(self, kind: Kind, answer: str) -> AnswerKey | None:
        place = (kind, answer)
        if place in self._found:
            self._found.move_to_end(place)
            return self._found[place]
        outcome = await self._performer.perform(messages.KeyOf(kind, answer))
        key = AnswerKey(outcome.value) if isinstance(outcome.value, str) else None
        if outcome.certain:
            self._found[place] = key
            if len(self._found) > self._memory:
                self._found.popitem(last=False)
        return key


def helper_judge(
    *,
    size: int = 1,
    limits: HelperLimits | None = None,
    memory: int = 10_000,
    programs: ProgramValues | None = None,
) -> CachingJudge:
    """The judge for all that reads model output. Helpers start when first needed; call `aclose` at the end. `programs`
    runs solutions that are programs; it stays its owner's to close."""
    return CachingJudge(HelperPool(size, limits or HelperLimits()), memory=memory, programs=programs)


def in_process_judge(*, memory: int = 1_000, programs: ProgramValues | None = None) -> CachingJudge:
    """The same keys with no helper and no limit of time: for tests, never for text from outside."""
    return CachingJudge(_HereAndNow(), memory=memory, programs=programs)


def grade_all(kind: Kind, pairs: Sequence[tuple[str, str]], *, limits: HelperLimits | None = None) -> list[bool]:
    """Grade (gold, answer) pairs from code that has no event loop, such as a command line.

    By default with more time than a vote's answers have: math-verify is slow, and nobody waits for it.
    """

    async def run() -> list[bool]:
        judge = helper_judge(limits=limits or HelperLimits(cpu_s=2.0))
        try:
            return [await judge.grade(kind, gold, answer) for gold, answer in pairs]
        finally:
            await judge.aclose()

    return asyncio.run(run())
