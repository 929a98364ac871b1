"""Write the demo's batch: ``python sample.py``. Held-out problems of levels 1 to 7 in turn, always the same ones."""

import json
from pathlib import Path

from examples import benchmark

COUNT = 60
SEED = 20261124  # not the evaluation's
OUT = Path(__file__).parent / "sample_problems.jsonl"


def rows() -> list[dict[str, str | int]]:
    """The sample problems; `answer` is a whole number as text."""
    return [
        {"id": f"sample-{i:02d}", "level": p.level, "problem": p.text, "answer": str(p.answer)}
        for i, p in enumerate(benchmark(COUNT, seed=SEED), start=1)
    ]


if __name__ == "__main__":
    OUT.write_text("".join(json.dumps(row) + "\n" for row in rows()))
