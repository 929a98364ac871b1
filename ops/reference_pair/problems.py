"""Synthetic word problems for the reference pair: chains of whole-number operations told as small stories.

A problem is a chain: a start, then `level` operations, each with its day of the week. Told *forward* the start is given
and the end is asked; told *backward* the end is given and the start is asked, so the solver has to undo the operations
in reverse. Sentences that do not matter, without a day, are strewn in. Everything derives from the random generator
passed in: equal seeds give equal problems.
"""

import random
import zlib
from dataclasses import dataclass
from typing import Literal

Op = Literal["+", "-", "*", "/"]

LEVELS = (1, 2, 3, 4, 5, 6, 7)
LARGEST = 50
HELD_OUT_SHARE = 10  # one number combination in ten is never trained on

NAMES = (
    "Ann", "Ben", "Cara", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ida", "Jon", "Kim", "Leo", "Mia", "Noah", "Olga",
    "Paul",
)  # fmt: skip
OBJECTS = ("apples", "books", "cards", "coins", "cups", "eggs", "kites", "lamps", "nuts", "pens", "rings", "shells")
FRIENDS = ("a friend", "a neighbour", "an uncle", "a cousin")
# Every change has its day, the first on Monday: what a plan refers to, and what tells a change from a distraction.
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

TOLD: dict[Op, tuple[str, ...]] = {
    "+": ("{n} buys {x} more.", "{n} finds {x} {o}.", "{f} gives {n} {x} {o}."),
    "-": ("{n} gives {x} away.", "{n} loses {x} {o}.", "{x} of the {o} break."),
    "*": ("the {o} become {x} times as many.", "{n} gets {x} times as many."),
    "/": ("{n} keeps only one part of {x}.", "only one in {x} of the {o} is left."),
}
DISTRACTORS = ("{f} is {x} years old.", "It is {x} degrees outside.", "{m} has {x} {p}.", "The walk takes {x} minutes.")
WORDS: dict[Op, str] = {"+": "add {x}", "-": "subtract {x}", "*": "multiply by {x}", "/": "divide by {x}"}
INVERSE: dict[Op, Op] = {"+": "-", "-": "+", "*": "/", "/": "*"}


@dataclass(frozen=True)
class Problem:
    """One story. `known` and `steps` are the calculation that solves it: for a backward story, already inverted."""

    text: str
    level: int
    backward: bool
    name: str
    thing: str
    known: int
    steps: tuple[tuple[Op, int], ...]
    answer: int

    @property
    def days(self) -> tuple[str, ...]:
        """The day of each of `steps`."""
        told = DAYS[: self.level]
        return told[::-1] if self.backward else told

    @property
    def question(self) -> str:
        """The story's last sentence."""
        return self.text.rsplit(". ", 1)[1]

    @property
    def goal(self) -> str:
        """What to find: one sentence, the small planner's target."""
        when = "at first" if self.backward else "in the end"
        return f"Find how many {self.thing} {self.name} has {when}."

    @property
    def goals(self) -> tuple[str, ...]:
        """Several ways to say what to find, so that sampled goals differ."""
        if self.backward:
            return self.goal, f"Find the start from the end, {self.known}.", f"Undo {DAYS[self.level - 1]} to Monday."
        return self.goal, f"Find the end from the start, {self.known}.", f"Follow Monday to {DAYS[self.level - 1]}."

    @property
    def guideline(self) -> str:
        """How to find it: one sentence naming the operations in order, the large planner's target."""
        start = f"Work back from {self.known}" if self.backward else f"Start from {self.known}"
        return ", ".join([start, *self._planned()]) + "."

    def _planned(self) -> list[str]:
        return [f"{day} {WORDS[op].format(x=x)}" for day, (op, x) in zip(self.days, self.steps, strict=True)]

    def lines(self) -> list[str]:
        """The calculation, one equation a step."""
        value, out = self.known, []
        for op, x in self.steps:
            result = apply(op, value, x)
            out.append(f"{value} {op} {x} = {result}")
            value = result
        return out

    def terse(self) -> str:
        """The small model's way of writing a solution."""
        return (
            "; ".join(f"{day} {line}" for day, line in zip(self.days, self.lines(), strict=True))
            + f". \\boxed{{{self.answer}}}"
        )

    def verbose(self) -> str:
        """The large model's way: more tokens for the same calculation, so that its answers are dearer, as in life."""
        first = f"{'The end' if self.backward else 'The start'} is {self.known} {self.thing}."
        told = [
            f"On {plan}: {line}, which makes {line.rsplit(' ', 1)[1]} {self.thing}."
            for plan, line in zip(self._planned(), self.lines(), strict=True)
        ]
        when = "at first" if self.backward else "in the end"
        return " ".join(
            [first, *told, f"So {self.name} has {self.answer} {self.thing} {when}. \\boxed{{{self.answer}}}"]
        )


