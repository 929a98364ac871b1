"""What a caller asks of the limiter, what it gets, and what it reports when the call has ended."""

from dataclasses import dataclass, field
from enum import StrEnum

from cope.core.limits.hints import NO_HINTS, RateHints


@dataclass(frozen=True, slots=True)
class Pace:
    """The provider's window and how close to it we go.

    `window_s` is the provider's sliding window. A charge counts for `slack_s` longer: calls granted together may reach
    the provider that much apart, and still it never sees more than its limit in any window. `line_s` is how far ahead
    places are given away. The rest follows: 240 buckets to a window, a burst of 1 %.

    `slot_lease_s`: a call's slot of a limited concurrency is free again so long after its process last renewed it.
    """

    window_s: float = 60.0
    slack_s: float = 1.0
    line_s: float = 0.75
    slot_lease_s: float = 20.0

    @property
    def bucket_s(self) -> float:
        """Charges are counted together by this many seconds."""
        return self.window_s / 240

    @property
    def span_s(self) -> float:
        """How long a bucket counts after its end."""
        return self.window_s + self.slack_s

    @property
    def credit_s(self) -> float:
        """How much unused time may be caught up at once: the burst."""
        return self.window_s / 100

    def unit_s(self, limit: float, *, cold: bool) -> float:
        """Seconds between two units: a twentieth faster than the window lets through, so that only the window binds and
        what was missed is caught up; while the books may lack calls (`cold`), exactly as fast."""
        return (1.0 if cold else 0.95) * (self.span_s + self.bucket_s) / limit


@dataclass(frozen=True, slots=True)
class Limits:
    """Per window and at once; None is no limit."""

    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """Leave for `calls` calls of about `tokens` tokens together, `parallel` of them at once. `calls` ≥ 1."""

    tokens: int
    calls: int = 1
    parallel: int = 1


@dataclass(frozen=True, slots=True)
class Ticket:
    """What was charged and where, so that it can be corrected. `keeper` is who granted it: a limiter's name."""

    id: str
    keeper: str
    bucket: int
    calls: int
    tokens: int
    parallel: int
    door_probe: bool = False
    purse_probe: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """A place in the line of one endpoint: charged already, to be used `wait_s` seconds from now (0: at once)."""

    model: str
    endpoint: str
    wait_s: float
    ticket: Ticket


class WaitReason(StrEnum):
    """Why there is no place now."""

    RATE = "rate"
    SLOTS = "slots"
    OUTAGE = "outage"
    QUOTA = "quota"


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing was charged; ask again after `seconds` (spread, so that a crowd does not come back at once).

    `QUOTA`: every endpoint's account is out of money or its key refused, so the task is held rather than snoozed.
    """

    seconds: float
    reason: WaitReason


class Verdict(StrEnum):
    """How a granted call ended, as far as limits and breakers are concerned."""

    FINE = "fine"  # the provider answered, be it with a refusal of this very request
    RATE = "rate"  # 429
    QUOTA = "quota"  # 429 insufficient_quota
    KEY = "key"  # 401: the key is refused
    FORBIDDEN = "forbidden"  # 403: perhaps the key, perhaps only this request
    OUTAGE = "outage"  # unreachable, 5xx, no answer in time, garbage
    UNKNOWN = "unknown"  # sent, and the caller went away
    UNUSED = "unused"  # never sent


@dataclass(frozen=True, slots=True)
class Report:
    """The end of a grant. `calls` and `tokens` are what was really used (None: unknown, the estimate stands);
    `block_s` is how long the provider wants us all to stop; `took_s` is the call's duration where it is known; `late_s`
    how long after its place in the line the call left: it is charged to that moment."""

    verdict: Verdict
    calls: int | None = None
    tokens: int | None = None
    block_s: float = 0.0
    took_s: float | None = None
    late_s: float = 0.0
    hints: RateHints = field(default=NO_HINTS)


UNUSED = Report(Verdict.UNUSED, calls=0, tokens=0)
UNKNOWN = Report(Verdict.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Headroom:
    """One endpoint of one model, as it stands.

    `configured` is from the models file, `effective` after what the provider said. `used_*` are shares in [0, 1] of the
    effective limit in the present window, 0 where there is none. `blocked_s`: how long a 429 still stops everybody.
    `state` is ``closed`` (calls go through), ``open`` or ``half_open`` (one probing call at a time), and `cause` why it
    is not closed: ``outage``, ``quota`` or ``key``; `opens_s` is when the next probing call may go.
    """

    model: str
    endpoint: str
    group: str
    configured: Limits
    effective: Limits
    used_calls: float
    used_tokens: float
    used_slots: float
    blocked_s: float
    state: str
    cause: str | None
    opens_s: float
