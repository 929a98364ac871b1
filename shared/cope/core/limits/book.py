"""The books of all limit groups and accounts: choose an endpoint, settle a grant, say what is left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cope.core.limits import group as groups
from cope.core.limits.breaker import Breaker, Cause, probing, purse_after
from cope.core.limits.group import Group, new_group
from cope.core.limits.types import Ask, Grant, Headroom, Limits, Pace, Report, Ticket, Verdict, Wait, WaitReason

HELD_EVERY_S = 2.0
HELD_AROUND = 43_200
_LEAD_S = 1.0
_SOONEST_S = 0.05
_UNLIMITED_UNIT_S = 0.01


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model's calls may go: an endpoint with its limits, the group that shares them, and its account.

    `weight` > 0 favours an endpoint among those that have room. `counts_used`: whether the provider's token limit
    counts what a call used in the end, or the whole estimate for good.
    """

    model: str
    endpoint: str
    group: str
    account: str
    limits: Limits
    weight: float = 1.0
    counts_used: bool = True

    def used(self, ticket: Ticket, report: Report) -> tuple[int, int]:
        """The calls and tokens that a report leaves charged."""
        calls = ticket.calls if report.calls is None else report.calls
        tokens = ticket.tokens if report.tokens is None else report.tokens
        if not self.counts_used and report.verdict is not Verdict.UNUSED:
            tokens = max(tokens, ticket.tokens)
        return calls, tokens


@dataclass(slots=True)
class Purse:
    """An account: its breaker, and how many tasks were told to wait for it since it opened."""

    breaker: Breaker = field(default_factory=Breaker)
    held: int = 0


@dataclass(slots=True)
class _Offer:
    """What one endpoint could do for an ask."""

    place: Place
    group: Group
    purse: Purse
    limits: tuple[float, float]
    start: float
    load: float
    full: bool
    shut_until: float
    quota: bool

    @property
    def probe(self) -> bool:
        return self.group.door.cause is not None or self.purse.breaker.cause is not None

    def rank(self, index: int) -> tuple[bool, float, float, float, int]:
        """Least first: a probe that is due, then the earliest start, then the least load for its weight."""
        weight = self.place.weight
        return (not self.probe, self.start, self.load / weight, self.group.calls / weight, index)


