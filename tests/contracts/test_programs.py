"""Every `ProgramRunner` gives the same verdicts on programs that mean no harm."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from cope.adapters.memory import TrustedPrograms
from cope.adapters.sandbox_runner import SandboxPool, SandboxValues
from cope.core.programs import Ending, ProgramRun, ProgramVerdict
from cope.ports.programs import ProgramRunner

pytestmark = pytest.mark.asyncio(loop_scope="module")
ADD = "def add(a, b):\n    return a + b\n"
TESTS = ("assert add(1, 2) == 3", "assert add(-1, 1) == 0", "assert add('a', 'b') == 'ab'")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["memory", "sandbox"])
async def runner(request: pytest.FixtureRequest) -> AsyncIterator[ProgramRunner]:
    made: ProgramRunner = TrustedPrograms() if request.param == "memory" else SandboxPool(1)
    yield made
    await made.aclose()


async def test_a_program_that_passes_every_test_passes(runner: ProgramRunner) -> None:
    verdict = await runner.run(ProgramRun(ADD, TESTS, entry_point="add"))
    assert verdict == ProgramVerdict(3, 3, loaded=True, ending=Ending.FINISHED)
    assert verdict.passes


async def test_tests_are_counted_each_by_itself_also_after_one_that_fails(runner: ProgramRunner) -> None:
    verdict = await runner.run(ProgramRun("def add(a, b):\n    return abs(a) + b\n", TESTS, entry_point="add"))
    assert (verdict.passed, verdict.total, verdict.passes) == (1, 3, False)
    assert len(verdict.errors) == 2


@pytest.mark.parametrize(
    "program",
    ["def add(a, b) return a", "raise ValueError", "import no_such_module", "def sub(a, b): return a - b", "add = 3"],
)
async def test_a_program_that_does_not_load_or_lacks_its_entry_point_passes_nothing(
    runner: ProgramRunner, program: str
) -> None:
    verdict = await runner.run(ProgramRun(program, TESTS, entry_point="add"))
    assert (verdict.passed, verdict.loaded, verdict.passes) == (0, False, False)
    assert verdict.errors


async def test_the_setup_may_use_what_the_program_defines(runner: ProgramRunner) -> None:
    """MBPP's task 367: its setup builds a tree of the program's own class."""
    program = "class Node:\n    def __init__(self, data): self.data = data\ndef value(node): return node.data"
    verdict = await runner.run(ProgramRun(program, ("assert value(root) == 7",), "root = Node(7)", "value"))
    assert verdict.passes


async def test_the_program_may_use_what_the_setup_defines(runner: ProgramRunner) -> None:
    setup = "from typing import NamedTuple\nclass Pair(NamedTuple):\n    a: int\n    b: int"
    program = "def total(pair: Pair) -> int:\n    return pair.a + pair.b"
    assert (await runner.run(ProgramRun(program, ("assert total(Pair(1, 2)) == 3",), setup, "total"))).passes


async def test_a_setup_that_fails_after_the_program_too_fails_the_run(runner: ProgramRunner) -> None:
    assert not (await runner.run(ProgramRun(ADD, TESTS, "root = Missing()"))).loaded


async def test_a_module_s_main_block_is_not_run_and_a_script_s_is(runner: ProgramRunner) -> None:
    program = "print('top')\nif __name__ == '__main__':\n    print('main')\n    x = input()\n"
    assert (await runner.run(ProgramRun(program, ("assert True",)))).output == "top\n"
    script = program.replace("    x = input()\n", "")
    verdict = await runner.run(ProgramRun(script))
    assert (verdict.output, verdict.passes, verdict.total) == ("top\nmain\n", True, 0)


async def test_equal_behaviour_has_equal_digests_and_other_behaviour_others(runner: ProgramRunner) -> None:
    probes = ("add(2, 3)", "add([1], [2])", "add(1, 'a')")
    plus, swapped, both = [
        await runner.run(ProgramRun(program, ("assert add(1, 2) == 3",), probes=probes))
        for program in (ADD, "def add(a, b): return b + a", "add = lambda x, y: x + y")
    ]
    assert plus.passes
    assert swapped.passes
    assert plus.behaviour == both.behaviour != swapped.behaviour
    assert (await runner.run(ProgramRun(ADD, TESTS))).behaviour is None


async def test_dataclasses_with_written_annotations_work(runner: ProgramRunner) -> None:
    program = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int = 0\n"
    )
    if isinstance(runner, SandboxPool):  # in memory there is no module to look the annotation up in
        assert (await runner.run(ProgramRun(program, ("assert P(3).x == 3",)))).passes


@pytest.mark.parametrize(
    ("program", "value"),
    [
        ("ans = 6 * 7", "42"),
        ("print('thinking')\nans = 'x = 2'", "x = 2"),
        ("ans = 1 / 0", None),
        ("anser = 5", None),
        ("raise SystemExit(0)", None),
    ],
)
async def test_what_a_program_computes_is_read_from_the_variable_it_is_left_in(
    runner: ProgramRunner, program: str, value: str | None
) -> None:
    assert await SandboxValues(runner).value_of(program, "ans") == value
