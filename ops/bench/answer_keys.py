"""What a key costs, and what a hostile answer does: ``python ops/bench/answer_keys.py [MATH500.jsonl]``.

Keys go the service's way: in this process where exact arithmetic will do, else in a helper, pipe included, the memory
of found keys off. The file has a JSON object with `answer` a line; without it a few answers of every kind are used.
Hostile answers are timed by the clock; the memory is the largest that any helper ever had.
"""

import asyncio
import json
import os
import resource
import statistics
import sys
import time
from pathlib import Path

from cope.adapters.answer_helper import helper_judge
from cope.core.problem import Kind, Message, Problem

MATH = Problem(Kind.MATH, (Message("user", "?"),))
USUAL = [
    "42", "-3.5", "1,000", r"\frac{3}{4}", r"3\sqrt{13}", r"\pi", "6-5i", "(3, \\frac{\\pi}{2})", "1,-2", "x^2+3x-6",
    r"[-2,7]", r"(-\infty,2)\cup(3,\infty)", r"\begin{pmatrix}1\\2\end{pmatrix}", r"\text{Evelyn}", "y=2x+3", r"10\%",
]  # fmt: skip
HOSTILE = [
    "10^6!", "(10^6)!", r"\binom{10^9}{5\cdot10^8}", "9^{9^{9^9}}", "(3!)!!!!!", "1" * 1990 + "!", "2^" * 900 + "2",
    "(" * 900 + "1" + ")" * 900, r"\sqrt" * 300 + "2", r"\sum_{k=1}^{10^{9}} \frac{1}{k^k}", "x" * 1_000_000,
    r"\prod_{k=1}^{10^{8}} (k+x)", r"\int_0^{10^9} \frac{\sin(x^x)}{1+x^{x}} dx", r"\lim_{x\to 0} x^{x^{x^{x}}}",
    "+".join(rf"\sqrt{{{n}}}" for n in range(2, 120)), "(x+1)" * 150, r"\ln(" * 30 + "7" + ")" * 30,
    "(" + "+".join(f"x_{n}" for n in range(60)) + ")^{40}", r"\max(" + "1," * 90 + r"\sum_{k=1}^{10^7} k^k)",
]  # fmt: skip


async def timed(answers: list[str], *, warm: bool = False) -> list[float]:
    """Milliseconds by the clock for each answer's key, one after the other, helpers warm."""
    judge = helper_judge(memory=0)
    try:
        await judge.judge(MATH, [r"\boxed{\pi}", r"\boxed{\sum_{k=1}^{4} k}"])
        took = []
        for answer in answers:
            if warm:  # the helper that replaces a killed one loads sympy first: not the next answer's time
                await judge.judge(MATH, [r"\boxed{\sum_{k=1}^{4} k}"])
            began = time.perf_counter()
            await judge.judge(MATH, [rf"\boxed{{{answer}}}"])
            took.append((time.perf_counter() - began) * 1000)
        return took
    finally:
        await judge.aclose()


def main() -> None:
    """Print one line of usual answers and one of hostile ones."""
    answers = USUAL
    if len(sys.argv) > 1:
        rows = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
        answers = [json.loads(row)["answer"] for row in rows]
    took = sorted(asyncio.run(timed(answers)))
    print(
        f"{len(took)} usual answers: median {statistics.median(took):.2f} ms, "
        f"95 % {took[int(0.95 * len(took))]:.1f} ms, longest {took[-1]:.0f} ms; load {os.getloadavg()[0]:.1f}"
    )
    worst = asyncio.run(timed(HOSTILE, warm=True))
    longest, at = max((ms, at) for at, ms in enumerate(worst))
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"{len(worst)} hostile answers: longest {longest:.0f} ms ({HOSTILE[at][:40]}), "
        f"largest helper {peak_mb:.0f} MB, limit 512 MB; load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
