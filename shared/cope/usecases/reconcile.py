"""Reconcile the books with a provider's usage export: page by page, so that a file of any size fits.

A dry run and a real one take the same way and differ in the last step only. Each settlement is its own project's
transaction, and settles only what is still unconfirmed: it may be repeated, interrupted, or run beside late answers.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cope.core.errors import BadRequest
from cope.core.ids import AttemptId, ProjectId, TaskId
from cope.core.ledger import BookedAttempt
from cope.core.models import ModelCatalog
from cope.core.money import ZERO, NanoUSD, Price
from cope.core.prices import PriceTable
from cope.core.reconcile import Billed, BilledCall, Verdict, attempt_of, judge
from cope.core.stages import Tier
from cope.ports.ledger import Correction, Reconciled, Reconciling
from cope.ports.usage_spool import Loaded, UsageSpool

CLOCKS_S = 300.0
"""How far apart the provider's clock and ours may be."""
_SHOWN = 10_000
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Orders:
    """What may be done. Without `apply` nothing is written. `complete` says that the file holds every call of that
    span: an attempt well inside it that the file does not mention was not billed."""

    apply: bool = False
    apply_differences: bool = False
    complete: tuple[datetime, datetime] | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One attempt's outcome, or (attempt None) calls under an id like ours that nobody here made."""

    verdict: Verdict
    request_id: str
    attempt: BookedAttempt | None
    calls: int
    billed: NanoUSD | None
    line: int | None


@dataclass(slots=True)
class Tally:
    """Of one verdict: attempts, billed calls, what was billed and what our books said before."""

    attempts: int = 0
    calls: int = 0
    billed: int = 0
    booked: int = 0


@dataclass(slots=True)
class Reconciliation:
    """What was found and done. `entries` leaves out what agrees, and ends at 10,000: `left_out` says how many more."""

    loaded: Loaded
    tallies: dict[Verdict, Tally] = field(default_factory=lambda: defaultdict(Tally))
    entries: list[Entry] = field(default_factory=list)
    foreign: list[BilledCall] = field(default_factory=list)
    left_out: int = 0

    def add(self, entry: Entry) -> None:
        """Count it, and keep it if it is worth a look."""
        tally = self.tallies[entry.verdict]
        tally.attempts += entry.attempt is not None
        tally.calls += entry.calls
        tally.billed += entry.billed or 0
        tally.booked += 0 if entry.attempt is None else entry.attempt.booked
        if entry.verdict is Verdict.EQUAL:
            return
        if len(self.entries) < _SHOWN:
            self.entries.append(entry)
        else:
            self.left_out += 1


def longest_call_s(catalog: ModelCatalog) -> float:
    """How long a paid call may still run, and be billed, after its worker died; the clocks' difference included."""
    paid = [entry for entry in catalog.entries.values() if entry.tier is Tier.LARGE or entry.price_id is not None]
    return CLOCKS_S + max((entry.timeout_s for entry in paid), default=0.0)


async def reconcile(
    store: Reconciling, spool: UsageSpool, *, catalog: ModelCatalog, prices: PriceTable, now: datetime, orders: Orders
) -> Reconciliation:
    """Judge every attempt that the written file mentions, and do what the orders allow.

    Raises `BadRequest` for a file without a usable header, and for a span that can't be held complete: one that is not
    over yet, or a file of which a row could not be read or names no request.
    """
    loaded = await spool.load()
    work = _Work(store, catalog, prices, orders, now - timedelta(seconds=longest_call_s(catalog)))
    work.found = Reconciliation(loaded)
    if orders.complete is not None:
        _check_complete(loaded, orders.complete, now)
    async for page in spool.tasks():
        await work.judge(page)
    work.found.foreign = await spool.foreign_calls(_PAGE)
    if orders.complete is not None:
        await work.settle_missing(spool, orders.complete)
    return work.found


def _check_complete(loaded: Loaded, span: tuple[datetime, datetime], now: datetime) -> None:
    start, until = span
    if start >= until or until > now:
        raise BadRequest(
            "A complete span begins before it ends, and has ended by now.", param="complete_until", code="invalid_span"
        )
    if loaded.bad_count:
        raise BadRequest(
            f"{loaded.bad_count} rows can't be read, the first in line {loaded.bad[0].line}: {loaded.bad[0].message}. "
            "So nothing can be taken as missing. Mend them, or leave the complete span out.",
            param="file",
            code="file_not_complete",
        )
    if loaded.nameless:
        raise BadRequest(
            f"{loaded.nameless} rows have no request id and might be anybody's calls, so nothing can be taken as "
            "missing. Leave the complete span out.",
            param="file",
            code="file_not_complete",
        )


