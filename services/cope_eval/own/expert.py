"""A scripted expert that knows where everything lies: it shows that every game can be won."""

from collections.abc import Callable

from cope_eval.own.things import FURNITURE
from cope_eval.own.world import Household, word_of


def expert_action(game: Household) -> str:
    """The next action of a shortest plan, of those admissible. The game is not over."""
    goal = game.goal
    if game.held is None:
        piece, thing = _nearest(game)
        return _way(game, piece) or _opened(game, piece) or f"take {thing} from {piece}"
    if word_of(game.held) != goal.thing:  # a player before took something else: put it down somewhere
        piece = game.at or game.rooms[game.room][0]
        return _way(game, piece) or _opened(game, piece) or f"move {game.held} to {piece}"
    if goal.treatment.trait and goal.treatment.trait not in game.traits.get(game.held, ()):
        piece = _first(game, lambda word: FURNITURE[word].does is goal.treatment)
        return _way(game, piece) or f"{goal.treatment.value} {game.held} with {piece}"
    piece = _first(game, lambda word: word == goal.where)
    return _way(game, piece) or _opened(game, piece) or f"move {game.held} to {piece}"


def _nearest(game: Household) -> tuple[str, str]:
    """A thing of the wanted kind and where it lies, in this room before the others."""
    found = [
        (piece, thing)
        for room in sorted(game.rooms, key=lambda room: room != game.room)
        for piece in game.rooms[room]
        for thing in game.lies[piece]
        if word_of(thing) == game.goal.thing
    ]
    return found[0]


def _first(game: Household, wanted: Callable[[str], bool]) -> str:
    rooms = sorted(game.rooms, key=lambda room: room != game.room)
    return next(piece for room in rooms for piece in game.rooms[room] if wanted(word_of(piece)))


def _way(game: Household, piece: str) -> str | None:
    """The next action towards a piece of furniture, None where the player stands at it."""
    room = next(room for room, pieces in game.rooms.items() if piece in pieces)
    if room != game.room:
        return f"walk to {room}"
    return None if game.at == piece else f"go to {piece}"


def _opened(game: Household, piece: str) -> str | None:
    return None if game.reachable(piece) else f"open {piece}"
