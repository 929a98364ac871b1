"""A chat model whose answers come from a function."""

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable

from cope.core.money import TokenUsage
from cope.ports.model import ChatAnswer, ChatRequest

Reply = ChatAnswer | str
Script = Callable[[ChatRequest], Reply | Awaitable[Reply]]


class ScriptedModel:
    """`script` gets each request and returns an answer or its text, or raises a `ModelError`; it may be a coroutine
    function, to wait or to count calls in flight.

    `requests` keeps every request in order of arrival, `aborted` those cancelled while they ran, and `most_in_flight`
    the highest number at once.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self.requests: list[ChatRequest] = []
        self.aborted: list[ChatRequest] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.closed = False

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        """One answer. A text is counted as one token per word, prompt and completion alike."""
        self.requests.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            # As with a real call, others get to run before the answer is there.
            await asyncio.sleep(0)
            reply = self._script(request)
            answer = await reply if isawaitable(reply) else reply
        except asyncio.CancelledError:
            self.aborted.append(request)
            raise
        finally:
            self.in_flight -= 1
        return _answer(answer, request) if isinstance(answer, str) else answer

    async def aclose(self) -> None:
        """Note that it was closed."""
        self.closed = True


def _answer(text: str, request: ChatRequest) -> ChatAnswer:
    prompt = sum(len(message.content.split()) for message in request.messages)
    usage = TokenUsage(prompt=prompt, completion=len(text.split()), calls=1)
    return ChatAnswer(text=text, finish_reason="stop", usage=usage, provider_id=None)
