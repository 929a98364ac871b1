"""What the sandbox costs: ``python ops/bench/sandbox.py [--runs 200] [--mbpp mbpp_test500.jsonl]``.

Interleaved, on one core at a time: a bare interpreter (`python -I -S -c PROGRAM`) and a run in the sandbox, without
bubblewrap and with it where it works. Then runs a second with one sandbox on each core. With `--mbpp`, a file with
`reference_code`, `test_setup_code`, `test_list` and `challenge_test_list` a line: every reference program must pass its
visible and its challenge tests.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cope.adapters.sandbox_runner import SandboxPool
from cope.core.programs import ProgramRun, RunLimits

PROGRAM = "def f(n):\n    return sorted(set(range(n)))[::-1]\n"
TESTS = ("assert f(3) == [2, 1, 0]", "assert f(1) == [0]", "assert f(0) == []")
RUN = ProgramRun(PROGRAM, TESTS, entry_point="f")
BARE = (sys.executable, "-I", "-S", "-c", "\n".join((PROGRAM, *TESTS)))
SANDBOX = (sys.executable, "-m", "cope_sandbox", "serve")


async def seconds_of(pool: SandboxPool) -> float:
    began = time.perf_counter()
    verdict = await pool.run(RUN)
    took = time.perf_counter() - began
    if not verdict.passes:
        raise SystemExit(f"the bench's own program did not pass: {verdict}")
    return took


def bare_seconds() -> float:
    began = time.perf_counter()
    subprocess.run(BARE, check=True)
    return time.perf_counter() - began


async def latency(runs: int) -> None:
    pools = {
        "without bubblewrap": SandboxPool(1, command=(*SANDBOX, "--bubblewrap", "off")),
        "as found": SandboxPool(1),
    }
    for pool in pools.values():
        await pool.run(RUN)
    taken: dict[str, list[float]] = {"bare interpreter": [], **{name: [] for name in pools}}
    for _ in range(runs):
        taken["bare interpreter"].append(bare_seconds())
        for name, pool in pools.items():
            taken[name].append(await seconds_of(pool))
    bare = statistics.median(taken["bare interpreter"])
    for name, seconds in taken.items():
        low, middle, high = (1000 * q for q in (min(seconds), statistics.median(seconds), max(seconds)))
        layers = f" ({pools[name].layers})" if name in pools else ""
        print(f"{name:20} median {middle:6.1f} ms ({low:.1f} to {high:.1f}), {middle - 1000 * bare:+6.1f} ms{layers}")
    for pool in pools.values():
        await pool.aclose()


async def throughput(runs: int) -> None:
    cores = len(os.sched_getaffinity(0))
    pool = SandboxPool(cores)
    await asyncio.gather(*(pool.run(RUN) for _ in range(cores)))
    began = time.perf_counter()
    await asyncio.gather(*(pool.run(RUN) for _ in range(runs)))
    rate = runs / (time.perf_counter() - began)
    print(f"{cores} sandboxes on {cores} cores: {rate:.0f} runs/s, {rate / cores:.0f} for each core")
    await pool.aclose()


async def mbpp(rows: list[dict[str, object]]) -> None:
    pool = SandboxPool(len(os.sched_getaffinity(0)))
    began = time.perf_counter()
    passed = await asyncio.gather(*(_passes(pool, row) for row in rows))
    failed = [row for row, passes in zip(rows, passed, strict=True) if not passes]
    print(f"{len(rows) - len(failed)} of {len(rows)} reference programs pass, {time.perf_counter() - began:.1f} s")
    for row in failed:
        print(f"  task {row['task_id']}: {await pool.run(_run(row))}")
    await pool.aclose()
    if failed:
        raise SystemExit(1)


async def _passes(pool: SandboxPool, row: dict[str, object]) -> bool:
    return (await pool.run(_run(row), RunLimits(cpu_s=10))).passes


def _run(row: dict[str, object]) -> ProgramRun:
    tests: Sequence[str] = [*row["test_list"], *row["challenge_test_list"]]  # type: ignore[misc]
    return ProgramRun(str(row["reference_code"]), tuple(tests), str(row["test_setup_code"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--mbpp", type=Path)
    arguments = parser.parse_args()
    if arguments.runs:
        asyncio.run(latency(arguments.runs))
        asyncio.run(throughput(arguments.runs * 5))
    if arguments.mbpp:
        lines = arguments.mbpp.read_text(encoding="utf-8").splitlines()
        asyncio.run(mbpp([json.loads(line) for line in lines]))


if __name__ == "__main__":
    main()
