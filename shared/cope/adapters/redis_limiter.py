"""The shared limiter in Redis: one script over all endpoints of a model, by Redis's own clock.

Redis may be emptied at any time: a process that finds the books gone says so, and the pace goes on without a burst.
"""

import secrets
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from cope.adapters.shared_limits import HeldSlots, LimiterAway, Trust, log_breakers
from cope.core.limits.book import Place, headroom_of
from cope.core.limits.breaker import Breaker, Cause
from cope.core.limits.group import Group, slot_ids
from cope.core.limits.hints import exhausted_s, trusted
from cope.core.limits.types import Ask, Grant, Headroom, Pace, Report, Ticket, Wait, WaitReason
from cope.core.models import ModelCatalog

KEEPER = "redis"
_PREFIX = "cope:limit:"
_GROUP_FIELDS = 22
_PURSE_FIELDS = 6


class RedisLimiter:
    """A `Limiter` shared by all workers through Redis. Raises `LimiterAway` where Redis does not answer."""

    def __init__(
        self,
        url: str,
        catalog: ModelCatalog,
        *,
        pace: Pace | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`clock` None is Redis's own; another one is for tests."""
        self._redis: Redis = Redis.from_url(
            url,
            # Patient: a busy machine is no outage, and while some count here and others in Postgres, both give
            # away the whole limit. A Redis that is gone refuses at once.
            socket_timeout=5,
            socket_connect_timeout=5,
            health_check_interval=30,
            decode_responses=True,
        )
        self._places = {name: entry.places for name, entry in catalog.entries.items()}
        self._clock = clock
        pace = pace or Pace()
        self._times = [repr(pace.window_s), repr(pace.slack_s), repr(pace.line_s), repr(pace.slot_lease_s)]
        source = resources.files("cope.adapters").joinpath("redis_limiter.lua").read_text()
        self._script = self._redis.register_script(source)
        self._slots = HeldSlots(self._renew, lease_s=pace.slot_lease_s)
        self._trust = Trust()

    def distrust(self) -> None:
        """Calls were granted elsewhere for a while: the next asks say that these books may lack some."""
        self._trust.lose(place.group for places in self._places.values() for place in places)

    async def acquire(self, model: str, ask: Ask) -> Grant | Wait:
        """A place at one of the model's endpoints, or how long to wait."""
        places = self._places[model]
        id_ = secrets.token_hex(8)
        arguments: list[Any] = [ask.calls, ask.tokens, ask.parallel, id_]
        for place in places:
            limits = place.limits
            arguments += [
                limits.rpm or 0,
                limits.tpm or 0,
                limits.concurrency or 0,
                repr(place.weight),
                self._trust.doubt(place.group),
            ]
        answer = await self._run("acquire", places, arguments)
        self._trust.wrote(place.group for place in places)
        if answer[0] == "0":
            return Wait(float(answer[1]), WaitReason(answer[2]))
        place = places[int(answer[0]) - 1]
        ticket = Ticket(
            id_,
            KEEPER,
            int(answer[2]),
            ask.calls,
            ask.tokens,
            int(answer[3]),
            door_probe=answer[4] == "1",
            purse_probe=answer[5] == "1",
        )
        grant = Grant(model, place.endpoint, float(answer[1]), ticket)
        self._slots.hold(place, ticket)
        return grant

    async def give_back(self, grant: Grant, report: Report) -> None:
        """The granted call ended."""
        place = next(place for place in self._places[grant.model] if place.endpoint == grant.endpoint)
        ticket, hints = grant.ticket, report.hints
        self._slots.let_go(ticket)
        left_calls, left_tokens = place.used(ticket, report)
        said = [
            hints.limit_calls,
            hints.remaining_calls,
            hints.reset_calls_s,
            hints.limit_tokens,
            hints.remaining_tokens,
            hints.reset_tokens_s,
            exhausted_s(hints.remaining_calls, hints.reset_calls_s),
            exhausted_s(hints.remaining_tokens, hints.reset_tokens_s),
        ]
        arguments: list[Any] = [
            report.verdict.value,
            ticket.bucket,
            ticket.calls,
            ticket.tokens,
            "" if report.calls is None else report.calls,
            "" if report.tokens is None else report.tokens,
            left_calls,
            left_tokens,
            ticket.parallel,
            ticket.id,
            int(ticket.door_probe),
            int(ticket.purse_probe),
            repr(report.block_s),
            "" if report.took_s is None else repr(report.took_s),
            repr(trusted(hints.retry_after_s) or 0.0),
            place.limits.rpm or 0,
            place.limits.tpm or 0,
            *("" if value is None else repr(value) for value in said),
            repr(report.late_s),
        ]
        was_door, door, was_purse, purse = await self._run("give_back", [place], arguments)
        log_breakers(place, (was_door, door), (was_purse, purse), report.verdict)

    def let_go(self, grant: Grant) -> None:
        """Its slot is no longer renewed."""
        self._slots.let_go(grant.ticket)

    async def headroom(self) -> tuple[Headroom, ...]:
        """Every endpoint as it stands."""
        places = [place for places in self._places.values() for place in places]
        answer = await self._run("headroom", places, [])
        now, rows = float(answer[0]), answer[1:]
        width = _GROUP_FIELDS + 1 + _PURSE_FIELDS
        return tuple(_headroom(place, rows[i * width : (i + 1) * width], now) for i, place in enumerate(places))

    async def aclose(self) -> None:
        """Close connections."""
        await self._slots.aclose()
        await self._redis.aclose()

    async def _renew(self, held: Sequence[tuple[Place, Ticket]]) -> None:
        arguments: list[Any] = []
        for _, ticket in held:
            ids = slot_ids(ticket)
            arguments += [len(ids), *ids]
        await self._run("renew", [place for place, _ in held], arguments)

    async def _run(self, operation: str, places: Sequence[Place], arguments: Sequence[Any]) -> list[str]:
        keys = [
            f"{_PREFIX}{{limits}}:{part}"
            for place in places
            for part in (f"g:{place.group}", f"b:{place.group}", f"s:{place.group}", f"a:{place.account}")
        ]
        now = "" if self._clock is None else repr(self._clock())
        try:
            answer: list[str] = await self._script(keys=keys, args=[operation, now, *self._times, *arguments])
        except (RedisError, OSError) as away:
            raise LimiterAway(f"{type(away).__name__}: {away}") from None
        return answer


def _headroom(place: Place, row: Sequence[str], now: float) -> Headroom:
    """From the fields of redis_limiter.lua, in its order: a group's 17, its door's 5, slots taken, the purse's."""
    numbers = [float(value) for value in row[:17]]
    group = Group(
        calls_at=numbers[0],
        tokens_at=numbers[1],
        calls=int(numbers[3]),
        tokens=int(numbers[4]),
        blocked_until=numbers[8],
        stated_rpm=int(numbers[9]),
        stated_tpm=int(numbers[10]),
        stated_at=numbers[11],
        throttle=numbers[12],
        throttle_at=numbers[13],
        slots=dict.fromkeys((str(n) for n in range(int(row[22]))), 0.0),
        door=_breaker(row[17:22]),
    )
    return headroom_of(place, group, _breaker(row[23:28]), now)


def _breaker(row: Sequence[str]) -> Breaker:
    cause, failures, opens, until, probe = row
    return Breaker(Cause(cause) if cause else None, int(float(failures)), int(float(opens)), float(until), float(probe))
