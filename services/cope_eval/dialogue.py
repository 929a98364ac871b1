"""From a game so far to the messages of one request: the history as turns, the observation last."""

from collections.abc import Sequence
from dataclasses import dataclass

_RULES = "You play a game in a household, one action at a time."
NOTHING = "Nothing happens."


@dataclass(frozen=True, slots=True)
class Decision:
    """What the service said to one request. `action` is None where no admissible one won.

    `stage` is the one that answered (None where nobody did), `large_calls` how often the large model was asked.
    """

    action: str | None
    stage: int | None
    cost_nanousd: int
    large_calls: int
    small_calls: int
    task_id: str


@dataclass(frozen=True, slots=True)
class Move:
    """One decision of a game, and what followed."""

    action: str | None
    observation: str


def messages(opening: str, moves: Sequence[Move]) -> list[dict[str, str]]:
    """The conversation that asks for the next action; the admissible ones are sent beside it."""
    said = [{"role": "user", "content": f"{_RULES}\n{opening}"}]
    for move in moves:
        said.append({"role": "assistant", "content": f"Action: {move.action or 'none'}"})
        said.append({"role": "user", "content": move.observation})
    return said
