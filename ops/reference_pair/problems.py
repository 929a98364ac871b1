"""Synthetic word problems for the reference pair: chains of whole-number operations told as small stories.

A problem is a chain: a start, then `level` operations. Told *forward* the start is given and the end is asked; told
*backward* the end is given and the start is asked, so the solver has to undo the operations in reverse. Sentences that
do not matter are strewn in. Everything derives from the random generator passed in: equal seeds give equal problems.
"""

import random
import zlib
from dataclasses import dataclass
from typing import Literal

Op = Literal["+", "-", "*", "/"]

LEVELS = (1, 2, 3, 4, 5, 6, 7)
LARGEST = 100
HELD_OUT_SHARE = 10  # one number combination in ten is never trained on

NAMES = (
    "Ann", "Ben", "Cara", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ida", "Jon", "Kim", "Leo", "Mia", "Noah", "Olga",
    "Paul", "Rosa", "Sam", "Tina", "Uma", "Vera", "Will", "Yara", "Zoe",
)  # fmt: skip
OBJECTS = (
    "apples", "books", "cards", "coins", "cups", "eggs", "kites", "lamps", "marbles", "nuts", "pens", "plums", "rings",
    "seeds", "shells", "stamps", "stones", "tickets", "toys", "beads",
)  # fmt: skip
FRIENDS = ("a friend", "a neighbour", "an uncle", "a cousin", "the teacher", "a sister")

TOLD: dict[Op, tuple[str, ...]] = {
    "+": (
        "{n} buys {x} more.", "{n} finds {x} {o}.", "{f} gives {n} {x} {o}.", "{x} more {o} arrive for {n}.",
        "{n} wins {x} {o} in a game.",
    ),
    "-": (
        "{n} gives {x} away.", "{n} loses {x} {o}.", "{n} sells {x} of them.", "{f} takes {x} {o} from {n}.",
        "{x} of the {o} break.",
    ),
    "*": (
        "A machine makes the number {x} times as large.", "{n} then has {x} times as many.",
        "The number of {o} grows to {x} times what it was.",
    ),
    "/": (
        "{n} keeps only one part of {x} equal parts.", "{n} shares them equally among {x} boxes and keeps one box.",
        "Only one in {x} of the {o} is left.",
    ),
}  # fmt: skip
DISTRACTORS = (
    "{f} is {x} years old.", "The shop is {x} streets away.", "It is {x} degrees outside.", "{m} has {x} {p}.",
    "The walk takes {x} minutes.", "There are {x} birds on the roof.",
)  # fmt: skip
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
    def question(self) -> str:
        """The story's last sentence."""
        return self.text.rsplit(". ", 1)[1]

    @property
    def goal(self) -> str:
        """What to find: one sentence, the small planner's target."""
        when = "at first" if self.backward else "in the end"
        return f"Find how many {self.thing} {self.name} has {when}."

    @property
    def guideline(self) -> str:
        """How to find it: one sentence naming the operations in order, the large planner's target."""
        start = f"Work back from {self.known}" if self.backward else f"Start from {self.known}"
        return ", ".join([start, *(WORDS[op].format(x=x) for op, x in self.steps)]) + "."

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
        return "; ".join(self.lines()) + f". \\boxed{{{self.answer}}}"

    def verbose(self) -> str:
        """The large model's way: more tokens for the same calculation, so that its answers are dearer, as in life."""
        first = f"{'The end' if self.backward else 'The start'} is {self.known} {self.thing}."
        told = [
            f"Then {WORDS[op].format(x=x)}: {line}." for (op, x), line in zip(self.steps, self.lines(), strict=True)
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
    start = value = rng.randint(2, 30)
    steps: list[tuple[Op, int]] = []
    while len(steps) < level:
        op: Op = rng.choice(("+", "+", "-", "-", "*", "/"))
        if op == "+":
            x = rng.randint(2, 15)
        elif op == "-":
            if value < 4:
                continue
            x = rng.randint(2, min(15, value - 1))
        elif op == "*":
            x = rng.randint(2, 5)
        else:
            fitting = [d for d in (2, 3, 4, 5) if value % d == 0 and value > d]
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
        text = template.format(n=name, x=x, o=thing, f=rng.choice(FRIENDS), m=other, p=other_thing)
        return text[0].upper() + text[1:]

    told = [fill(rng.choice(TOLD[op]), x) for op, x in steps]
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        told.insert(rng.randint(0, len(told)), fill(rng.choice(DISTRACTORS), rng.randint(2, 30)))
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
