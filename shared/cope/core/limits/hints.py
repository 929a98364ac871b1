"""What a provider's headers say about its limits: parsed at the edge, nonsense dropped."""

import contextlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_TRUSTED_S = 3600.0
_MOST = 10**12
_DURATION = re.compile(
    r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)s)?(?:(\d{1,9}(?:\.\d{1,9})?)ms)?"
)
_SCALES = (86_400.0, 3600.0, 60.0, 1.0, 0.001)
_EPOCH_FROM_S = 1e9
_EPOCH_FROM_MS = 1e11


@dataclass(frozen=True, slots=True)
class RateHints:
    """Limits per minute, what is left of them, and in how many seconds they are whole again; None: not said, or
    nonsense. `retry_after_s` is kept as it was told, however long: who uses it decides what to trust."""

    limit_calls: int | None = None
    limit_tokens: int | None = None
    remaining_calls: int | None = None
    remaining_tokens: int | None = None
    reset_calls_s: float | None = None
    reset_tokens_s: float | None = None
    retry_after_s: float | None = None


NO_HINTS = RateHints()


def read_hints(headers: Mapping[str, str], *, now: datetime) -> RateHints:
    """The `x-ratelimit-*` and `Retry-After` headers of an answer, with lower-case names or a case-blind mapping."""
    return RateHints(
        limit_calls=_count(headers.get("x-ratelimit-limit-requests"), least=1),
        limit_tokens=_count(headers.get("x-ratelimit-limit-tokens"), least=1),
        remaining_calls=_count(headers.get("x-ratelimit-remaining-requests"), least=0),
        remaining_tokens=_count(headers.get("x-ratelimit-remaining-tokens"), least=0),
        reset_calls_s=_reset(headers.get("x-ratelimit-reset-requests"), now),
        reset_tokens_s=_reset(headers.get("x-ratelimit-reset-tokens"), now),
        retry_after_s=retry_after_s(headers, now=now),
    )


def retry_after_s(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Seconds to wait from `retry-after-ms` or `Retry-After` (seconds or an HTTP date); None if absent or nonsense."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        with contextlib.suppress(ValueError):
            seconds = float(value) * scale
            if math.isfinite(seconds) and seconds >= 0:
                return seconds
            continue
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            when = parsedate_to_datetime(value)
            when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
            return max(0.0, (when - now).total_seconds())
    return None


def trusted(seconds: float | None) -> float | None:
    """`seconds` if somebody may sensibly wait for it: from 0 to an hour."""
    return seconds if seconds is not None and 0 <= seconds <= LONGEST_TRUSTED_S else None


def exhausted_s(remaining: int | None, reset_s: float | None) -> float | None:
    """How long a limit that is said to be used up stays so; None where it is not, or no sensible time is told."""
    return trusted(reset_s) if remaining == 0 else None


def _count(value: str | None, *, least: int) -> int | None:
    if value is None or len(value) > 20:
        return None
    with contextlib.suppress(ValueError):
        number = float(value)
        if number == number // 1 and least <= number <= _MOST:
            return int(number)
    return None


def _reset(value: str | None, now: datetime) -> float | None:
    """``"6m0s"``, ``"20ms"``, ``"1.5"`` (seconds), a moment since the epoch (s or ms) or an ISO date."""
    if value is None or not value.strip() or len(value) > 40:
        return None
    text = value.strip().lower()
    with contextlib.suppress(ValueError):
        number = float(text)
        if not math.isfinite(number) or number < 0:
            return None
        if number >= _EPOCH_FROM_S:
            return max(0.0, (number / 1000 if number >= _EPOCH_FROM_MS else number) - now.timestamp())
        return number
    parts = _DURATION.fullmatch(text)
    if parts is not None:
        return sum(scale * float(part) for scale, part in zip(_SCALES, parts.groups(), strict=True) if part is not None)
    with contextlib.suppress(ValueError, OverflowError):
        when = datetime.fromisoformat(text.upper())
        when = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
        return max(0.0, (when - now).total_seconds())
    return None
