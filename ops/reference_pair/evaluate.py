"""Measure the pair on held-out problems: ``python evaluate.py [--problems 700] [--out RESULTS.md]``.

Every setting is drawn once for all problems; the policies are then computed from the same draws (`simulate.py`).
Sampling has no seed in this engine, so figures move a little from run to run, within the intervals shown.
"""

import argparse
import datetime
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import problems
from engine import Model, Sample
from examples import as_task, benchmark
from simulate import (
    Drawn,
    Outcome,
    Spent,
    cope,
    large_only,
    p1_star,
    planless_cascade,
    read_answer,
    small_majority,
    vote,
    wilson,
)

from cope.core.plans import GoalPlan, GuidelinePlan
from cope.core.problem import Problem as Task
from cope.core.prompts import REFERENCE, render_executor, render_goal_planner, render_guideline_planner

HERE = Path(__file__).parent
N = 8
PLANNER1, EXECUTOR1, PLANNER2, EXECUTOR2 = 0.8, 0.4, 0.8, 0.8
T75, T50 = Fraction(3, 4), Fraction(1, 2)


@dataclass(frozen=True)
class Measured:
    """Right or wrong, problem by problem, for each setting; and the draws that the policies are computed from."""

    settings: dict[str, list[bool]]
    drawn: list[Drawn]


def measure(small: Model, large: Model, asked: Sequence[problems.Problem]) -> Measured:
    """Ask both models everything that the tables need."""
    tasks = [as_task(p) for p in asked]
    said: dict[str, list[bool]] = {}

    def answers(samples: list[list[Sample]]) -> list[tuple[int | None, ...]]:
        return [tuple(read_answer(s.text) for s in group) for group in samples]

    def note(name: str, given: Sequence[int | None]) -> None:
        said[name] = [g == p.answer for g, p in zip(given, asked, strict=True)]

    def solve(
        model: Model, goals: Sequence[str] | None, guides: Sequence[str] | None, n: int = 1, temperature: float = 0.0
    ) -> list[list[Sample]]:
        prompts = [
            render_executor(
                REFERENCE,
                task,
                goal=GoalPlan(goals[i]) if goals else None,
                guideline=GuidelinePlan(guides[i]) if guides else None,
            )
            for i, task in enumerate(tasks)
        ]
        return model.ask(prompts, n=n, temperature=temperature)

    def guidelines(model: Model, temperature: float) -> list[Sample]:
        prompts = [render_guideline_planner(REFERENCE, task) for task in tasks]
        return [group[0] for group in model.ask(prompts, temperature=temperature)]

    plain = answers(solve(small, None, None, N, EXECUTOR1))
    note("small, single sample (temperature 0.4)", [group[0] for group in plain])
    note("small, greedy", [g[0] for g in answers(solve(small, None, None))])
    note("small, majority of 8", [vote(group)[0] for group in plain])

    goals, stage1 = stage_one(small, tasks)
    note("small with its own goals, majority of 8 (Stage 1)", [vote(group)[0] for group in stage1])

    own = [p.guideline for p in asked]
    note("small with the generator's guideline, greedy", [g[0] for g in answers(solve(small, None, own))])
    greedy = [s.text for s in guidelines(large, 0.0)]
    said["large model's guideline, greedy: word for word the generator's"] = [
        text == wanted for text, wanted in zip(greedy, own, strict=True)
    ]
    note("small with the large model's guideline, greedy", [g[0] for g in answers(solve(small, None, greedy))])

    rng = random.Random("p1 star")
    handed_on = [group[p1_star(votes, rng)] for group, votes in zip(goals, stage1, strict=True)]
    sampled = guidelines(large, PLANNER2)
    guides = [s.text for s in sampled]
    said["large model's guideline, temperature 0.8: word for word the generator's"] = [
        text == wanted for text, wanted in zip(guides, own, strict=True)
    ]
    stage2 = answers(solve(small, handed_on, guides, N, EXECUTOR2))
    note("small with goal and the large model's guideline, majority of 8 (Stage 2)", [vote(g)[0] for g in stage2])
    stage3 = [g[0] for g in solve(large, None, guides)]
    note("large with its own guideline, greedy (Stage 3)", [read_answer(s.text) for s in stage3])

    alone = [g[0] for g in solve(large, None, None)]
    note("large, greedy", [read_answer(s.text) for s in alone])
    wrong_way = [s.text for s in guidelines(small, 0.0)]
    note("large with the *small* model's guideline, greedy", [g[0] for g in answers(solve(large, None, wrong_way))])

    drawn = [
        Drawn(
            answer=p.answer,
            plain=plain[i],
            stage1=stage1[i],
            stage2=stage2[i],
            stage3=read_answer(stage3[i].text),
            large=read_answer(alone[i].text),
            guideline_cost=Spent(sampled[i].prompt_tokens, sampled[i].tokens),
            stage3_cost=Spent(stage3[i].prompt_tokens, stage3[i].tokens),
            large_cost=Spent(alone[i].prompt_tokens, alone[i].tokens),
        )
        for i, p in enumerate(asked)
    ]
    return Measured(said, drawn)


