"""The shared limiter while Redis is away: the same books, one row for each limit group and account.

A connection of its own, and one transaction for all that a process wants at once, so that claims and commits do not
wait for it. The database's clock is used.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from cope.adapters.postgres.database import Database, fetch, fetch_one
from cope.adapters.shared_limits import HeldSlots, LimiterAway, Trust, log_breakers
from cope.core.errors import StoreUnavailable
from cope.core.limits.book import Book, Place, Purse
from cope.core.limits.breaker import Breaker, Cause
from cope.core.limits.group import Group
from cope.core.limits.types import Ask, Grant, Headroom, Pace, Report, Ticket, Wait
from cope.core.models import ModelCatalog

KEEPER = "postgres"
_AT_ONCE = 100
_LIMIT_S = 5.0

_Act = Callable[[Book, float], object]


@dataclass(frozen=True, slots=True)
class _Wish:
    """Something to do to the books of these places, and who waits for its result."""

    places: Sequence[Place]
    act: _Act
    result: "asyncio.Future[Any]"


class PostgresLimiter:
    """A `Limiter` shared by all workers through Postgres. Raises `LimiterAway` where it does not answer."""

    def __init__(
        self, url: str, catalog: ModelCatalog, *, pace: Pace | None = None, clock: Callable[[], float] | None = None
    ) -> None:
        """`clock` None is the database's own; another one is for tests."""
        self._db = Database(url, min_size=0, max_size=1, name="cope-limiter", idle_s=_LIMIT_S)
        self._places = {name: entry.places for name, entry in catalog.entries.items()}
        self._pace = pace or Pace()
        self._clock = clock
        self._wishes: list[_Wish] = []
        self._worker: asyncio.Task[None] | None = None
        self._slots = HeldSlots(self._renew, lease_s=self._pace.slot_lease_s)
        self._trust = Trust()

    async def open(self) -> None:
        """Allow connections; none is made before it is needed."""
        await self._db.open()

    def distrust(self) -> None:
        """Calls were granted elsewhere for a while: the next asks say that these books may lack some."""
        self._trust.lose(place.group for places in self._places.values() for place in places)

    async def acquire(self, model: str, ask: Ask) -> Grant | Wait:
        """A place at one of the model's endpoints, or how long to wait."""
        places = self._places[model]

        def act(book: Book, now: float) -> Grant | Wait:
            cold = {}
            for place in places:
                doubt = self._trust.doubt(place.group)
                cold[place.group] = doubt == "1" or (doubt == "2" and place.group not in book.groups)
            return book.choose(places, ask, now=now, ticket_id=secrets.token_hex(8), keeper=KEEPER, cold=cold)

        answer: Grant | Wait = await self._wish(places, act)
        self._trust.wrote(place.group for place in places)
        if isinstance(answer, Grant):
            self._slots.hold(next(p for p in places if p.endpoint == answer.endpoint), answer.ticket)
        return answer

    async def give_back(self, grant: Grant, report: Report) -> None:
        """The granted call ended."""
        place = next(place for place in self._places[grant.model] if place.endpoint == grant.endpoint)
        self._slots.let_go(grant.ticket)

        def act(book: Book, now: float) -> tuple[tuple[str, str], tuple[str, str]]:
            before = _causes(book, place)
            book.settle(place, grant.ticket, report, now=now)
            after = _causes(book, place)
            return (before[0], after[0]), (before[1], after[1])

        door, purse = await self._wish([place], act)
        log_breakers(place, door, purse, report.verdict)

    def let_go(self, grant: Grant) -> None:
        """Its slot is no longer renewed."""
        self._slots.let_go(grant.ticket)

    async def headroom(self) -> tuple[Headroom, ...]:
        """Every endpoint as it stands. Only reads."""
        places = [place for places in self._places.values() for place in places]
        try:
            async with self._db.connection(limit_s=_LIMIT_S) as conn:
                book, now = await self._read(conn, places, lock=False)
        except StoreUnavailable as away:
            raise LimiterAway(str(away)) from None
        return tuple(book.headroom(place, now=now) for place in places)

    async def aclose(self) -> None:
        """Finish what is under way and close the connection."""
        await self._slots.aclose()
        if self._worker is not None:
            await asyncio.gather(self._worker, return_exceptions=True)
        await self._db.close()

    async def _renew(self, held: Sequence[tuple[Place, Ticket]]) -> None:
        def act(book: Book, now: float) -> None:
            for place, ticket in held:
                book.renew(place, [ticket], now=now)

        await self._wish([place for place, _ in held], act)

    async def _wish(self, places: Sequence[Place], act: _Act) -> Any:
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._wishes.append(_Wish(places, act, result))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await asyncio.shield(result)

    async def _work(self) -> None:
        while self._wishes:
            wishes, self._wishes = self._wishes[:_AT_ONCE], self._wishes[_AT_ONCE:]
            try:
                results = await self._carry_out(wishes)
            except Exception as error:
                lost = LimiterAway(str(error)) if isinstance(error, StoreUnavailable) else error
                for wish in wishes:
                    if not wish.result.done():
                        wish.result.set_exception(lost)
                        wish.result.exception()  # retrieved: its caller may have been cancelled meanwhile
                continue
            for wish, result in zip(wishes, results, strict=True):
                if not wish.result.done():
                    wish.result.set_result(result)

    async def _carry_out(self, wishes: Sequence[_Wish]) -> list[object]:
        places = list({(p.model, p.endpoint): p for wish in wishes for p in wish.places}.values())
        async with self._db.transaction(limit_s=_LIMIT_S) as conn:
            book, now = await self._read(conn, places, lock=True)
            results = [wish.act(book, now) for wish in wishes]
            rows = sorted(_rows(book).items())
            await conn.execute(
                """
                INSERT INTO limit_books (name, state) SELECT * FROM unnest(%s::text[], %s::text[])
                ON CONFLICT (name) DO UPDATE SET state = excluded.state
                """,
                [[name for name, _ in rows], [state for _, state in rows]],
            )
        return results

    async def _read(self, conn: Any, places: Sequence[Place], *, lock: bool) -> tuple[Book, float]:
        names = sorted({f"g:{place.group}" for place in places} | {f"a:{place.account}" for place in places})
        if lock:
            # A row lock on a row that is not there locks nothing, so all callers take the same few advisory locks.
            await conn.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('limit:' || name, 0)) FROM unnest(%s::text[]) name",
                [names],
            )
        found = await fetch(conn, "SELECT name, state FROM limit_books WHERE name = ANY (%s)", [names])
        now = self._clock() if self._clock is not None else await _now(conn)
        book = Book(self._pace)
        for row in found:
            kind, _, name = row["name"].partition(":")
            if kind == "g":
                book.groups[name] = _group(orjson.loads(row["state"]))
            else:
                state = orjson.loads(row["state"])
                book.purses[name] = Purse(_breaker(state["breaker"]), state["held"])
        return book, now


async def _now(conn: Any) -> float:
    row = await fetch_one(conn, "SELECT extract(epoch FROM clock_timestamp())::float8 AS now")
    assert row is not None
    return float(row["now"])


def _causes(book: Book, place: Place) -> tuple[str, str]:
    group, purse = book.groups.get(place.group), book.purses.get(place.account)
    return (
        group.door.cause or "" if group is not None else "",
        purse.breaker.cause or "" if purse is not None else "",
    )


def _rows(book: Book) -> dict[str, str]:
    rows = {}
    for name, group in book.groups.items():
        state = asdict(group)
        state["buckets"] = [(index, *pair) for index, pair in group.buckets.items()]
        rows[f"g:{name}"] = orjson.dumps(state).decode()
    for name, purse in book.purses.items():
        rows[f"a:{name}"] = orjson.dumps(asdict(purse)).decode()
    return rows


def _group(state: dict[str, Any]) -> Group:
    buckets = {index: (calls, tokens) for index, calls, tokens in state.pop("buckets")}
    return Group(**{**state, "buckets": buckets, "door": _breaker(state["door"])})


def _breaker(state: dict[str, Any]) -> Breaker:
    cause = state.pop("cause")
    return Breaker(cause=None if cause is None else Cause(cause), **state)
