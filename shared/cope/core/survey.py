"""What a dry run learns of a file by reading it: how many lines, and what each paid step of them can cost at most.

Sums only, by lines that are solved in the same way: a million lines take no more room than ten.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from cope.core.money import ZERO, NanoUSD, Price


class Reach(StrEnum):
    """Which lines come to a step: all; those that Stage 1 does not accept; of these, those that Stage 2 does not."""

    ALWAYS = "always"
    ESCALATED = "escalated"
    UNRESOLVED = "unresolved"


@dataclass(frozen=True, slots=True)
class StepSize:
    """One line's step, over all its chains. `bytes` is the content sent, plans of earlier steps left out; `limit` the
    most output tokens; `worst` never less than what will be reserved, whatever the earlier plans turn out to be."""

    bytes: int
    limit: int
    worst: NanoUSD


@dataclass(slots=True)
class PaidStep:
    """The same step of many lines, added up. `guidelines` is how often one step sends the guideline plan along.

    `writes_plan`: its output is a plan, not a solution. Prices are nano-dollars per million tokens.
    """

    name: str
    model: str
    reach: Reach
    guidelines: int
    writes_plan: bool
    price_id: str
    price_version: str
    input_per_mtok: int
    output_per_mtok: int
    lines: int = 0
    bytes: int = 0
    bytes_squared: int = 0
    least_bytes: int = 0
    most_bytes: int = 0
    limit: int = 0
    worst: int = 0
    largest: int = 0

    def add(self, size: StepSize) -> None:
        """One more line."""
        self.least_bytes = size.bytes if not self.lines else min(self.least_bytes, size.bytes)
        self.most_bytes = max(self.most_bytes, size.bytes)
        self.lines += 1
        self.bytes += size.bytes
        self.bytes_squared += size.bytes * size.bytes
        self.limit += size.limit
        self.worst += size.worst
        self.largest = max(self.largest, size.worst)

    def cost(self, *, input_tokens: int, output_tokens: int, calls: int) -> NanoUSD:
        """What these tokens cost; each call may be rounded up by a nano-dollar."""
        micro_nano = input_tokens * self.input_per_mtok + output_tokens * self.output_per_mtok
        return NanoUSD(-(-micro_nano // 1_000_000) + calls if micro_nano else 0)


def paid_step(name: str, model: str, reach: Reach, price: Price, *, guidelines: int, writes_plan: bool) -> PaidStep:
    """A step that no line has been counted for yet."""
    return PaidStep(
        name=name,
        model=model,
        reach=reach,
        guidelines=guidelines,
        writes_plan=writes_plan,
        price_id=price.price_id,
        price_version=price.version,
        input_per_mtok=max(price.input_per_mtok, price.cached_input_per_mtok),
        output_per_mtok=price.output_per_mtok,
    )


@dataclass(slots=True)
class Group:
    """Lines of one kind under one policy (`policy` as `cope.core.codec.encode_policy` writes it).

    `votes` is how many samples the small model draws again for a line that escalates. `pilots`: whether
    some of its lines may be tried on the small model for nothing.
    """

    policy: str
    kind: str
    votes: int
    pilots: bool
    steps: list[PaidStep]
    lines: int = 0

    @property
    def worst(self) -> NanoUSD:
        """What all its lines can cost at most."""
        return NanoUSD(sum(step.worst for step in self.steps))


@dataclass(frozen=True, slots=True)
class PilotLine:
    """A line drawn for the pilot. `group` counts from 0; `step_bytes` in the order of the group's steps.

    `planner_bytes` is what the small planner is sent: beside its prompt tokens it tells tokens per byte.
    """

    group: int
    step_bytes: tuple[int, ...]
    planner_bytes: int


@dataclass(slots=True)
class Survey:
    """A whole file. `pilot` is by task id; `seed` drew it; `valid_at` is in unix seconds, `valid_until` is when the
    next known price comes into force (None: none is known)."""

    seed: int
    valid_at: int
    valid_until: int | None = None
    groups: list[Group] = field(default_factory=list)
    pilot: dict[str, PilotLine] = field(default_factory=dict)

    @property
    def lines(self) -> int:
        """Lines in the file."""
        return sum(group.lines for group in self.groups)

    @property
    def worst(self) -> NanoUSD:
        """The binding maximum: no line can need more, unless a call has to be made twice."""
        return NanoUSD(sum(group.worst for group in self.groups))

    @property
    def largest_call(self) -> NanoUSD:
        """The dearest single step of any line."""
        return NanoUSD(max((step.largest for group in self.groups for step in group.steps), default=ZERO))


def encode_survey(survey: Survey) -> str:
    """As JSON text."""
    pilot = {task: [line.group, list(line.step_bytes), line.planner_bytes] for task, line in survey.pilot.items()}
    return orjson.dumps(
        {
            "seed": survey.seed,
            "at": survey.valid_at,
            "until": survey.valid_until,
            "groups": [asdict(group) for group in survey.groups],
            "pilot": pilot,
        }
    ).decode()


def decode_survey(text: str) -> Survey:
    """The inverse of `encode_survey`."""
    data: dict[str, Any] = orjson.loads(text)
    return Survey(
        seed=data["seed"],
        valid_at=data["at"],
        valid_until=data["until"],
        groups=[_group(group) for group in data["groups"]],
        pilot={
            task: PilotLine(group, tuple(step_bytes), planner_bytes)
            for task, (group, step_bytes, planner_bytes) in data["pilot"].items()
        },
    )


def _group(data: Mapping[str, Any]) -> Group:
    steps = [PaidStep(**{**step, "reach": Reach(step["reach"])}) for step in data["steps"]]
    return Group(**{**data, "steps": steps})
