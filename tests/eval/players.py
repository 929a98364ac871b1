"""Scripted models that play a household well: what they say is looked up in what an expert did beforehand."""

from collections.abc import Iterable

from cope.core.money import TokenUsage
from cope.ports.model import ChatAnswer, ChatRequest
from cope_eval.dialogue import Move, messages
from cope_eval.own.expert import expert_action
from cope_eval.own.make import OwnGames

USAGE = TokenUsage(prompt=100, completion=10, calls=1)


class Players:
    """The small model is sure at two steps of three; at every third it needs a guideline. The large one gives it."""

    def __init__(self, games: OwnGames, numbers: Iterable[int]) -> None:
        self.steps: dict[int, int] = {}
        self.calls: dict[str, int] = {"small": 0, "large": 0}
        self._known: dict[tuple[str, ...], tuple[str, int]] = {}
        for number in numbers:
            self.steps[number] = self._learn(games, number)

    def _learn(self, games: OwnGames, number: int) -> int:
        game = games.open(number)
        turn = first = game.begin()
        moves: list[Move] = []
        while not turn.over:
            action = expert_action(game)
            asked = tuple(message["content"] for message in messages(first.observation, moves))
            self._known[asked] = action, len(moves)
            turn = game.act(action)
            moves.append(Move(action, turn.observation))
        return len(moves)

    async def answer(self, request: ChatRequest) -> ChatAnswer:
        """A plan where one is asked for, else an action."""
        self.calls[request.model.name] += 1
        *before, last = [message.content for message in request.messages if message.role != "system"]
        asked, _, instruction = last.partition("\n\nThe actions possible now")
        action, place = self._known[(*before, asked)]
        if "Do not choose an action" in instruction:
            text = "Do what the task needs next."
        elif request.model.name == "small" and place % 3 == 2 and "Guideline: " not in instruction:
            text = f"Action: dance {request.request_id}"  # inadmissible
        else:
            text = f"I think so.\nAction: {action.upper()}."
        return ChatAnswer(text, "stop", USAGE, "id")

    def hard(self, number: int) -> int:
        """How many decisions of the game need the large model."""
        return sum(place % 3 == 2 for place in range(self.steps[number]))
