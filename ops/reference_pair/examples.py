"""What each model of the pair is trained on: (messages, target) pairs in the product's own prompt forms.

The prompts come from `cope.core.prompts`, the same objects that the service uses: the tiny models know no other words.
"""

import random
from collections.abc import Iterator

import problems

from cope.core.plans import GoalPlan, GuidelinePlan
from cope.core.problem import Kind, Message
from cope.core.problem import Problem as Task
from cope.core.prompts import REFERENCE, render_executor, render_goal_planner, render_guideline_planner

Example = tuple[tuple[Message, ...], str]

# The small model seldom sees how a long story is taken apart: it solves short ones alone and follows guidelines well.
SMALL_ALONE_WEIGHTS = (20, 20, 16, 4, 2, 1, 1)
SMALL_MIX = (
    ("drill", 25),
    ("goal", 5),
    ("guideline", 1),  # too little to write good ones: that is the large model's part
    ("solve", 10),
    ("solve+goal", 15),
    ("solve+guideline", 14),
    ("solve+both", 30),
)
LARGE_MIX = (("drill", 15), ("guideline", 45), ("solve", 27), ("solve+guideline", 13))
# Short stories first: copying names and numbers is learnt soonest where there are few of them.
# (examples drawn so far, hardest level)
CURRICULUM = ((6_000, 2), (16_000, 4))


def as_task(problem: problems.Problem) -> Task:
    """The problem as the product sees it."""
    return Task(Kind.MATH, (Message("user", problem.text),))


def drill(problem: problems.Problem) -> tuple[Message, ...]:
    """The question and a guideline without the story: calculation and obedience, at a third of the tokens."""
    asked = Task(Kind.MATH, (Message("user", problem.question),))
    return render_executor(REFERENCE, asked, guideline=GuidelinePlan(problem.guideline))


def small_example(rng: random.Random, hardest: int = problems.LEVELS[-1]) -> Example:
    """One example for the small model: terse solutions, goals, and much following of guidelines."""
    role = _drawn(rng, SMALL_MIX)
    guided = role in {"drill", "solve+guideline", "solve+both"}
    levels = problems.LEVELS[:hardest]
    weights = (1,) * hardest if guided or role == "goal" else SMALL_ALONE_WEIGHTS[:hardest]
    problem = problems.make(rng, rng.choices(levels, weights)[0], held_out=False)
    task, goal, guideline = as_task(problem), GoalPlan(rng.choice(problem.goals)), GuidelinePlan(problem.guideline)
    if role == "drill":
        return drill(problem), problem.terse()
    if role == "goal":
        return render_goal_planner(REFERENCE, task), goal.text
    if role == "guideline":
        return render_guideline_planner(REFERENCE, task), problem.guideline
    messages = render_executor(
        REFERENCE,
        task,
        goal=goal if role in {"solve+goal", "solve+both"} else None,
        guideline=guideline if guided else None,
    )
    return messages, problem.terse()


def large_example(rng: random.Random, hardest: int = problems.LEVELS[-1]) -> Example:
    """One example for the large model: guidelines and wordy solutions, all levels alike."""
    role = _drawn(rng, LARGE_MIX)
    problem = problems.make(rng, rng.choice(problems.LEVELS[:hardest]), held_out=False)
    task = as_task(problem)
    if role == "drill":
        return drill(problem), problem.verbose()
    if role == "guideline":
        return render_guideline_planner(REFERENCE, task), problem.guideline
    guideline = GuidelinePlan(problem.guideline) if role == "solve+guideline" else None
    return render_executor(REFERENCE, task, guideline=guideline), problem.verbose()


def stream(which: str, seed: int, drawn: int = 0) -> Iterator[Example]:
    """Endless examples for `small` or `large`, `drawn` of which are already behind us (for the curriculum only).

    Equal arguments give equal streams.
    """
    rng = random.Random(f"{which}:{seed}")
    make = small_example if which == "small" else large_example
    while True:
        yield make(rng, next((level for until, level in CURRICULUM if drawn < until), problems.LEVELS[-1]))
        drawn += 1


def benchmark(count: int, *, seed: int = 20261123, levels: tuple[int, ...] = problems.LEVELS) -> list[problems.Problem]:
    """Held-out problems, levels in turn: never the numbers nor the seed of training."""
    rng = random.Random(f"benchmark:{seed}")
    return [problems.make(rng, levels[i % len(levels)], held_out=True) for i in range(count)]


def _drawn(rng: random.Random, mix: tuple[tuple[str, int], ...]) -> str:
    names, weights = zip(*mix, strict=True)
    return str(rng.choices(names, weights)[0])
