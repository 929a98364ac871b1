"""The program values port: what a model-written Python program leaves in a variable, found where it can do no harm."""

from typing import Protocol


class ProgramValues(Protocol):
    """Runs programs nobody has read, with limits of its own on time, memory and output."""

    async def value_of(self, program: str, variable: str) -> str | None:
        """`str()` of what `variable` holds once `program` has ended, at most a few thousand characters.

        None for a program that fails, runs out of time, ends early or never sets it: that is its author's mistake and
        no error. Raises `SandboxUnavailable` where programs can't be run at all.
        """
        ...
