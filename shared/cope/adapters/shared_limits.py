"""What the shared limiters have in common: slots that are renewed while held, and a log line when a breaker turns."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from cope.core.limits.book import Place
from cope.core.limits.types import Ticket, Verdict

logger = logging.getLogger(__name__)

RENEWALS = 4
"""In the time of a slot's lease: one or two that fail take no slot away."""
_REMEMBERED_S = 60.0


class LimiterAway(Exception):
    """The store behind a shared limiter does not answer; the next one is asked."""


class Trust:
    """Whether the books of a limit group may lack calls that this process knows of."""

    def __init__(self) -> None:
        self._lost: set[str] = set()
        self._written: dict[str, float] = {}

    def lose(self, groups: Iterable[str]) -> None:
        """These were kept elsewhere for a while."""
        self._lost |= set(groups)

    def wrote(self, groups: Iterable[str]) -> None:
        """These are there, and were written just now."""
        now = time.monotonic()
        for group in groups:
            self._written[group] = now

    def doubt(self, group: str) -> str:
        """ "1": the books lack calls (said once); "2": they do if they are not there; "0": nothing is known."""
        if group in self._lost:
            self._lost.discard(group)
            return "1"
        return "2" if time.monotonic() - self._written.get(group, -_REMEMBERED_S) < _REMEMBERED_S else "0"


class HeldSlots:
    """The slots of calls under way. They expire by themselves soon after their process died, because it renews them
    all every few seconds; and after the store was emptied they are back in it as soon."""

    def __init__(self, renew: Callable[[Sequence[tuple[Place, Ticket]]], Awaitable[None]], *, lease_s: float) -> None:
        self._renew = renew
        self._every_s = lease_s / RENEWALS
        self._held: dict[str, tuple[Place, Ticket]] = {}
        self._task: asyncio.Task[None] | None = None

    def hold(self, place: Place, ticket: Ticket) -> None:
        """From now on it is renewed."""
        self._held[ticket.id] = (place, ticket)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep())

    def let_go(self, ticket: Ticket) -> None:
        """Its call has ended."""
        self._held.pop(ticket.id, None)

    async def _keep(self) -> None:
        while self._held:
            await asyncio.sleep(self._every_s)
            if self._held:
                with contextlib.suppress(LimiterAway):
                    await self._renew(list(self._held.values()))

    async def aclose(self) -> None:
        """Stop renewing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def log_breakers(place: Place, door: tuple[str, str], purse: tuple[str, str], verdict: Verdict) -> None:
    """`door` and `purse` are the causes before and after a call; empty is closed."""
    where = f"model {place.model!r}, endpoint {place.endpoint!r}"
    for before, after in (door, purse):
        if before == after:
            continue
        match after:
            case "":
                logger.warning("%s: calls go through again (was: %s)", where, before)
            case "key":
                logger.error(
                    "%s: the provider refuses the API key (HTTP %s). No more calls are made with it but one probe at a "
                    "time; set a valid key and restart, or wait until the provider accepts it again",
                    where,
                    "401" if verdict is Verdict.KEY else "403",
                )
            case "quota":
                logger.error(
                    "%s: the provider's quota is used up. Tasks that have no other endpoint are held "
                    "(provider_quota) and resume by themselves when one probing call goes through",
                    where,
                )
            case _:
                logger.warning("%s: the provider is away; its breaker is open", where)