def apply(op: Op, value: int, x: int) -> int:
    """One operation. Raises `ValueError` for a division that leaves a remainder."""
    if op == "/" and value % x:
        raise ValueError(f"{value} / {x} is not whole")
    return {"+": value + x, "-": value - x, "*": value * x, "/": value // x}[op]


def is_held_out(start: int, steps: tuple[tuple[Op, int], ...]) -> bool:
    """Whether this combination of numbers belongs to the held-out tenth. Stable across machines and versions."""
    return zlib.crc32(repr((start, steps)).encode()) % HELD_OUT_SHARE == 0


def make(rng: random.Random, level: int, *, held_out: bool) -> Problem:
    """A problem of `level` steps, on the asked side of the split."""
    while True:
        start, steps = _chain(rng, level)
        if is_held_out(start, steps) == held_out:
            return _tell(rng, start, steps)


def _chain(rng: random.Random, level: int) -> tuple[int, tuple[tuple[Op, int], ...]]:
    start = value = rng.randint(2, 20)
    steps: list[tuple[Op, int]] = []
    while len(steps) < level:
        op: Op = rng.choice(("+", "+", "-", "-", "*", "/"))
        if op == "+":
            x = rng.randint(2, 10)
        elif op == "-":
            if value < 4:
                continue
            x = rng.randint(2, min(10, value - 1))
        elif op == "*":
            x = rng.randint(2, 4)
        else:
            fitting = [d for d in (2, 3, 4) if value % d == 0 and value > d]
            if not fitting:
                continue
            x = rng.choice(fitting)
        result = apply(op, value, x)
        if not 1 <= result <= LARGEST:
            continue
        steps.append((op, x))
        value = result
    return start, tuple(steps)


def _tell(rng: random.Random, start: int, steps: tuple[tuple[Op, int], ...]) -> Problem:
    name, other = rng.sample(NAMES, 2)
    thing, other_thing = rng.sample(OBJECTS, 2)
    backward = rng.random() < 0.5
    end = start
    for op, x in steps:
        end = apply(op, end, x)

    def fill(template: str, x: int) -> str:
        return template.format(n=name, x=x, o=thing, f=rng.choice(FRIENDS), m=other, p=other_thing)

    told = [f"On {day} {fill(rng.choice(TOLD[op]), x)}" for day, (op, x) in zip(DAYS, steps, strict=False)]
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        told.insert(rng.randint(0, len(told)), _sentence(fill(rng.choice(DISTRACTORS), rng.randint(2, 30))))
    if backward:
        first = rng.choice((f"{name} has some {thing}.", f"Nobody knows how many {thing} {name} starts with."))
        last = rng.choice((f"In the end {name} has {end} {thing}.", f"Now there are {end} {thing}."))
        asked = rng.choice((f"How many {thing} did {name} have at first?", f"With how many {thing} did {name} start?"))
        text = " ".join([first, *told, last, asked])
        inverted = tuple((INVERSE[op], x) for op, x in reversed(steps))
        return Problem(text, len(steps), True, name, thing, end, inverted, start)
    first = rng.choice((f"{name} starts with {start} {thing}.", f"At first {name} has {start} {thing}."))
    asked = rng.choice((f"How many {thing} does {name} have in the end?", f"How many {thing} are there now?"))
    return Problem(" ".join([first, *told, asked]), len(steps), False, name, thing, start, steps, end)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
