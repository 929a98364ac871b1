"""The model port: one chat call at a time, many in flight."""

from dataclasses import dataclass
from typing import Protocol

from cope.core.limits.hints import NO_HINTS, RateHints
from cope.core.models import ModelEntry
from cope.core.money import TokenUsage
from cope.core.problem import Message


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One sample of one role. `request_id` has a fixed width (servers abort by prefix); `seed` is sent where supported.

    `logprobs` asks for the log-probabilities of the generated tokens.

    `temperature` ≥ 0, `max_tokens` ≥ 1, `top_p` in (0, 1].
    """

    model: ModelEntry
    messages: tuple[Message, ...]
    temperature: float
    max_tokens: int
    request_id: str
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """What came back. `usage` is None where the provider did not say; `provider_id` is its own id of the call,
    `hints` what its headers say about its limits. `mean_logprob` is that of the generated tokens, None where it was not
    asked for or not given."""

    text: str
    finish_reason: str
    usage: TokenUsage | None
    provider_id: str | None
    hints: RateHints = NO_HINTS
    mean_logprob: float | None = None


class ChatModel(Protocol):
    """A client of every configured model."""

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        """One answer. Raises a `cope.core.errors.ModelError`; cancellation aborts the call at the server if it can."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...
