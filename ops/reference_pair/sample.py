"""Write the demo's batch: ``python sample.py``. Held-out problems of levels 1 to 7 in turn, always the same ones.

At the end come problems of another form, which neither model was trained on: eight samples scatter even with a
guideline, so that these are what takes the demo to Stage 3 (and the tiny large model seldom solves them either).
"""

import json
from pathlib import Path

from examples import benchmark

COUNT = 60
SEED = 20261124  # not the evaluation's
FOREIGN_LEVEL = 0
FOREIGN = (
    ("A train has 4 coaches with 12 seats each. 19 seats are taken. How many seats are free?", 29),
    ("Tom reads 15 pages on each of 3 evenings and then 8 more. The book has 60 pages. How many are left?", 7),
    ("Three friends share 42 cards equally. Lena then gives 5 of hers to Max. How many cards has Lena now?", 9),
    ("A garden is 9 metres long and 6 metres wide. How many metres of fence go around it?", 30),
)
OUT = Path(__file__).parent / "sample_problems.jsonl"


def rows() -> list[dict[str, str | int]]:
    """The sample problems; `answer` is a whole number as text."""
    told = [(p.level, p.text, p.answer) for p in benchmark(COUNT, seed=SEED)]
    told += [(FOREIGN_LEVEL, text, answer) for text, answer in FOREIGN]
    return [
        {"id": f"sample-{i:02d}", "level": level, "problem": text, "answer": str(answer)}
        for i, (level, text, answer) in enumerate(told, start=1)
    ]


if __name__ == "__main__":
    OUT.write_text("".join(json.dumps(row) + "\n" for row in rows()))
