"""What the limiter is told of a call: a pure table."""

from cope.core.errors import (
    ModelError,
    ModelKeyRefused,
    ModelMalformed,
    ModelOverloaded,
    ModelQuotaExhausted,
    ModelRateLimited,
    ModelUnreachable,
)
from cope.core.limits.hints import RateHints, exhausted_s, trusted
from cope.core.limits.types import UNUSED, Report, Verdict
from cope.core.money import TokenUsage
from cope.core.retry import SHORTEST_BLOCK_S

DEFAULT_BLOCK_S = 5.0


def of_answer(usage: TokenUsage | None, hints: RateHints, *, took_s: float) -> Report:
    """After a good answer; unknown usage leaves the estimate standing."""
    tokens = None if usage is None else usage.prompt + usage.completion
    return Report(Verdict.FINE, tokens=tokens, took_s=took_s, hints=hints)


def of_error(error: ModelError, *, jitter: float) -> Report:
    """After a failed call; `jitter` in [0, 1) spreads a block whose length the provider does not say.

    A refusal by status used no tokens, but its call counts: providers count refused requests too.
    """
    tokens = 0 if error.answered else None
    match error:
        case ModelRateLimited():
            return Report(Verdict.RATE, tokens=tokens, block_s=_block_s(error.hints, jitter), hints=error.hints)
        case ModelQuotaExhausted():
            return Report(Verdict.QUOTA, tokens=tokens, hints=error.hints)
        case ModelKeyRefused(certain=True):
            return Report(Verdict.KEY, tokens=tokens, hints=error.hints)
        case ModelKeyRefused():
            return Report(Verdict.FORBIDDEN, tokens=tokens, hints=error.hints)
        case ModelUnreachable(sent=False):
            return Report(Verdict.OUTAGE, calls=0, tokens=0)
        case ModelUnreachable() | ModelOverloaded() | ModelMalformed():
            return Report(Verdict.OUTAGE, tokens=tokens, hints=error.hints)
        case _:
            return Report(Verdict.FINE, tokens=tokens, hints=error.hints) if error.sent else UNUSED


def _block_s(hints: RateHints, jitter: float) -> float:
    """How long everybody stops after a 429: as told by `Retry-After`, else until what is used up is whole again."""
    told = trusted(hints.retry_after_s)
    if told is not None:
        return max(SHORTEST_BLOCK_S, told)
    resets = (
        exhausted_s(hints.remaining_calls, hints.reset_calls_s),
        exhausted_s(hints.remaining_tokens, hints.reset_tokens_s),
    )
    known = [reset for reset in resets if reset is not None]
    return max(known) if known else DEFAULT_BLOCK_S * (0.75 + 0.5 * jitter)
