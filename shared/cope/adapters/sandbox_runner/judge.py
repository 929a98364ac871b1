"""The `AnswerJudge` that also judges programs: by running them, where a task has visible tests."""

from collections.abc import Sequence

from cope.core.answers.model import AnswerKey, JudgedAnswer
from cope.core.answers.programs import extract_program
from cope.core.behaviours import probes_of
from cope.core.problem import Kind, Problem
from cope.core.programs import ProgramRun
from cope.ports.answers import AnswerJudge
from cope.ports.programs import ProgramRunner

PASSES = "pass"
"""The key of every program that passes: one class, whatever the programs look like."""


class CodeJudge:
    """Kind `code` by `runner`, every other kind by `inner`. Closing it closes both."""

    def __init__(self, inner: AnswerJudge, runner: ProgramRunner) -> None:
        self._inner = inner
        self._runner = runner

    async def judge(self, problem: Problem, texts: Sequence[str], *, programs: bool = False) -> list[JudgedAnswer]:
        """See `AnswerJudge.judge`. Raises `SandboxUnavailable` where programs can't be run."""
        if problem.kind is not Kind.CODE:
            return await self._inner.judge(problem, texts, programs=programs)
        probes = probes_of(problem.tests, problem.entry_point) if problem.by_behaviour else ()
        return [await self._judge(problem, text, probes) for text in texts]

    async def grade(self, kind: Kind, gold: str, answer: str) -> bool:
        """See `AnswerJudge.grade`. A program is graded by hidden tests, which no gold answer holds: `ValueError`."""
        if kind is Kind.CODE:
            raise ValueError("programs are graded by running hidden tests, not by an answer")
        return await self._inner.grade(kind, gold, answer)

    async def aclose(self) -> None:
        """See `AnswerJudge.aclose`."""
        await self._runner.aclose()
        await self._inner.aclose()

    async def _judge(self, problem: Problem, text: str, probes: tuple[str, ...]) -> JudgedAnswer:
        program = extract_program(text, problem.entry_point)
        if program is None or not problem.tests:
            return JudgedAnswer(program, None)
        run = ProgramRun(program, problem.tests, problem.setup, problem.entry_point, probes)
        verdict = await self._runner.run(run)
        if not verdict.passes:
            return JudgedAnswer(program, None, verdict.passed)
        key = PASSES if verdict.behaviour is None else f"{PASSES}-{verdict.behaviour[:16]}"
        return JudgedAnswer(program, AnswerKey(key), verdict.passed)
