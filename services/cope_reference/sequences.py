"""One sample under way: what was asked, and what the engine's thread has made of it so far."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tokenizers import Tokenizer

from cope_reference.sampling import Generator

Finish = Literal["stop", "length", "abort", "error"]
_UNFINISHED = "�"
_LONGEST_CHARACTER = 4  # bytes in UTF-8, and no token is shorter than a byte


@dataclass(frozen=True, slots=True)
class Settings:
    """How to sample. `max_tokens` ≥ 1; `top`: alternatives whose log-probabilities to give (None: no scores at all).

    `follow`: keep the text up to date token by token (a stream needs it; a stop string implies it).
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: tuple[int, int] | None = None  # the request's, and which of its choices
    top: int | None = None
    follow: bool = False


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A chosen token, its log-probability under the model's own distribution, and the likeliest alternatives."""

    token: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...]


@dataclass(slots=True)
class Sequence:
    """The engine's thread writes it; `notify` is called from there after each change of `tokens` or `finish`.

    `tokens` and `scores` include the end mark. `cached`: prompt tokens that were not computed again. Set `aborted` from
    any thread: no token is computed after the next one.
    """

    prompt: list[int]
    settings: Settings
    notify: Callable[[], None]
    tokens: list[int] = field(default_factory=list)
    scores: list[TokenScore] = field(default_factory=list)
    text: str = ""
    finish: Finish | None = None
    cached: int = 0
    aborted: bool = False
    generator: Generator | None = None
    _read: int = 0  # tokens that `text` covers

    def shown(self) -> str:
        """The text that no later token changes: without its end while that may begin a stop string."""
        text = self.text
        if self.finish is not None or not self.settings.stop:
            return text
        # Up to the earliest place from which everything is the beginning of a stop string.
        for start in range(max(0, len(text) - max(map(len, self.settings.stop)) + 1), len(text)):
            if any(stop.startswith(text[start:]) for stop in self.settings.stop):
                return text[:start]
        return text

    def read(self, tokenizer: Tokenizer, *, last: bool = False) -> bool:
        """Bring `text` up to date; whether a stop string is in it now, in which case `text` ends before it.

        A character waits until all its bytes have come (`last`: none will). Byte-level tokenizers only.
        """
        new = self.tokens[self._read :]
        piece = str(tokenizer.decode(new, skip_special_tokens=True))
        if piece.endswith(_UNFINISHED) and len(new) < _LONGEST_CHARACTER and not last:
            return False
        text, first_new = self.text + piece, len(self.text)
        self._read = len(self.tokens)
        places = [text.find(stop, max(0, first_new - len(stop) + 1)) for stop in self.settings.stop]
        cut = min((place for place in places if place >= 0), default=None)
        # Assigned once: a stream reads it from another thread and must never see what follows a stop string.
        self.text = text[:cut]
        return cut is not None
