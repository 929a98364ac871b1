"""One limit group's books: an exact sliding window, a pace, calls in flight and blocks.

The window decides: charges of the last `Pace.span_s` seconds never exceed the limit, so a provider with a sliding
window never refuses. The pace only spreads them, and keeps us within the limit when the window's state was lost.
`redis_limiter.lua` is this same arithmetic; `tests/limits/test_contract.py` holds both to it.
"""

import math
from dataclasses import dataclass, field

from cope.core.limits.breaker import Breaker, door_after
from cope.core.limits.hints import exhausted_s
from cope.core.limits.types import Ask, Limits, Pace, Report, Ticket, Verdict

STATED_FOR_S = 600.0
RECOVERS_IN_S = 600.0
LEAST_THROTTLE = 0.1
COLD_AGAIN_S = 10.0
# Our own share of a window above which "nothing is left" is what our own books say too, and no reason to stop.
OWN_SHARE = 0.9
CATCH_UP_PARTS = 12


@dataclass(slots=True)
class Group:
    """The state of one limit group. Times are seconds since the epoch; charges are counted by bucket of their start.

    `low` is the oldest bucket that still counts. `calls_at` and `tokens_at` are when the pace lets the next one start,
    `line_at` the last place given away, `recall_at` when the last one turned away was told to ask again, `slot_at` the
    same for those who wait for a slot. `stated_*` is what the provider said its limits are, `throttle` a factor that
    a 429 lowers and time restores, `ratio` tokens used per token estimated, `took_s` a call's usual duration.
    """

    calls_at: float
    tokens_at: float
    low: int = 0
    calls: int = 0
    tokens: int = 0
    buckets: dict[int, tuple[int, int]] = field(default_factory=dict)
    line_at: float = 0.0
    recall_at: float = 0.0
    slot_at: float = 0.0
    blocked_until: float = 0.0
    stated_rpm: int = 0
    stated_tpm: int = 0
    stated_at: float = 0.0
    throttle: float = 1.0
    throttle_at: float = 0.0
    ratio: float = 1.0
    took_s: float = 1.0
    cold_at: float = 0.0
    slots: dict[str, float] = field(default_factory=dict)
    door: Breaker = field(default_factory=Breaker)


def new_group(now: float) -> Group:
    """Nothing is known, so nothing was saved up: no burst."""
    return Group(calls_at=now, tokens_at=now, cold_at=now)


def chill(group: Group, pace: Pace, now: float) -> None:
    """The caller knows of calls that these books may lack (they were lost, or kept elsewhere for a while): places given
    away there are used up first, then the pace goes on without a burst. Once is enough for many callers."""
    if group.line_at > 0 and now - group.cold_at < COLD_AGAIN_S:
        return
    group.cold_at = now
    group.calls_at = max(group.calls_at, now + pace.line_s)
    group.tokens_at = max(group.tokens_at, now + pace.line_s)


def unit_s(group: Group, pace: Pace, limit: float, now: float) -> float:
    """Seconds between two units at the group's pace."""
    return pace.unit_s(limit, cold=now - group.cold_at < pace.span_s)


def forget(group: Group, pace: Pace, now: float) -> None:
    """Drop what counts no longer: buckets out of the window, slots whose holder is gone."""
    low = math.floor((now - pace.span_s) / pace.bucket_s)  # the bucket before this one ended a whole span ago
    if low > group.low:
        for index in [index for index in group.buckets if index < low]:
            calls, tokens = group.buckets.pop(index)
            group.calls -= calls
            group.tokens -= tokens
        group.low = low
    for id_ in [id_ for id_, until in group.slots.items() if until <= now]:
        del group.slots[id_]


def effective(group: Group, limits: Limits, now: float) -> tuple[float, float]:
    """Calls and tokens a window in force now, 0 for no limit: the configured ones, or less if the provider says less,
    times the throttle."""
    throttle = min(1.0, group.throttle + max(0.0, now - group.throttle_at) / RECOVERS_IN_S)
    said = now - group.stated_at < STATED_FOR_S
    return (
        _lower(limits.rpm or 0, group.stated_rpm if said else 0) * throttle,
        _lower(limits.tpm or 0, group.stated_tpm if said else 0) * throttle,
    )