class _Work:
    """One run: pages judged, settled by project, counted."""

    found: Reconciliation

    def __init__(
        self, store: Reconciling, catalog: ModelCatalog, prices: PriceTable, orders: Orders, ended_before: datetime
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._prices = prices
        self._orders = orders
        self._ended_before = ended_before

    async def judge(self, page: Sequence[tuple[TaskId, Sequence[BilledCall]]]) -> None:
        """Match the calls of some tasks with their attempts, and book what follows."""
        attempts: dict[TaskId, list[BookedAttempt]] = defaultdict(list)
        for attempt in await self._store.attempts_of_tasks([task_id for task_id, _ in page]):
            attempts[attempt.task_id].append(attempt)
        judged: list[tuple[Entry, Billed]] = []
        for task_id, calls in page:
            billed: dict[AttemptId, list[BilledCall]] = defaultdict(list)
            known = {attempt.id: attempt for attempt in attempts[task_id]}
            for call in calls:
                found = attempt_of(call.request_id, attempts[task_id])
                if found is None:
                    cost = None if call.unpriced.calls or call.unreadable else call.cost
                    self.found.add(Entry(Verdict.UNKNOWN, call.request_id, None, call.calls, cost, call.line))
                else:
                    billed[found.id].append(call)
            judged += [self._entry(known[attempt_id], Billed(tuple(own))) for attempt_id, own in billed.items()]
        for entry in await self._book(judged):
            self.found.add(entry)

    async def settle_missing(self, spool: UsageSpool, span: tuple[datetime, datetime]) -> None:
        """Attempts in doubt, well inside the span, of which the file knows nothing: they were not billed.

        The margin at both ends: a call's row may carry the time of its end, by another clock.
        """
        start = span[0] + timedelta(seconds=CLOCKS_S)
        until = min(span[1] - timedelta(seconds=longest_call_s(self._catalog)), self._ended_before)
        after = None
        while page := await self._store.unconfirmed_between(start, until, after=after, limit=_PAGE):
            mentioned = await spool.mentioned([attempt.request_id for attempt in page])
            missing = [
                (Entry(Verdict.NOT_BILLED, attempt.request_id, attempt, 0, ZERO, None), Billed())
                for attempt in page
                if attempt.request_id not in mentioned
            ]
            for entry in await self._book(missing):
                self.found.add(entry)
            after = page[-1].id

    def _entry(self, attempt: BookedAttempt, billed: Billed) -> tuple[Entry, Billed]:
        verdict, cost = judge(attempt, billed, self._price(attempt), ended_before=self._ended_before)
        calls, line = sum(call.calls for call in billed.calls), min(call.line for call in billed.calls)
        return Entry(verdict, attempt.request_id, attempt, calls, cost, line), billed

    async def _book(self, judged: Iterable[tuple[Entry, Billed]]) -> list[Entry]:
        """Settle and correct, as far as the orders go; the entries as they then are."""
        bills: dict[ProjectId, list[Reconciled]] = defaultdict(list)
        corrections: dict[ProjectId, list[Correction]] = defaultdict(list)
        entries = []
        for entry, billed in judged:
            entries.append(entry)
            attempt, cost = entry.attempt, entry.billed
            if attempt is None or cost is None or not self._orders.apply:
                continue
            if entry.verdict in {Verdict.SETTLED, Verdict.NOT_BILLED}:
                usage = billed.usage if billed.calls else None
                bills[attempt.project_id].append(Reconciled(attempt.id, cost, usage, billed.provider_id))
            elif entry.verdict is Verdict.DIFFERENT and self._orders.apply_differences:
                corrections[attempt.project_id].append(Correction(attempt.id, attempt.booked, cost))
        asked = {one.attempt_id for own in bills.values() for one in own}
        asked |= {one.attempt_id for own in corrections.values() for one in own}
        done = {
            attempt_id
            for project_id, own in bills.items()
            for attempt_id in await self._store.settle_unconfirmed(project_id, own)
        }
        corrected = {
            attempt_id
            for project_id, own in corrections.items()
            for attempt_id in await self._store.correct(project_id, own)
        }
        return [self._outcome(entry, asked, done, corrected) for entry in entries]

    @staticmethod
    def _outcome(entry: Entry, asked: set[AttemptId], done: set[AttemptId], corrected: set[AttemptId]) -> Entry:
        if entry.attempt is None or entry.attempt.id not in asked or entry.attempt.id in done:
            return entry
        verdict = Verdict.CORRECTED if entry.attempt.id in corrected else Verdict.CHANGED
        return replace(entry, verdict=verdict)

    def _price(self, attempt: BookedAttempt) -> Price | None:
        """The row that the attempt was reserved at, as its own row names it; None where it can't be told."""
        price_id = attempt.price_id
        if not price_id:  # from before attempts named it
            model = self._catalog.entries.get(attempt.model)
            price_id = "" if model is None else model.price_id or model.served_name
        return self._prices.row(price_id, attempt.price_version, attempt.price_tier)
