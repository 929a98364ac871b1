"""Seeded households that can always be solved, and where they come from."""

from collections import Counter
from dataclasses import dataclass
from random import Random

from cope_eval.own.things import FURNITURE, ROOMS, THINGS, Treatment
from cope_eval.own.world import Goal, Household, word_of

_THINGS = (6, 12)


@dataclass(frozen=True, slots=True)
class OwnGames:
    """`Games` number 0 to `count` - 1 of a seed: equal seeds are equal games, on every machine."""

    seed: int
    count: int

    @property
    def name(self) -> str:
        """Which games these are; how many is told apart."""
        return f"household, seed {self.seed}"

    def __len__(self) -> int:
        return self.count

    def open(self, number: int) -> Household:
        """Game `number`."""
        return make_household(Random(f"{self.seed}:{number}"))  # noqa: S311 - a game, no secret


def make_household(draw: Random) -> Household:
    """A household whose task is not done yet and can be: its thing is there, and every treatment is in the kitchen."""
    treatment = draw.choice(list(Treatment))
    goal_thing = draw.choice(sorted(word for word, allowed in THINGS.items() if treatment in allowed))
    others = draw.sample(sorted(set(ROOMS) - {"kitchen"}), draw.randint(1, 3))
    names = sorted(["kitchen", *others])
    counts: Counter[str] = Counter()
    rooms = {name: _furnished(draw, name, counts) for name in names}
    pieces = [piece for furniture in rooms.values() for piece in furniture]
    # A sink, a microwave and a fridge are for treating: as the place to put it they would be guessed at once.
    places = sorted({word_of(p) for p in pieces if FURNITURE[word_of(p)].does is Treatment.NONE})
    goal = Goal(goal_thing, treatment, draw.choice(places))
    lies: dict[str, list[str]] = {piece: [] for piece in pieces}
    numbers: Counter[str] = Counter()
    for word in [goal_thing, *draw.choices(sorted(THINGS), k=draw.randint(*_THINGS))]:
        numbers[word] += 1
        free = [p for p in pieces if word != goal_thing or word_of(p) != goal.where]  # else it may be done already
        lies[draw.choice(free)].append(f"{word} {numbers[word]}")
    for things in lies.values():
        things.sort()
    return Household(goal, rooms, lies, room=draw.choice(names))


def _furnished(draw: Random, room: str, counts: Counter[str]) -> tuple[str, ...]:
    pieces: list[str] = []
    for furniture in ROOMS[room]:
        for _ in range(draw.randint(furniture.fewest, furniture.most)):
            counts[furniture.word] += 1
            pieces.append(f"{furniture.word} {counts[furniture.word]}")
    return tuple(pieces)