@dataclass(slots=True)
class Book:
    """The state of every group and account that was asked about. Mutable; one caller at a time."""

    pace: Pace
    groups: dict[str, Group] = field(default_factory=dict)
    purses: dict[str, Purse] = field(default_factory=dict)

    def choose(
        self,
        places: Sequence[Place],
        ask: Ask,
        *,
        now: float,
        ticket_id: str,
        keeper: str,
        slot_lease_s: float | None = None,
        cold: Mapping[str, bool] | None = None,
    ) -> Grant | Wait:
        """A place in some endpoint's line at most `line_s` ahead, charged; or how long to wait. `places` are one
        model's, at least one. `cold` names groups whose books may lack calls; `slot_lease_s` takes the place of
        the pace's."""
        offers = [self._offer(place, ask, now, bool(cold and cold.get(place.group))) for place in places]
        latest = now + self.pace.line_s
        open_ = [(o.rank(i), o) for i, o in enumerate(offers) if not o.shut_until and not o.full and o.start <= latest]
        if not open_:
            return self._wait(offers, ask, now)
        offer = min(open_, key=lambda ranked: ranked[0])[1]
        place, group = offer.place, offer.group
        parallel = min(ask.parallel, place.limits.concurrency or ask.parallel)
        door_probe, purse_probe = group.door.cause is not None, offer.purse.breaker.cause is not None
        bucket = groups.charge(group, offer.limits, ask, self.pace, offer.start, now)
        ticket = Ticket(ticket_id, keeper, bucket, ask.calls, ask.tokens, parallel, door_probe, purse_probe)
        if door_probe:
            group.door = probing(group.door, now)
        if purse_probe:
            offer.purse.breaker = probing(offer.purse.breaker, now)
        for slot in groups.slot_ids(ticket):
            group.slots[slot] = now + (self.pace.slot_lease_s if slot_lease_s is None else slot_lease_s)
        return Grant(place.model, place.endpoint, offer.start - now, ticket)

    def settle(self, place: Place, ticket: Ticket, report: Report, *, now: float) -> None:
        """The grant of `ticket` at `place` has ended."""
        lost = place.group not in self.groups  # what was granted is not in these books: they were emptied since
        group, purse = self._group(place.group, now), self.purses.setdefault(place.account, Purse())
        if lost:
            groups.chill(group, self.pace, now)
        groups.forget(group, self.pace, now)
        groups.settle(group, place.limits, ticket, report, place.used(ticket, report), self.pace, now)
        told = report.hints.retry_after_s or 0.0
        purse.breaker = purse_after(
            purse.breaker, report.verdict, probe=ticket.purse_probe, now=now, told_s=told if told <= 3600 else 0.0
        )
        if purse.breaker.cause is None:
            purse.held = 0

    def renew(self, place: Place, tickets: Sequence[Ticket], *, now: float) -> None:
        """Their calls are still under way."""
        group = self._group(place.group, now)
        for ticket in tickets:
            for slot in groups.slot_ids(ticket):
                group.slots[slot] = now + self.pace.slot_lease_s

    def headroom(self, place: Place, *, now: float) -> Headroom:
        """How the endpoint stands."""
        group, purse = self._group(place.group, now), self.purses.setdefault(place.account, Purse()).breaker
        groups.forget(group, self.pace, now)
        return headroom_of(place, group, purse, now)

    def _group(self, name: str, now: float) -> Group:
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = new_group(now)
        return group

    def _offer(self, place: Place, ask: Ask, now: float, cold: bool) -> _Offer:
        group, purse = self._group(place.group, now), self.purses.setdefault(place.account, Purse())
        if cold:
            groups.chill(group, self.pace, now)
        groups.forget(group, self.pace, now)
        limits = groups.effective(group, place.limits, now)
        slots = place.limits.concurrency
        money = purse.breaker.shut_until(now)
        return _Offer(
            place,
            group,
            purse,
            limits,
            groups.earliest(group, limits, ask, self.pace, now),
            groups.load(group, limits, slots),
            groups.slots_full(group, slots, ask),
            max(money, group.door.shut_until(now)),
            quota=money > 0,
        )

    def _wait(self, offers: Sequence[_Offer], ask: Ask, now: float) -> Wait:
        usable = [offer for offer in offers if not offer.shut_until]
        if usable:
            return self._in_turn(min(usable, key=lambda offer: offer.start), ask, now)
        away = [offer for offer in offers if not offer.quota]
        if away:
            first = min(away, key=lambda offer: offer.shut_until)
            return Wait(self._recall(first, first.shut_until, ask, now), WaitReason.OUTAGE)
        first = min(offers, key=lambda offer: offer.shut_until)
        turn, first.purse.held = first.purse.held % HELD_AROUND, first.purse.held + 1
        return Wait(first.shut_until - now + turn * HELD_EVERY_S, WaitReason.QUOTA)

    def _in_turn(self, offer: _Offer, ask: Ask, now: float) -> Wait:
        """All of these come back one after another, as fast as they can be served."""
        if offer.full and offer.start <= now + self.pace.line_s:
            group, slots = offer.group, offer.place.limits.concurrency or 1
            at = max(group.slot_at, now)
            if at - now > 2 * self.pace.window_s:
                at = now
            group.slot_at = at + group.took_s / slots
            return Wait(max(group.slot_at - now, _SOONEST_S), WaitReason.SLOTS)
        return Wait(self._recall(offer, offer.start, ask, now), WaitReason.RATE)

    def _recall(self, offer: _Offer, start: float, ask: Ask, now: float) -> float:
        group, (rpm, tpm) = offer.group, offer.limits
        at = max(group.recall_at, start)
        if at > max(start, now) + 2 * self.pace.window_s:
            at = start  # a very long line goes round again: its end might never be reached by all who are told it
        # As fast as the window lets through: who came sooner would find no place and lose his turn.
        unit = max(
            ask.calls * self.pace.unit_s(rpm, cold=True) if rpm > 0 else _UNLIMITED_UNIT_S,
            min(ask.tokens * group.ratio, tpm) * self.pace.unit_s(tpm, cold=True) if tpm > 0 else 0.0,
        )
        group.recall_at = at + unit
        # A little early, so that the line is full when its turn comes.
        return max(at - now - min(_LEAD_S, self.pace.line_s / 2), _SOONEST_S)


def headroom_of(place: Place, group: Group, purse: Breaker, now: float) -> Headroom:
    """What is shown of one endpoint. An open purse counts before an open door."""
    rpm, tpm = groups.effective(group, place.limits, now)
    slots = place.limits.concurrency
    shown = purse if purse.cause is not None else group.door
    return Headroom(
        model=place.model,
        endpoint=place.endpoint,
        group=place.group,
        configured=place.limits,
        effective=replace(place.limits, rpm=_whole(rpm), tpm=_whole(tpm)),
        used_calls=min(1.0, group.calls / rpm) if rpm > 0 else 0.0,
        used_tokens=min(1.0, group.tokens / tpm) if tpm > 0 else 0.0,
        used_slots=min(1.0, len(group.slots) / slots) if slots else 0.0,
        blocked_s=max(0.0, group.blocked_until - now),
        state=shown.state(now),
        cause=None if shown.cause is None else Cause(shown.cause).value,
        opens_s=max(0.0, shown.until - now) if shown.cause is not None else 0.0,
    )


def _whole(limit: float) -> int | None:
    """A limit as it is shown: 0 is none, and a small one that was throttled is still a limit."""
    return max(1, int(limit)) if limit > 0 else None