def _lower(one: int, other: int) -> int:
    return min(one, other) if one and other else one or other


def earliest(group: Group, limits: tuple[float, float], ask: Ask, pace: Pace, now: float) -> float:
    """When this ask may start, exact up to `now + line_s` and a guess beyond it. `forget` first."""
    rpm, tpm = limits
    start = max(now, group.blocked_until, group.line_at)
    if rpm > 0:
        wanted = min(ask.calls, max(1.0, math.floor(rpm)))
        start = max(start, group.calls_at, _free(group, 0, group.calls + wanted - max(1.0, math.floor(rpm)), pace, now))
    if tpm > 0:
        start = max(start, group.tokens_at, _free(group, 1, group.tokens + min(ask.tokens, tpm) - tpm, pace, now))
    return start


def _free(group: Group, which: int, surplus: float, pace: Pace, now: float) -> float:
    """When `surplus` units will have left the window."""
    index, at = group.low, 0.0
    while surplus > 0:
        at = (index + 1) * pace.bucket_s + pace.span_s
        if at > now + pace.line_s:
            break
        surplus -= group.buckets.get(index, (0, 0))[which]
        index += 1
    return at


def load(group: Group, limits: tuple[float, float], slots: int | None) -> float:
    """The fullest of calls, tokens and slots, as a share in [0, 1]; 0 without limits."""
    rpm, tpm = limits
    share = max(group.calls / rpm if rpm > 0 else 0.0, group.tokens / tpm if tpm > 0 else 0.0)
    if slots:
        share = max(share, len(group.slots) / slots)
    return min(1.0, share)


def slots_full(group: Group, slots: int | None, ask: Ask) -> bool:
    """Whether the ask's parallel calls exceed what is free; more than there are slots counts as all of them."""
    return slots is not None and len(group.slots) + min(ask.parallel, slots) > slots


def charge(group: Group, limits: tuple[float, float], ask: Ask, pace: Pace, start: float, now: float) -> int:
    """Enter the ask at its start; the bucket it went into."""
    rpm, tpm = limits
    bucket = math.floor(start / pace.bucket_s)
    _add(group, bucket, ask.calls, ask.tokens)
    if rpm > 0:
        group.calls_at = max(group.calls_at, start - pace.credit_s) + ask.calls * unit_s(group, pace, rpm, now)
    if tpm > 0:
        # The pace goes by what such calls turn out to use; the window by what they might.
        expected = min(ask.tokens * group.ratio, tpm)
        group.tokens_at = max(group.tokens_at, start - pace.credit_s) + expected * unit_s(group, pace, tpm, now)
    group.line_at = start
    return bucket


def settle(
    group: Group, limits: Limits, ticket: Ticket, report: Report, used: tuple[int, int], pace: Pace, now: float
) -> None:
    """Correct the charge to the calls and tokens `used`, free the slots, and learn from what the provider said.
    `forget` first."""
    for slot in slot_ids(ticket):
        group.slots.pop(slot, None)
    _learn_limits(group, limits, report, now)
    in_force = effective(group, limits, now)
    calls, tokens = used
    missing = _missing(group, report, pace, calls - ticket.calls, tokens - ticket.tokens)
    # What a provider does not give back it keeps at the call's own time; the rest is of others, any time.
    kept = min(missing[1], max(0, ticket.tokens - tokens))
    tokens += kept
    # The provider counts a call from when it got it: what was sent late leaves its window later too.
    sent_in = ticket.bucket + math.floor(report.late_s / pace.bucket_s)
    if ticket.bucket >= group.low and ticket.bucket in group.buckets:
        _add(group, ticket.bucket, -ticket.calls, -ticket.tokens)
        _add(group, sent_in, calls, tokens)
    elif sent_in > ticket.bucket and sent_in >= group.low:
        _add(group, sent_in, calls, tokens)
    if report.verdict is Verdict.UNUSED:
        if in_force[0] > 0:
            group.calls_at -= ticket.calls * unit_s(group, pace, in_force[0], now)
        if in_force[1] > 0:
            group.tokens_at -= ticket.tokens * group.ratio * unit_s(group, pace, in_force[1], now)
    elif report.tokens is not None and ticket.tokens > 0:
        group.ratio += (min(max(tokens / ticket.tokens, 0.02), 4.0) - group.ratio) / 16
    _catch_up(group, missing[0], missing[1] - kept, pace, now)
    if report.took_s is not None:
        group.took_s += (min(max(report.took_s, 0.01), 600.0) - group.took_s) / 16
    group.door = door_after(group.door, report.verdict, probe=ticket.door_probe, now=now)


