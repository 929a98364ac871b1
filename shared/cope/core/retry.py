"""What to do after a model error: a pure table, tested as one."""

from dataclasses import dataclass
from typing import assert_never

from cope.core.errors import (
    ErrorInfo,
    ModelError,
    ModelKeyRefused,
    ModelQuotaExhausted,
    ModelRateLimited,
)

MAX_TRIES = 6
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 120.0
_LONGEST_TRUSTED_RETRY_AFTER_S = 3600.0
_RATE_LIMIT_DEFAULT_WAIT_S = 5.0
_QUOTA_RECHECK_S = 300.0
_AWAY_WAIT_S = 3.0
SHORTEST_BLOCK_S = 1.0
"""A 429 is never answered at once, whatever it says: 0, or a date gone by where clocks differ, would make a loop."""


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Back to ready after `delay_s` seconds; `counts` says whether it used up one of the task's tries."""

    delay_s: float
    counts: bool


@dataclass(frozen=True, slots=True)
class HoldForQuota:
    """Held with reason `provider_quota`; looked at again after `recheck_s` seconds at the latest."""

    recheck_s: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The task fails with this error."""

    error: ErrorInfo


RetryDecision = RetryLater | HoldForQuota | GiveUp


def decide(error: ModelError, tries: int, *, jitter: float) -> RetryDecision:
    """`tries` counts provider errors before this one; `jitter` in [0, 1) spreads the waits (0.5 is the middle).

    Rate limits, quota holds and calls that never left (the server is away) do not count: an outage must not use up a
    task's tries. A `Retry-After` is honoured up to an hour, and a nonsensical one ignored. A refused key holds the task
    too: the key is at fault. Where only this request may be forbidden (403) it waits and counts, so that it ends.
    """
    told = error.retry_after_s
    if told is not None and not 0 <= told <= _LONGEST_TRUSTED_RETRY_AFTER_S:
        told = None
    if isinstance(error, ModelQuotaExhausted):
        return HoldForQuota(_QUOTA_RECHECK_S if told is None else told)
    if isinstance(error, ModelKeyRefused) and error.certain:
        return HoldForQuota(_QUOTA_RECHECK_S if told is None else told)
    if isinstance(error, ModelKeyRefused) and tries + 1 < MAX_TRIES:
        return RetryLater(_QUOTA_RECHECK_S if told is None else told, counts=True)
    if isinstance(error, ModelRateLimited):
        wait = _RATE_LIMIT_DEFAULT_WAIT_S * (0.75 + 0.5 * jitter) if told is None else max(told, SHORTEST_BLOCK_S)
        return RetryLater(wait, counts=False)
    if error.retryable and not error.sent:
        return RetryLater(_AWAY_WAIT_S * (0.75 + 0.5 * jitter), counts=False)
    if not error.retryable or tries + 1 >= MAX_TRIES:
        return GiveUp(ErrorInfo(error.code, error.message))
    backoff = min(_FIRST_WAIT_S * 2**tries, _LONGEST_WAIT_S) * (0.75 + 0.5 * jitter)
    return RetryLater(max(backoff, told or 0.0), counts=True)


def describe(decision: RetryDecision) -> str:
    """One line for logs and history."""
    match decision:
        case RetryLater(delay_s, counts):
            return f"again in {delay_s:.1f} s" + ("" if counts else " (not counted)")
        case HoldForQuota(recheck_s):
            return f"held for the provider's quota, looked at again in {recheck_s:.0f} s"
        case GiveUp(error):
            return f"given up: {error.code}"
        case _:
            assert_never(decision)
