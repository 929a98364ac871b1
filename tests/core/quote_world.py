"""Imaginary services whose true costs are known: what quotes are tried on.

A world says how sure the small model is of each line, how long lines and texts are, and how often Stage 2 settles what
escalates. A trial draws a file, its pilot, the project's past and, independently, the batch as it then really runs.
"""

import random
from dataclasses import dataclass

from cope.core.money import NanoUSD, TokenUsage
from cope.core.quote import Past, PilotOutcome
from cope.core.survey import Group, PaidStep, PilotLine, Reach, StepSize, Survey, paid_step
from tests.support import make_price

PRICE = make_price("2.5", "10")
LIMIT, PLAN_LIMIT, VOTES = 2048, 256, 8
_PROMPT = 180
"""Bytes of instructions beside the problem."""


@dataclass(frozen=True)
class World:
    """`unsure` is the mean share of lines that escalate and `spread` how alike they are (small: each line is sure or
    unsure for good); `longer` makes unsure lines longer; `wordy` is the large model's solution beside the small's."""

    unsure: float
    spread: float
    longer: float
    settles: float
    wordy: float
    tokens_per_byte: float
    guideline: float
    lines: int
    pilot: int


@dataclass(frozen=True)
class Line:
    """One line of a file, with what is true of it."""

    doubt: float
    bytes: int
    solution: float


def make_world(rng: random.Random) -> World:
    return World(
        unsure=rng.choice((0.02, 0.1, 0.3, 0.6, 0.9)),
        spread=rng.choice((0.3, 1.0, 5.0, 50.0)),
        longer=rng.choice((1.0, 1.0, 1.5, 3.0)),
        settles=rng.choice((0.05, 0.3, 0.5, 0.8, 0.95)),
        wordy=rng.choice((0.7, 1.0, 1.5, 2.5)),
        tokens_per_byte=rng.choice((0.2, 0.27, 0.45)),
        guideline=rng.choice((25.0, 60.0, 120.0)),
        lines=rng.choice((20, 60, 200, 600)),
        pilot=rng.choice((15, 40, 100)),
    )


def draw_line(rng: random.Random, world: World) -> Line:
    alpha = max(1e-3, world.unsure * world.spread)
    doubt = rng.betavariate(alpha, max(1e-3, world.spread - alpha))
    size = rng.lognormvariate(0.0, 0.5) * 300 * world.longer**doubt
    return Line(doubt, int(size) + 20, min(900.0, 40 + size * rng.lognormvariate(0.0, 0.4)))


def survey_of(lines: list[Line], world: World, rng: random.Random) -> tuple[Survey, list[PilotOutcome]]:
    """The file as it is read, and its pilot's outcome."""
    group = Group("policy", "math", VOTES, pilots=True, steps=_steps(), lines=len(lines))
    for line in lines:
        for step, limit in zip(group.steps, (PLAN_LIMIT, LIMIT), strict=True):
            sent = line.bytes + _PROMPT
            plan = 0 if step.writes_plan else PLAN_LIMIT * 8
            worst = PRICE.worst_case(input_tokens=sent + plan + 80, output_tokens=limit)
            step.add(StepSize(sent, limit, worst))
    drawn = rng.sample(lines, min(world.pilot, len(lines)))
    return Survey(seed=1, valid_at=0, groups=[group]), [_pilot(rng, world, line) for line in drawn]


def _steps() -> list[PaidStep]:
    return [
        paid_step("stage2-plan", "large", Reach.ESCALATED, PRICE, guidelines=0, writes_plan=True),
        paid_step("stage3", "large", Reach.UNRESOLVED, PRICE, guidelines=1, writes_plan=False),
    ]


def _pilot(rng: random.Random, world: World, line: Line) -> PilotOutcome:
    sent = line.bytes + _PROMPT
    prompt = round(sent * world.tokens_per_byte)
    solutions = tuple(max(1, round(line.solution * rng.lognormvariate(0, 0.3))) for _ in range(VOTES))
    return PilotOutcome(
        line=PilotLine(0, (sent, sent), sent),
        accepted=rng.random() >= line.doubt,
        failed=False,
        readable=True,
        planner=TokenUsage(prompt=prompt * VOTES, calls=VOTES),
        solutions=solutions,
        small=TokenUsage(prompt=2 * prompt * VOTES, completion=sum(solutions), calls=2 * VOTES),
    )


def run_line(rng: random.Random, world: World, line: Line) -> tuple[int, int | None, int | None]:
    """What the line really costs, and the output tokens of its guideline and of Stage 3, None where not called."""
    if rng.random() >= line.doubt:
        return 0, None, None
    prompt = round((line.bytes + _PROMPT) * world.tokens_per_byte)
    guideline = min(PLAN_LIMIT, max(1, round(world.guideline * rng.lognormvariate(0, 0.3))))
    cost = PRICE.cost(TokenUsage(prompt=prompt, completion=guideline))
    if rng.random() < world.settles:
        return cost, guideline, None
    solution = min(LIMIT, max(1, round(line.solution * world.wordy * rng.lognormvariate(0, 0.4))))
    return cost + PRICE.cost(TokenUsage(prompt=prompt + guideline, completion=solution)), guideline, solution


def past_of(rng: random.Random, world: World, tasks: int) -> Past:
    """What the project has seen of other files of this world."""
    ran = [run_line(rng, world, draw_line(rng, world)) for _ in range(tasks)]
    plans = [plan for _, plan, _ in ran if plan is not None]
    solutions = [solution for _, _, solution in ran if solution is not None]
    return Past(
        {("large", "stage2-plan"): plans, ("large", "stage3"): solutions},
        {"policy": (len(plans) - len(solutions), len(solutions))},
    )


def cost_of(rng: random.Random, world: World, lines: list[Line]) -> NanoUSD:
    """What the batch really costs."""
    return NanoUSD(sum(run_line(rng, world, line)[0] for line in lines))
