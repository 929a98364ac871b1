"""A breaker: closed → open → half-open (one probing call at a time) → closed, or open again for longer.

Every endpoint has two: its *door* opens on an outage, its account's *purse* when the provider wants money or refuses
the key. Models that share an account share its purse.
"""

from dataclasses import dataclass
from enum import StrEnum

from cope.core.limits.types import Verdict

OUTAGES_TO_OPEN = 5
FORBIDDEN_TO_OPEN = 3
FIRST_OUTAGE_S, LONGEST_OUTAGE_S = 5.0, 120.0
FIRST_PURSE_S, LONGEST_PURSE_S = 60.0, 300.0
# A probing call that has not ended after this long is taken for lost with its worker, and another may go.
PROBE_LEASE_S = 30.0
# The others are told to ask again this soon: nearly always the probe has ended by then, and the door is open.
PROBE_ENDS_S = 3.0


class Cause(StrEnum):
    """Why a breaker is open."""

    OUTAGE = "outage"
    QUOTA = "quota"
    KEY = "key"


@dataclass(frozen=True, slots=True)
class Breaker:
    """`failures` count in a row while closed; `opens` in a row without a success; `cause` None is closed.

    Open until `until`; from then on half-open: one probing call, and while it is under way nobody else until
    `probe_until`.
    """

    cause: Cause | None = None
    failures: int = 0
    opens: int = 0
    until: float = 0.0
    probe_until: float = 0.0

    def shut_until(self, now: float) -> float:
        """When to ask again; 0 if a call may go now."""
        if self.cause is None:
            return 0.0
        if now < self.until:
            return self.until
        return min(self.probe_until, now + PROBE_ENDS_S) if now < self.probe_until else 0.0

    def state(self, now: float) -> str:
        """``closed``, ``open`` or ``half_open``."""
        if self.cause is None:
            return "closed"
        return "open" if now < self.until else "half_open"


def probing(breaker: Breaker, now: float) -> Breaker:
    """After a probing call was let through."""
    return Breaker(breaker.cause, breaker.failures, breaker.opens, breaker.until, now + PROBE_LEASE_S)


def door_after(door: Breaker, verdict: Verdict, *, probe: bool, now: float) -> Breaker:
    """The door after a call. Calls that began before it opened say nothing new about it."""
    match verdict:
        case Verdict.UNUSED | Verdict.UNKNOWN:
            return _probe_over(door, probe)
        case Verdict.OUTAGE:
            if door.cause is not None:
                return _reopened(door, Cause.OUTAGE, now, FIRST_OUTAGE_S, LONGEST_OUTAGE_S) if probe else door
            if door.failures + 1 < OUTAGES_TO_OPEN:
                return Breaker(failures=door.failures + 1)
            return _reopened(door, Cause.OUTAGE, now, FIRST_OUTAGE_S, LONGEST_OUTAGE_S)
        case _:
            return Breaker() if probe or door.cause is None else door


def purse_after(purse: Breaker, verdict: Verdict, *, probe: bool, now: float, told_s: float = 0.0) -> Breaker:
    """The account's purse after a call; `told_s` > 0 is how long the provider says it stays empty."""
    match verdict:
        case Verdict.UNUSED | Verdict.UNKNOWN | Verdict.OUTAGE:
            return _probe_over(purse, probe)
        case Verdict.QUOTA:
            return _emptied(purse, Cause.QUOTA, probe=probe, now=now, told_s=told_s)
        case Verdict.KEY:
            return _emptied(purse, Cause.KEY, probe=probe, now=now, told_s=told_s)
        case Verdict.FORBIDDEN:
            # One forbidden request must not stop a key that works for all others: it takes several in a row.
            if purse.cause is None and purse.failures + 1 < FORBIDDEN_TO_OPEN:
                return Breaker(failures=purse.failures + 1)
            return _emptied(purse, Cause.KEY, probe=probe, now=now, told_s=told_s)
        case _:
            return Breaker() if probe or purse.cause is None else purse


def _emptied(purse: Breaker, cause: Cause, *, probe: bool, now: float, told_s: float) -> Breaker:
    if purse.cause is not None and not probe:
        return purse
    opened = _reopened(purse, cause, now, FIRST_PURSE_S, LONGEST_PURSE_S)
    if told_s <= 0:
        return opened
    return Breaker(opened.cause, opened.failures, opened.opens, now + told_s)


def _reopened(breaker: Breaker, cause: Cause, now: float, first_s: float, longest_s: float) -> Breaker:
    wait = min(first_s * 2 ** min(breaker.opens, 10), longest_s)
    return Breaker(cause, 0, breaker.opens + 1, now + wait)


def _probe_over(breaker: Breaker, probe: bool) -> Breaker:
    """A probe that found nothing out: the next one may go at once."""
    return Breaker(breaker.cause, breaker.failures, breaker.opens, breaker.until) if probe else breaker
