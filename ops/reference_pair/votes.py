"""Draw whole votes from the pair: ``python votes.py OUT.jsonl [--problems 100]``, for `ops.bench.early_stopping`.

Stage 1 and Stage 2 as the product asks for them, all eight samples of each, on held-out problems: one line a problem.
Sampling has no seed in this engine, so no two files are alike.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine import Model, Sample
from evaluate import EXECUTOR1, EXECUTOR2, HERE, PLANNER1, PLANNER2, N
from examples import as_task, benchmark
from simulate import p1_star, read_answer

from cope.core.plans import GoalPlan, GuidelinePlan
from cope.core.problem import Problem
from cope.core.prompts import REFERENCE, render_executor, render_goal_planner, render_guideline_planner

SEED = 20261125


def rows(small: Model, large: Model, tasks: Sequence[Problem]) -> list[dict[str, Any]]:
    """For each task its samples of both votes."""
    goals = small.ask([render_goal_planner(REFERENCE, task) for task in tasks], n=N, temperature=PLANNER1, limit=96)
    own = [
        render_executor(REFERENCE, task, goal=GoalPlan(goal.text))
        for task, group in zip(tasks, goals, strict=True)
        for goal in group
    ]
    solved = [group[0] for group in small.ask(own, temperature=EXECUTOR1)]
    stage1 = [solved[at : at + N] for at in range(0, len(solved), N)]
    guides = large.ask([render_guideline_planner(REFERENCE, task) for task in tasks], temperature=PLANNER2)
    rng = random.Random("p1 star")
    handed_on = [goals[i][p1_star([read_answer(s.text) for s in group], rng)] for i, group in enumerate(stage1)]
    together = [
        render_executor(REFERENCE, task, goal=GoalPlan(goal.text), guideline=GuidelinePlan(guide[0].text))
        for task, goal, guide in zip(tasks, handed_on, guides, strict=True)
    ]
    stage2 = small.ask(together, n=N, temperature=EXECUTOR2)
    return [
        {"samples": _samples("stage 1", stage1[i], goals[i]) + _samples("stage 2", stage2[i])}
        for i in range(len(tasks))
    ]


def _samples(vote: str, solutions: Sequence[Sample], plans: Sequence[Sample] = ()) -> list[dict[str, Any]]:
    """`text` is all that the chain wrote, its plan first."""
    written = [plan.text for plan in plans] or [""] * len(solutions)
    return [
        {
            "model": "reference pair",
            "prompt_style": vote,
            "text": written[i] + solution.text,
            "answer": read_answer(solution.text),
        }
        for i, solution in enumerate(solutions)
    ]


def main() -> None:
    """Draw, and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    tasks = [as_task(problem) for problem in benchmark(given.problems, seed=SEED)]
    small, large = (Model(HERE / "weights" / name, given.threads) for name in ("small", "large"))
    given.out.write_text("".join(json.dumps(row) + "\n" for row in rows(small, large, tasks)))


if __name__ == "__main__":
    main()
