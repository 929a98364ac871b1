"""Labelled answers of two models to sums: what the small one hedges about it mostly gets wrong."""

from typing import Any

Json = dict[str, Any]


def labelled(count: int) -> list[Json]:
    """Two rows for each of `count` problems, small model first; the large one costs 1,000 nano-dollars."""
    rows: list[Json] = []
    for i in range(count):
        a, b = 10 + i, i * 5 % 19
        sure = i % 3 != 0
        said = a + b if sure is (i % 7 != 0) else a
        text = f"{a} + {b} = {said}. The answer is {said}." if sure else f"Perhaps about {said}. The answer is {said}."
        problem, gold = f"What is {a} plus {b}?", str(a + b)
        rows.append({"problem": problem, "model": "s", "text": text, "gold": gold, "cost_nanousd": 0})
        last = a + b + (i % 13 == 0)
        rows.append(
            {"problem": problem, "model": "l", "text": f"It is \\boxed{{{last}}}", "gold": gold, "cost_usd": "0.000001"}
        )
    return rows
