"""What the agent loop needs of a game, whoever made it."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Turn:
    """What the player sees, and what may be done now. `actions` is empty exactly when the game is `over`."""

    observation: str
    actions: tuple[str, ...]
    won: bool = False
    over: bool = False


class Game(Protocol):
    """One game under way. Equal actions lead to equal turns, so that a game can be taken up again from its actions."""

    @property
    def kind(self) -> str:
        """The kind of task, such as ``heat``: results are also told apart by it."""
        ...

    def begin(self) -> Turn:
        """The goal and the first observation."""
        ...

    def act(self, action: str) -> Turn:
        """What follows one of the last turn's actions."""
        ...

    def close(self) -> None:
        """Give back what the game holds."""
        ...


class Games(Protocol):
    """Where games come from. Number i is the same game whenever it is opened."""

    @property
    def name(self) -> str:
        """What a results file knows it by, with all that decides which games these are."""
        ...

    def __len__(self) -> int:
        """How many there are."""
        ...

    def open(self, number: int) -> Game:
        """Game `number`, from 0."""
        ...


class NoGames(Exception):
    """The games asked for are not there. The message says how to get them."""
