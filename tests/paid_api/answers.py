"""What the model says when there is none behind the simulator, how long it is, and what it costs. Pure."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

NANO_PER_USD = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for. `texts` are the messages' contents, `most` is the output limit of one choice."""

    model: str
    texts: tuple[str, ...]
    most: int
    n: int
    stream: bool
    include_usage: bool
    prompt_hash: str


def read_request(body: Any, *, default_max_tokens: int) -> Asked:
    """Raises `ValueError` for a body that no chat endpoint takes."""
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list) or not body["messages"]:
        raise ValueError("the body must be an object with a non-empty list `messages`")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise ValueError("`model` must be a name")
    most, n = body.get("max_completion_tokens") or body.get("max_tokens") or default_max_tokens, body.get("n") or 1
    if not isinstance(most, int) or not isinstance(n, int) or most < 1 or not 1 <= n <= 128:
        raise ValueError("`max_tokens` must be a whole number from 1, `n` one from 1 to 128")
    options = body.get("stream_options") or {}
    canonical = json.dumps([model, body["messages"]], sort_keys=True, ensure_ascii=True)
    return Asked(
        model,
        tuple(_text(message) for message in body["messages"]),
        most,
        n,
        body.get("stream") is True,
        isinstance(options, dict) and options.get("include_usage") is True,
        hashlib.sha256(canonical.encode()).hexdigest()[:32],
    )


def _text(message: Any) -> str:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


@dataclass(frozen=True, slots=True)
class Counting:
    """The tokenizer: a token is `bytes_per_token` UTF-8 bytes, rounded up; a message adds 4, a prompt 3.

    With at least one byte a token that is never more than UTF-8 bytes + 16 a message + 64, our product's bound.
    `cached_permille` of every prompt is said to come from a cache.
    """

    bytes_per_token: int = 4
    cached_permille: int = 0

    def prompt(self, texts: Sequence[str]) -> int:
        """Tokens of a prompt."""
        return sum(self.completion(text) + 4 for text in texts) + 3

    def cached(self, prompt_tokens: int) -> int:
        """The share of it that is billed as cached."""
        return prompt_tokens * self.cached_permille // 1000

    def completion(self, text: str) -> int:
        """Tokens of a text."""
        return -(-len(text.encode("utf-8", "surrogatepass")) // self.bytes_per_token)

    def clip(self, text: str, most: int) -> tuple[str, bool]:
        """The text within `most` tokens, and whether it was cut."""
        if self.completion(text) <= most:
            return text, False
        return text.encode("utf-8", "replace")[: most * self.bytes_per_token].decode("utf-8", "ignore"), True


class Answers:
    """Canned answers, the same for the same prompt.

    `source` is `{"default": text, "rules": [{"contains": marker, "text": …}, {"regex": …, "text": "\\\\boxed{\\\\1}"}],
    "completion_tokens": [low, high]}`, all optional: the first rule found in the prompt decides the text (groups of a
    regex may stand in it). `completion_tokens` is what is *billed* for output, drawn from the prompt's hash whatever
    the text's length (a model that thinks in secret), never over the request's limit; without it the text is counted.
    """

    def __init__(self, source: Mapping[str, Any] | None = None) -> None:
        source = source or {}
        unknown = sorted(set(source) - {"default", "rules", "completion_tokens"})
        if unknown:
            raise ValueError(f"answers have `default`, `rules` and `completion_tokens`, not {', '.join(unknown)}")
        self._default = str(source.get("default", "The answer is \\boxed{42}."))
        self._rules = [
            (re.compile(rule["regex"], re.DOTALL) if "regex" in rule else re.compile(re.escape(rule["contains"])),
             str(rule["text"]) if "regex" in rule else str(rule["text"]).replace("\\", "\\\\"))
            for rule in source.get("rules", [])
        ]  # fmt: skip
        low, high = source.get("completion_tokens", (0, 0))
        self._tokens = (int(low), int(high))

    def text(self, prompt: str) -> str:
        """What the model says."""
        for pattern, text in self._rules:
            found = pattern.search(prompt)
            if found is not None:
                return found.expand(text)
        return self._default

    def billed_tokens(self, asked: Asked, counted: int) -> int:
        """Output tokens of one choice on the bill, from 1 to the request's limit."""
        low, high = self._tokens
        if high:
            counted = low + int(asked.prompt_hash[:8], 16) % (high - low + 1)
        return max(1, min(counted, asked.most))


@dataclass(frozen=True, slots=True)
class Tariff:
    """Nano-dollars a million tokens: the simulator's own, not the product's, so that the two can disagree."""

    fresh: int
    cached: int
    output: int

    def bill(self, *, prompt: int, cached: int, completion: int) -> int:
        """Nano-dollars of one call; a started nano-dollar counts whole."""
        whole, rest = divmod((prompt - cached) * self.fresh + cached * self.cached + completion * self.output, 10**6)
        return whole + (1 if rest else 0)


def nano_per_million(usd: str) -> int:
    """Dollars a million tokens, as ``2.50``, in nano-dollars. Raises `ValueError` for what is no whole number ≥ 0."""
    nano = Decimal(usd) * NANO_PER_USD
    if nano != int(nano) or nano < 0:
        raise ValueError(f"{usd} is not a price with at most 9 decimals")
    return int(nano)
