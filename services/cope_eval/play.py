"""The agent loop: all games in lock step, one decision each, until every game is over or out of steps."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cope_eval.dialogue import NOTHING, Decision, Move, messages
from cope_eval.game import Game, Games, Turn
from cope_eval.journal import Journal, Result
from cope_eval.service import Ask, Decider


class Diverged(Exception):
    """A game did not take its own recorded actions again. The message says which."""


@dataclass
class _Table:
    """A game under way with what was said so far."""

    number: int
    game: Game
    opening: str
    turn: Turn
    moves: list[Move] = field(default_factory=list)

    def take(self, decision: Decision) -> None:
        """Carry a decision out. One without an admissible action costs a step and changes nothing."""
        if decision.action is None:
            self.turn = Turn(NOTHING, self.turn.actions)
        else:
            self.turn = self.game.act(decision.action)
        self.moves.append(Move(decision.action, self.turn.observation))


def play(
    games: Games,
    numbers: Sequence[int],
    decider: Decider,
    journal: Journal,
    *,
    max_steps: int,
    at_once: int = 32,
    tell: Callable[[], None] = lambda: None,
) -> None:
    """Play the games `numbers` to their ends, at most `max_steps` (≥ 1) decisions each, `at_once` (≥ 1) of them in lock
    step; `tell` is called after each decision and each game.

    What the journal has of them is taken up, not asked again. Raises `Diverged`, and `NotAnswered` as the decider does.
    """
    waiting = deque(number for number in numbers if number not in journal.results)
    tables: dict[int, _Table] = {}
    try:
        while waiting or tables:
            while waiting and len(tables) < at_once:
                number = waiting.popleft()
                tables[number] = _opened(games, number, journal.decisions.get(number, ()))
            over = [one for one in tables.values() if one.turn.over or len(one.moves) >= max_steps]
            for table in over:
                journal.finished(_result(table, journal.decisions.get(table.number, ())))
                tables.pop(table.number).game.close()
                tell()
            if over:
                continue  # the next games take their places before anything is asked
            for ask, decision in decider.decide([_ask(table) for table in tables.values()]):
                journal.decided(ask.game, decision)
                tables[ask.game].take(decision)
                tell()
    finally:
        for table in tables.values():
            table.game.close()


def _opened(games: Games, number: int, decisions: Sequence[Decision]) -> _Table:
    game = games.open(number)
    first = game.begin()
    table = _Table(number, game, first.observation, first)
    for decision in decisions:
        if decision.action is not None and decision.action not in table.turn.actions:
            game.close()
            raise Diverged(
                f"game {number} of {games.name} no longer allows the recorded action {decision.action!r}: the games "
                "have changed since; name another results file"
            )
        table.take(decision)
    return table


def _ask(table: _Table) -> Ask:
    return Ask(table.number, len(table.moves), messages(table.opening, table.moves), table.turn.actions)


def _result(table: _Table, decisions: Sequence[Decision]) -> Result:
    return Result(
        game=table.number,
        kind=table.game.kind,
        won=table.turn.won,
        steps=len(table.moves),
        invalid=sum(decision.action is None for decision in decisions),
    )
