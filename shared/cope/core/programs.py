"""Programs that a model wrote: what is run, under which limits, and what came of it. Values only; nothing runs here."""

from dataclasses import dataclass
from enum import StrEnum

MAX_PROGRAM_CHARS = 100_000
MAX_TESTS = 200


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What one run may cost.

    `cpu_s`: whole processor seconds, ≥ 1: what decides, because a busy machine must not make a program wrong.
    `wall_s`: seconds by the clock, generous, for a program that sleeps; ten times as many for one that is only waiting
    for a busy processor. `memory_bytes`: of address space, the
    interpreter's own 60 MB included. `output_bytes`: of printed text; a program that prints more is ended.
    """

    cpu_s: int = 5
    wall_s: float = 30.0
    memory_bytes: int = 512 * 2**20
    output_bytes: int = 65_536


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """One program and the statements it is tested by, each a test of its own (at most `MAX_TESTS`).

    The order is: `setup` (its failing does not count), `program`, `setup` again, the tests. With no tests the program
    is a script, run as `__main__`, and what it prints is the result. `entry_point` must be callable afterwards.
    `probes` are expressions whose values tell programs apart that pass the same tests.
    """

    program: str
    tests: tuple[str, ...] = ()
    setup: str = ""
    entry_point: str | None = None
    probes: tuple[str, ...] = ()


class Ending(StrEnum):
    """How a run ended. All but `finished` fail the statement under way and those after it.

    `died`: an early exit, a crash, an exhausted stack. `forged`: it tried to report for itself.
    """

    FINISHED = "finished"
    CPU = "cpu"
    WALL = "wall"
    OUTPUT = "output"
    DIED = "died"
    FORGED = "forged"


@dataclass(frozen=True, slots=True)
class ProgramVerdict:
    """`passed` of `total` tests; `loaded` where the program itself ran to its end and defines its entry point.

    `errors` are the first failures, for people: their words are the program's. `output` is what it printed.
    `behaviour` is a digest of the probes' values: equal digests, equal values. None without probes.
    """

    passed: int
    total: int
    loaded: bool
    ending: Ending
    errors: tuple[str, ...] = ()
    output: str = ""
    behaviour: str | None = None

    @property
    def passes(self) -> bool:
        """Every visible test passed, and it ended by itself. With no tests: it ran to its end."""
        return self.loaded and self.passed == self.total and self.ending is Ending.FINISHED
