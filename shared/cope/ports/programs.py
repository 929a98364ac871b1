"""The programs port: run what a model wrote, where it can do nothing but compute."""

from typing import Protocol

from cope.core.programs import ProgramRun, ProgramVerdict, RunLimits


class ProgramRunner(Protocol):
    """Runs untrusted programs. A program that fails, hangs or attacks gets a verdict, never an error."""

    async def run(self, run: ProgramRun, limits: RunLimits | None = None) -> ProgramVerdict:
        """Raises `SandboxUnavailable` where no sound sandbox can be started: then nothing was run."""
        ...

    async def aclose(self) -> None:
        """End every run. Nothing is run afterwards."""
        ...
