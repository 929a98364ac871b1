"""One model under its served name: chat template, prompts to tokens, and the calls under way."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cope_reference.engine import Engine
from cope_reference.requests import Chat, Refused
from cope_reference.sequences import Sequence
from cope_reference.weights import UnsupportedModel


class Served:
    """A running engine and its folder's chat template. Raises `UnsupportedModel` without a template, or `OSError`."""

    def __init__(self, name: str, engine: Engine, folder: Path) -> None:
        self.name = name
        self.engine = engine
        self.calls: set[Call] = set()
        config: dict[str, Any] = json.loads((folder / "tokenizer_config.json").read_text())
        template = config.get("chat_template")
        if not isinstance(template, str):
            raise UnsupportedModel(f"{folder}: tokenizer_config.json has no chat_template")
        self._template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template)
        added = engine.tokenizer.get_added_tokens_decoder().values()
        self._marks = sorted((token.content for token in added if token.special), key=len, reverse=True)

    def encode(self, messages: list[dict[str, str]]) -> list[int]:
        """Prompt tokens. Raises `Refused` if the template refuses the messages."""
        safe = [{**message, "content": self._harmless(message["content"])} for message in messages]
        try:
            text = self._template.render(messages=safe, add_generation_prompt=True)
        except TemplateError as wrong:
            raise Refused(f"The model's chat template refuses these messages: {wrong}", "messages") from None
        tokens = list(self.engine.tokenizer.encode(text, add_special_tokens=False).ids)
        if not tokens:
            raise Refused("The messages make an empty prompt.", "messages")
        return tokens

    def _harmless(self, content: str) -> str:
        """Break up template marks, so that no message's text can forge the end of its turn or another's turn."""
        for mark in self._marks:
            content = content.replace(mark, f"{mark[:1]} {mark[1:]}")
        return content

    def abort(self, rid: str) -> None:
        """Abort the calls whose request id begins with `rid`, as SGLang does."""
        for call in self.calls:
            if call.rid.startswith(rid):
                call.abort()


class Call:
    """The sequences of one request. `moved` is set when there is something to send, and when all have ended.

    Raises `Refused`, `QueueFull` or `EngineDown`. `close` it whatever happens: what has not ended is aborted then.
    """

    def __init__(self, served: Served, chat: Chat, rid: str) -> None:
        self.served = served
        self.chat = chat
        self.rid = rid
        self.moved = asyncio.Event()
        prompt = served.encode(chat.messages)
        notify = self._waker(asyncio.get_running_loop())
        self.sequences = [
            Sequence(prompt, settings, notify) for settings in chat.settings(len(prompt), served.engine.weights.context)
        ]
        served.engine.submit(self.sequences)
        served.calls.add(self)

    def _waker(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        """What the engine's thread calls: wakes the loop, once for all that happened since the loop looked."""
        pending = False

        def wake() -> None:
            nonlocal pending
            pending = False
            self.moved.set()

        def notify() -> None:
            nonlocal pending
            # A plain answer needs to hear of the end only.
            if not pending and (self.chat.stream or self.finished):
                pending = True
                loop.call_soon_threadsafe(wake)

        return notify

    @property
    def finished(self) -> bool:
        """Whether every sequence has ended."""
        return all(sequence.finish is not None for sequence in self.sequences)

    @property
    def failed(self) -> bool:
        """Whether the engine failed under it."""
        return any(sequence.finish == "error" for sequence in self.sequences)

    def abort(self) -> None:
        """Stop what has not ended; those sequences finish as ``abort`` with the text they have."""
        for sequence in self.sequences:
            sequence.aborted = True

    def close(self) -> None:
        """The caller is gone, or has everything."""
        self.abort()
        self.served.calls.discard(self)