def _learn_limits(group: Group, limits: Limits, report: Report, now: float) -> None:
    hints = report.hints
    if hints.limit_calls is not None or hints.limit_tokens is not None:
        group.stated_rpm, group.stated_tpm = hints.limit_calls or 0, hints.limit_tokens or 0
        group.stated_at = now
    rpm, tpm = effective(group, limits, now)
    until = now + report.block_s if report.block_s > 0 else 0.0
    if rpm <= 0 or group.calls < OWN_SHARE * rpm:
        until = max(until, now + (exhausted_s(hints.remaining_calls, hints.reset_calls_s) or 0.0))
    if tpm <= 0 or group.tokens < OWN_SHARE * tpm:
        until = max(until, now + (exhausted_s(hints.remaining_tokens, hints.reset_tokens_s) or 0.0))
    if report.verdict is Verdict.RATE and now >= group.blocked_until:
        # Only the first refusal of a wave: the others are of calls that were under way.
        recovered = min(1.0, group.throttle + max(0.0, now - group.throttle_at) / RECOVERS_IN_S)
        group.throttle, group.throttle_at = max(LEAST_THROTTLE, 0.9 * recovered), now
    group.blocked_until = max(group.blocked_until, until)


def _missing(group: Group, report: Report, pace: Pace, calls: int, tokens: int) -> tuple[int, int]:
    """Calls and tokens that the provider counts and our books, once corrected by `calls` and `tokens`, do not: those of
    others with the same key, tokens that it does not give back, what was in books that are lost."""
    hints = report.hints
    return (
        _gap(hints.limit_calls, hints.remaining_calls, hints.reset_calls_s, group.calls + calls, pace),
        _gap(hints.limit_tokens, hints.remaining_tokens, hints.reset_tokens_s, group.tokens + tokens, pace),
    )


def _gap(limit: int | None, remaining: int | None, reset_s: float | None, own: int, pace: Pace) -> int:
    """Differences within 1 % are calls under way. A reset farther off than the window is another limit's, a day's
    perhaps."""
    if limit is None or remaining is None or reset_s is None or reset_s > 1.05 * pace.window_s:
        return 0
    gap = limit - remaining - own
    return gap if gap > limit / 100 else 0


def _catch_up(group: Group, calls: int, tokens: int, pace: Pace, now: float) -> None:
    """Charge what is missing, spread over the past window."""
    if calls <= 0 and tokens <= 0:
        return
    newest = math.floor(now / pace.bucket_s)
    each = calls // CATCH_UP_PARTS, tokens // CATCH_UP_PARTS
    rest = calls - each[0] * (CATCH_UP_PARTS - 1), tokens - each[1] * (CATCH_UP_PARTS - 1)
    for part in range(CATCH_UP_PARTS):
        bucket, more = newest - part * (240 // CATCH_UP_PARTS), rest if part == 0 else each
        if bucket >= group.low:
            _add(group, bucket, *more)


def _add(group: Group, bucket: int, calls: int, tokens: int) -> None:
    had = group.buckets.get(bucket, (0, 0))
    group.buckets[bucket] = (had[0] + calls, had[1] + tokens)
    group.calls += calls
    group.tokens += tokens


def slot_ids(ticket: Ticket) -> tuple[str, ...]:
    """The slots of a grant: one for each of its parallel calls."""
    return tuple(f"{ticket.id}:{number}" for number in range(ticket.parallel))
