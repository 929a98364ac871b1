"""What a program computes, found by running it in the sandbox: for solutions that are programs (PoT)."""

from cope.core.answers.program import printed_value, printing
from cope.core.programs import ProgramRun
from cope.ports.programs import ProgramRunner


class SandboxValues:
    """A `ProgramValues`. The runner stays its owner's to close."""

    def __init__(self, runner: ProgramRunner) -> None:
        self._runner = runner

    async def value_of(self, program: str, variable: str) -> str | None:
        """See `ProgramValues.value_of`."""
        verdict = await self._runner.run(ProgramRun(printing(program, variable)))
        return printed_value(verdict.output) if verdict.passes else None