def stage_one(small: Model, tasks: Sequence[Task]) -> tuple[list[list[str]], list[tuple[int | None, ...]]]:
    """N goals for each task, and the answer reached with each."""
    drawn = small.ask([render_goal_planner(REFERENCE, task) for task in tasks], n=N, temperature=PLANNER1, limit=96)
    goals = [[s.text for s in group] for group in drawn]
    prompts = [
        render_executor(REFERENCE, task, goal=GoalPlan(goal))
        for task, group in zip(tasks, goals, strict=True)
        for goal in group
    ]
    solved = [read_answer(group[0].text) for group in small.ask(prompts, temperature=EXECUTOR1)]
    return goals, [tuple(solved[i * N : (i + 1) * N]) for i in range(len(tasks))]


def percent(right: Sequence[bool]) -> str:
    """A share with its 95 % interval."""
    low, high = wilson(sum(right), len(right))
    return f"{100 * sum(right) / len(right):.1f} [{100 * low:.1f}, {100 * high:.1f}]" if right else "none"


def setting_rows(asked: Sequence[problems.Problem], settings: dict[str, list[bool]]) -> list[str]:
    """One line a setting: all problems, then level by level."""
    rows = ["| setting | all, % [95 %] | levels 1 to 7, % |", "|---|---|---|"]
    for name, right in settings.items():
        levels = []
        for level in problems.LEVELS:
            of_level = [r for r, p in zip(right, asked, strict=True) if p.level == level]
            levels.append(f"{100 * sum(of_level) / len(of_level):.0f}")
        rows.append(f"| {name} | {percent(right)} | {' / '.join(levels)} |")
    return rows


def vote_rows(drawn: Sequence[Drawn]) -> list[str]:
    """How often the majority is right, by its number of votes."""
    rows = [
        "| votes of 8 | Stage 1: problems | right, % [95 %] | Stage 2: problems | right, % [95 %] |",
        "|---|---|---|---|---|",
    ]
    for k in range(N, 0, -1):
        cells = []
        for stage in ("stage1", "stage2"):
            winners = [(vote(getattr(d, stage)), d.answer) for d in drawn]
            right = [winner == answer for (winner, share), answer in winners if share == Fraction(k, N)]
            cells += [str(len(right)), percent(right)]
        rows.append(f"| {k} | {' | '.join(cells)} |")
    return rows


def policy_rows(drawn: Sequence[Drawn]) -> list[str]:
    """One line a policy: accuracy, where problems end, large-model tokens as a share of large-only's."""
    policies: dict[str, Callable[[Drawn], Outcome]] = {
        "small-majority": small_majority,
        "large only": large_only,
        "plan-less cascade, 0.75": lambda d: planless_cascade(d, T75),
        "plan-less cascade, 1.0": lambda d: planless_cascade(d, Fraction(1)),
        "COPE (0.75, 0.5)": lambda d: cope(d, T75, T50),
        "COPE (0.75, 0.75)": lambda d: cope(d, T75, T75),
        "COPE (1.0, 0.75)": lambda d: cope(d, Fraction(1), T75),
        "COPE (1.0, 1.0)": lambda d: cope(d, Fraction(1), Fraction(1)),
    }
    whole = [large_only(d).cost for d in drawn]
    rows = [
        "| policy | right, % [95 %] | ended in Stage 1 / 2 / 3, % | output tokens of the large, % | prompt tokens, % |",
        "|---|---|---|---|---|",
    ]
    for name, decide in policies.items():
        done = [decide(d) for d in drawn]
        ended = " / ".join(f"{100 * sum(o.stage == s for o in done) / len(done):.0f}" for s in (1, 2, 3))
        output = 100 * sum(o.cost.output for o in done) / sum(c.output for c in whole)
        prompt = 100 * sum(o.cost.prompt for o in done) / sum(c.prompt for c in whole)
        rows.append(f"| {name} | {percent([o.right for o in done])} | {ended} | {output:.0f} | {prompt:.0f} |")
    return rows


def table(rows: Sequence[str]) -> str:
    """The rows, one a line."""
    return "\n".join(rows)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=700)
    parser.add_argument("--weights", type=Path, default=HERE / "weights")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--date", default=datetime.datetime.now(tz=datetime.UTC).date().isoformat())
    parser.add_argument("--out", type=Path, help="write the tables there instead of to the terminal")
    arguments = parser.parse_args()
    asked = benchmark(arguments.problems)
    small, large = (Model(arguments.weights / which, arguments.threads) for which in ("small", "large"))
    began = time.monotonic()
    measured = measure(small, large, asked)
    command = f"python evaluate.py --problems {len(asked)} --out RESULTS.md"
    text = f"""# The reference pair, measured

{arguments.date}, {len(asked)} held-out problems, levels 1 to 7 in equal parts; drawn in
{time.monotonic() - began:.0f} s on {arguments.threads} shared CPU cores. Command, in `ops/reference_pair`: `{command}`.
Sampling is unseeded: a new run moves within the intervals (Wilson, 95 %). These are figures of two tiny models on
synthetic problems: they show that the mechanisms work, and say nothing of the paper's models.

## Settings

{table(setting_rows(asked, measured.settings))}

## Votes

Stage 1: goals at temperature {PLANNER1}, solutions at {EXECUTOR1}. Stage 2: one guideline at {PLANNER2}, solutions at
{EXECUTOR2}. Over all problems, escalated or not.

{table(vote_rows(measured.drawn))}

## Policies, computed from the same draws

Tokens are the large model's, as a share of what `large only` takes.

{table(policy_rows(measured.drawn))}
"""
    if arguments.out:
        arguments.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
