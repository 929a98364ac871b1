"""A small household as a game: rooms, furniture with and without doors, things to find, treat and put away.

The player sees what lies where the player stands and nothing behind closed doors, carries one thing at a time, and has
won when a thing of the wanted kind, treated as wanted, lies on or in furniture of the wanted kind.
"""

from dataclasses import dataclass, field

from cope_eval.game import Turn
from cope_eval.own.things import FURNITURE, THINGS, Treatment


def word_of(numbered: str) -> str:
    """``"mug 2"`` is a ``"mug"``."""
    return numbered.rsplit(" ", 1)[0]


@dataclass(frozen=True, slots=True)
class Goal:
    """A thing of this kind, treated so, on or in furniture of this kind."""

    thing: str
    treatment: Treatment
    where: str

    @property
    def text(self) -> str:
        """As the player is told."""
        treated = f"{self.treatment.trait} {self.thing}" if self.treatment.trait else self.thing
        article = "an" if treated[0] in "aeiou" else "a"
        inside = "in" if FURNITURE[self.where].door else "on"
        return f"put {article} {treated} {inside} a {self.where}"


@dataclass
class Household:
    """A `Game`. `rooms` lists each room's furniture, `lies` what lies on or in each piece; all names are numbered.

    Both are the household's own from here on. Doors are shut at first, and the player stands in `room`, at nothing.
    """

    goal: Goal
    rooms: dict[str, tuple[str, ...]]
    lies: dict[str, list[str]]
    room: str
    at: str | None = None
    held: str | None = None
    opened: set[str] = field(default_factory=set)
    traits: dict[str, set[str]] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The treatment that the task asks for."""
        return self.goal.treatment.value

    def begin(self) -> Turn:
        """The goal, and the room that the player stands in."""
        return self._turn(f"Your task: {self.goal.text}.\n{self._surroundings()}")

    def act(self, action: str) -> Turn:
        """Carry out one of `admissible`. Raises `ValueError` for anything else."""
        if action not in self.admissible():
            raise ValueError(f"{action!r} is not possible now")
        return self._turn(self._done(action))

    def close(self) -> None:
        """Nothing is held."""

    def admissible(self) -> tuple[str, ...]:
        """What may be done now, in a fixed order."""
        found = [f"walk to {room}" for room in self.rooms if room != self.room]
        found += [f"go to {piece}" for piece in self.rooms[self.room] if piece != self.at]
        if self.at is not None:
            found += self._at_hand(self.at)
        return (*found, "look", "inventory")

    @property
    def won(self) -> bool:
        """Whether the goal is reached."""
        wanted = self.goal.treatment.trait
        return any(
            word_of(thing) == self.goal.thing and (not wanted or wanted in self.traits.get(thing, ()))
            for piece, things in self.lies.items()
            if word_of(piece) == self.goal.where
            for thing in things
        )

    def reachable(self, piece: str) -> bool:
        """Whether what lies there can be seen and taken: no door is shut before it."""
        return not FURNITURE[word_of(piece)].door or piece in self.opened

    def _at_hand(self, piece: str) -> list[str]:
        furniture = FURNITURE[word_of(piece)]
        found = [f"{'close' if piece in self.opened else 'open'} {piece}"] if furniture.door else []
        if self.held is None:
            seen = self.lies[piece] if self.reachable(piece) else []
            return found + [f"take {thing} from {piece}" for thing in seen]
        if self.reachable(piece):
            found.append(f"move {self.held} to {piece}")
        if furniture.does is not Treatment.NONE and furniture.does in THINGS[word_of(self.held)]:
            found.append(f"{furniture.does.value} {self.held} with {piece}")
        return found

    def _done(self, action: str) -> str:
        verb, _, rest = action.partition(" ")
        match verb:
            case "walk":
                self.room, self.at = rest.removeprefix("to "), None
                return self._surroundings()
            case "go":
                self.at = rest.removeprefix("to ")
                return f"You stand at {self.at}. {self._contents(self.at)}"
            case "open":
                self.opened.add(rest)
                return f"You open {rest}. {self._contents(rest)}"
            case "close":
                self.opened.discard(rest)
                return f"You close {rest}."
            case "take":
                thing, _, piece = rest.partition(" from ")
                self.lies[piece].remove(thing)
                self.held = thing
                return f"You take {thing} from {piece}."
            case "move":
                thing, _, piece = rest.partition(" to ")
                self.lies[piece].append(thing)
                self.held = None
                return f"You put {thing} {'in' if FURNITURE[word_of(piece)].door else 'on'} {piece}."
            case "look":
                return self._surroundings() if self.at is None else f"You stand at {self.at}. {self._contents(self.at)}"
            case "inventory":
                return f"You carry {self._told(self.held)}." if self.held is not None else "You carry nothing."
            case _:
                return self._treat(Treatment(verb), rest.partition(" with "))

    def _treat(self, treatment: Treatment, parts: tuple[str, str, str]) -> str:
        thing, _, piece = parts
        traits = self.traits.setdefault(thing, set())
        if treatment is not Treatment.CLEAN:
            traits -= {Treatment.HEAT.trait, Treatment.COOL.trait}
        traits.add(treatment.trait)
        return f"You {treatment.value} {thing} with {piece}: it is {treatment.trait} now."

    def _turn(self, observation: str) -> Turn:
        if self.won:
            return Turn(f"{observation} That was the task.", (), won=True, over=True)
        return Turn(observation, self.admissible())

    def _surroundings(self) -> str:
        others = ", ".join(room for room in self.rooms if room != self.room)
        here = ", ".join(self.rooms[self.room])
        return f"You are in the {self.room} and see: {here}. From here you can walk to: {others}."

    def _contents(self, piece: str) -> str:
        inside = "in" if FURNITURE[word_of(piece)].door else "on"
        if not self.reachable(piece):
            return "It is closed."
        things = ", ".join(self._told(thing) for thing in self.lies[piece])
        return f"You see {things} {inside} it." if things else f"There is nothing {inside} it."

    def _told(self, thing: str) -> str:
        traits = sorted(self.traits.get(thing, ()))
        return f"{thing} ({', '.join(traits)})" if traits else thing
