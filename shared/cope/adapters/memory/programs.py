"""Programs run in the caller's own process, with no sandbox and no limit: for tests of trusted programs alone."""

import contextlib
import io
from hashlib import sha256
from typing import Any

from cope.core.programs import Ending, ProgramRun, ProgramVerdict, RunLimits


class TrustedPrograms:
    """A `ProgramRunner`. Keeps what it was asked in `runs`; `refuses` is raised instead of running anything."""

    def __init__(self, *, refuses: Exception | None = None) -> None:
        self._refuses = refuses
        self.runs: list[ProgramRun] = []

    async def run(self, run: ProgramRun, limits: RunLimits | None = None) -> ProgramVerdict:
        """See `ProgramRunner.run`. The limits are not enforced."""
        if self._refuses is not None:
            raise self._refuses
        self.runs.append(run)
        names: dict[str, Any] = {"__name__": "solution" if run.tests or run.probes else "__main__"}
        printed, errors, passed, behaviour = io.StringIO(), [], 0, None
        with contextlib.redirect_stdout(printed):
            _failure(run.setup, names)
            failed = _failure(run.program, names) or _failure(run.setup, names)
            if failed is None and run.entry_point is not None and not callable(names.get(run.entry_point)):
                failed = f"the program defines no function {run.entry_point}"
            if failed is not None:
                return ProgramVerdict(0, len(run.tests), False, Ending.FINISHED, (failed,), printed.getvalue())
            for test in run.tests:
                error = _failure(test, names)
                passed += error is None
                errors += [] if error is None else [error]
            if run.probes:
                behaviour = sha256("\0".join(_value(probe, names) for probe in run.probes).encode()).hexdigest()
        return ProgramVerdict(
            passed, len(run.tests), True, Ending.FINISHED, tuple(errors), printed.getvalue(), behaviour
        )

    async def aclose(self) -> None:
        """Nothing is held."""


def _failure(code: str, names: dict[str, Any]) -> str | None:
    try:
        exec(compile(code, "<program>", "exec"), names)  # noqa: S102 - for trusted programs alone
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return None


def _value(probe: str, names: dict[str, Any]) -> str:
    try:
        return repr(eval(probe, names))  # noqa: S307 - as above
    except BaseException as error:
        return f"! {type(error).__name__}"
