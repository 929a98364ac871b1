"""The books of one transaction: what happens to attempts, ledger and budgets. Pure until written.

reserved ─▶ sent ─▶ settled          every arrow is a row of the ledger, except `sent`
    └─▶ released └─▶ unconfirmed ─▶ settled (kind `late`)
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cope.adapters.postgres.budgets import BudgetKey, budget_keys
from cope.adapters.postgres.counters import BatchDeltas
from cope.adapters.postgres.database import Connection, Row, fetch
from cope.adapters.postgres.journal import Note
from cope.core.budget import PROJECT_SCOPE
from cope.core.codec import encode_usage
from cope.core.lifecycle import AttemptState
from cope.ports.store import Settlement

_OPEN = {AttemptState.RESERVED, AttemptState.SENT}


@dataclass(frozen=True, slots=True)
class HeldAttempt:
    """An attempt whose row this transaction has locked."""

    id: str
    task_id: str
    project_id: str
    batch_id: str | None
    key_id: str | None
    month: str
    state: AttemptState
    reserved: int
    price_version: str
    cost: int = 0
    overrun: int = 0

    @property
    def budgets(self) -> tuple[BudgetKey, ...]:
        """Every budget that it counts in."""
        return budget_keys(self.project_id, self.batch_id, self.key_id, self.month)


@dataclass(slots=True)
class Sums:
    """What is added to one budget row."""

    spent: int = 0
    reserved: int = 0
    unconfirmed: int = 0
    overrun: int = 0


@dataclass(frozen=True, slots=True)
class _Entry:
    attempt: HeldAttempt
    kind: str
    amount: int
    freed: int


@dataclass(frozen=True, slots=True)
class _Change:
    state: AttemptState
    settlement: Settlement | None = None
    cost: int | None = None
    overrun: int = 0
    answer: str | None = None


class Books:
    """Collects what this transaction does to money, over attempts that it has locked.

    Whatever an attempt's state forbids (settling twice, releasing what is settled) changes nothing.
    """

    def __init__(self, attempts: Iterable[HeldAttempt] = ()) -> None:
        self._attempts = {attempt.id: attempt for attempt in attempts}
        self._changes: dict[str, _Change] = {}
        self._entries: list[_Entry] = []
        self._corrections: list[_Entry] = []
        self._sums: dict[BudgetKey, Sums] = defaultdict(Sums)
        self._spent: dict[tuple[str | None, str], int] = defaultdict(int)
        self.overran: list[Note] = []

    def add(self, attempts: Iterable[HeldAttempt]) -> None:
        """More attempts that were locked."""
        self._attempts.update({attempt.id: attempt for attempt in attempts})

    def settle(self, settlement: Settlement, answer: str | None = None) -> bool:
        """The reserve becomes what was spent; an overrun is added apart and stops the project. False: it is over."""
        attempt = self._attempts.get(settlement.attempt_id)
        state = self._state(settlement.attempt_id)
        if attempt is None or state not in {*_OPEN, AttemptState.UNCONFIRMED}:
            return False
        late = state is AttemptState.UNCONFIRMED
        # What the caller calls cost is at most the reserve; were it more, it would be an overrun by another name.
        cost = min(settlement.cost, attempt.reserved)
        overrun = settlement.overrun + settlement.cost - cost
        freed = attempt.reserved
        if late:
            self._add(attempt, spent=cost, unconfirmed=-freed, overrun=overrun)
        else:
            self._add(attempt, spent=cost, reserved=-freed, overrun=overrun)
        self._spent[attempt.batch_id, attempt.project_id] += cost
        self._entries.append(_Entry(attempt, "late" if late else "settled", cost, attempt.reserved))
        self._changes[attempt.id] = _Change(AttemptState.SETTLED, settlement, cost, overrun, answer)
        if overrun:
            self._entries.append(_Entry(attempt, "overrun", overrun, 0))
            self._stop(attempt, overrun)
        return True

    def correct(self, attempt_id: str, booked: int, billed: int) -> bool:
        """Set what is settled or released to what was billed; False where the books no longer say `booked`.

        The reserve is long free, so what was billed beyond is an overrun, even where the reserve would have covered it.
        """
        attempt = self._attempts.get(attempt_id)
        if attempt is None or self._state(attempt_id) not in {AttemptState.SETTLED, AttemptState.RELEASED}:
            return False
        if attempt_id in self._changes or attempt.cost + attempt.overrun != booked or billed == booked:
            return False
        overrun = max(0, billed - attempt.cost)
        cost = billed - overrun
        self._add(attempt, spent=cost - attempt.cost, overrun=overrun - attempt.overrun)
        self._spent[attempt.batch_id, attempt.project_id] += cost - attempt.cost
        if billed > booked:
            self._corrections.append(_Entry(attempt, "overrun", billed - booked, 0))
            self._stop(attempt, billed - booked)
        else:
            self._corrections.append(_Entry(attempt, "refunded", attempt.cost - cost, attempt.overrun - overrun))
        self._changes[attempt_id] = _Change(attempt.state, cost=cost, overrun=overrun)
        return True

    def _stop(self, attempt: HeldAttempt, overrun: int) -> None:
        data = {"overrun_nanousd": overrun}
        self.overran.append(Note(attempt.project_id, "budget.overrun", attempt.batch_id, attempt.task_id, data=data))

    def release(self, attempt_id: str) -> None:
        """The call never left: its reserve is free again."""
        attempt = self._attempts.get(attempt_id)
        if attempt is None or self._state(attempt_id) not in _OPEN:
            return
        self._add(attempt, reserved=-attempt.reserved)
        self._entries.append(_Entry(attempt, "released", 0, attempt.reserved))
        self._changes[attempt_id] = _Change(AttemptState.RELEASED)

    def doubt(self, attempt_id: str) -> None:
        """Nobody knows whether it was billed: the reserve stays counted, as unconfirmed."""
        attempt = self._attempts.get(attempt_id)
        if attempt is None or self._state(attempt_id) not in _OPEN:
            return
        self._add(attempt, reserved=-attempt.reserved, unconfirmed=attempt.reserved)
        self._entries.append(_Entry(attempt, "unconfirmed", attempt.reserved, attempt.reserved))
        self._changes[attempt_id] = _Change(AttemptState.UNCONFIRMED)

    def count(self, deltas: BatchDeltas) -> None:
        """Add what was spent to the batches' shares."""
        for (batch_id, project_id), spent in self._spent.items():
            deltas.of(batch_id, project_id).spent += spent

    @property
    def stopped(self) -> list[str]:
        """Projects that a provider billed beyond the bound."""
        return sorted({note.project_id for note in self.overran})

    async def write_attempts(self, conn: Connection) -> None:
        """The attempts' new states and the ledger. Comes before batches and budgets (lock order)."""
        if not self._changes:
            return
        rows = [(attempt_id, change) for attempt_id, change in sorted(self._changes.items())]
        bills = [change.settlement for _, change in rows]
        await conn.execute(
            _CHANGE,
            [
                [attempt_id for attempt_id, _ in rows],
                [change.state.value for _, change in rows],
                [change.cost for _, change in rows],
                [change.overrun for _, change in rows],
                [None if bill is None or bill.usage is None else _array(encode_usage(bill.usage)) for bill in bills],
                [None if bill is None else bill.flag for bill in bills],
                [None if bill is None else bill.provider_id for bill in bills],
                [change.answer for _, change in rows],
            ],
        )
        await write_ledger(conn, [(entry.attempt, entry.kind, entry.amount, entry.freed) for entry in self._entries])
        for entry in self._corrections:
            await conn.execute(_CORRECT, [entry.kind, entry.amount, entry.freed, entry.kind, entry.attempt.id])

    async def write_budgets(self, conn: Connection) -> None:
        """The budget rows, last: the shortest hold of the hottest locks."""
        changed = sorted((key, sums) for key, sums in self._sums.items() if sums != Sums())
        if not changed:
            return
        await conn.execute(
            _ADD_SUMS,
            [
                [key.scope for key, _ in changed],
                [key.project_id for key, _ in changed],
                [key.month for key, _ in changed],
                [sums.spent for _, sums in changed],
                [sums.reserved for _, sums in changed],
                [sums.unconfirmed for _, sums in changed],
                [sums.overrun for _, sums in changed],
            ],
        )

    def _add(
        self, attempt: HeldAttempt, *, spent: int = 0, reserved: int = 0, unconfirmed: int = 0, overrun: int = 0
    ) -> None:
        for key in attempt.budgets:
            sums = self._sums[key]
            sums.spent += spent
            sums.reserved += reserved
            sums.unconfirmed += unconfirmed
            sums.overrun += overrun

    def _state(self, attempt_id: str) -> AttemptState | None:
        if attempt_id in self._changes:
            return self._changes[attempt_id].state
        attempt = self._attempts.get(attempt_id)
        return None if attempt is None else attempt.state


def held_attempt(row: Row) -> HeldAttempt:
    """From a row of `attempts`."""
    return HeldAttempt(
        id=row["id"],
        task_id=row["task_id"],
        project_id=row["project_id"],
        batch_id=row["batch_id"],
        key_id=row["key_id"],
        month=row["month"],
        state=AttemptState(row["state"]),
        reserved=row["reserved"],
        price_version=row["price_version"],
        cost=row["cost"] or 0,
        overrun=row["overrun"],
    )


async def lock_attempts(conn: Connection, attempt_ids: Sequence[str]) -> list[HeldAttempt]:
    """Lock these attempts, in order."""
    if not attempt_ids:
        return []
    rows = await fetch(
        conn, "SELECT * FROM attempts WHERE id = ANY (%s) ORDER BY id FOR NO KEY UPDATE", [sorted(attempt_ids)]
    )
    return [held_attempt(row) for row in rows]


async def lock_open_attempts(conn: Connection, task_ids: Sequence[str]) -> list[HeldAttempt]:
    """Lock what these tasks have reserved or sent, in order."""
    rows = await fetch(
        conn,
        """
        SELECT * FROM attempts WHERE task_id = ANY (%s) AND state IN ('reserved', 'sent')
        ORDER BY id FOR NO KEY UPDATE
        """,
        [list(task_ids)],
    )
    return [held_attempt(row) for row in rows]


async def write_ledger(conn: Connection, entries: Sequence[tuple[HeldAttempt, str, int, int]]) -> None:
    """Append (attempt, kind, amount, freed) rows."""
    if not entries:
        return
    await conn.execute(
        """
        INSERT INTO ledger (project_id, month, key_id, batch_id, attempt_id, kind, amount, freed, price_version)
        SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[],
                             %s::bigint[], %s::text[])
        """,
        [
            [attempt.project_id for attempt, *_ in entries],
            [attempt.month for attempt, *_ in entries],
            [attempt.key_id for attempt, *_ in entries],
            [attempt.batch_id for attempt, *_ in entries],
            [attempt.id for attempt, *_ in entries],
            [kind for _, kind, _, _ in entries],
            [amount for _, _, amount, _ in entries],
            [freed for *_, freed in entries],
            [attempt.price_version for attempt, *_ in entries],
        ],
    )


async def ledger_difference(conn: Connection, project_id: str | None = None) -> list[Row]:
    """Budget rows that differ from what the ledger adds up to; empty when the books are right. None: of all projects
    that are seen here."""
    return [dict(row) for row in await fetch(conn, _DIFFERENCE, {"project": project_id})]


def _array(values: list[int]) -> str:
    # unnest would flatten an array of arrays, so each travels as its text.
    return "{" + ",".join(map(str, values)) + "}"


_CHANGE = """
UPDATE attempts a SET
  state = c.state,
  cost = coalesce(c.cost, a.cost),
  overrun = c.overrun,
  usage = coalesce(c.usage::int[], a.usage),
  flag = coalesce(c.flag, a.flag),
  provider_id = coalesce(c.provider_id, a.provider_id),
  answer = coalesce(c.answer, a.answer),
  settled_at = CASE WHEN c.state = 'settled' THEN now() ELSE a.settled_at END
FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[])
  AS c (id, state, cost, overrun, usage, flag, provider_id, answer)
WHERE a.id = c.id
"""

# The attempt is locked, so nobody else counts on meanwhile.
_CORRECT = """
INSERT INTO ledger (project_id, month, key_id, batch_id, attempt_id, kind, amount, freed, price_version, nth)
SELECT a.project_id, a.month, a.key_id, a.batch_id, a.id, %s, %s, %s, a.price_version,
  (SELECT count(*) FROM ledger l WHERE l.month = a.month AND l.attempt_id = a.id AND l.kind = %s)
FROM attempts a WHERE a.id = %s
"""

# Locked in the order of `budgets.BudgetKey` before any is changed.
_ADD_SUMS = """
WITH d AS (
  SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
    AS d (scope, project_id, month, spent, reserved, unconfirmed, overrun)
), locked AS (
  SELECT b.scope, b.project_id, b.month FROM budgets b JOIN d USING (scope, project_id, month)
  ORDER BY b.scope, b.project_id, b.month FOR NO KEY UPDATE OF b
)
UPDATE budgets b SET spent = b.spent + d.spent, reserved = b.reserved + d.reserved,
  unconfirmed = b.unconfirmed + d.unconfirmed, overrun = b.overrun + d.overrun
FROM d JOIN locked USING (scope, project_id, month)
WHERE b.scope = d.scope AND b.project_id = d.project_id AND b.month = d.month
"""

_DIFFERENCE = f"""
WITH rebuilt AS (
  SELECT l.project_id, s.scope, s.month,
    coalesce(sum(CASE WHEN l.kind IN ('settled', 'late', 'external') THEN l.amount
                      WHEN l.kind = 'refunded' THEN -l.amount END), 0) AS spent,
    coalesce(sum(CASE l.kind WHEN 'reserved' THEN l.amount WHEN 'settled' THEN -l.freed WHEN 'released' THEN -l.freed
                             WHEN 'unconfirmed' THEN -l.freed END), 0) AS reserved,
    coalesce(sum(CASE l.kind WHEN 'unconfirmed' THEN l.amount WHEN 'late' THEN -l.freed END), 0) AS unconfirmed,
    coalesce(sum(CASE l.kind WHEN 'overrun' THEN l.amount WHEN 'refunded' THEN -l.freed END), 0) AS overrun
  FROM ledger l
  CROSS JOIN LATERAL (VALUES ('{PROJECT_SCOPE}', l.month), (l.key_id, l.month), (l.batch_id, '')) AS s (scope, month)
  WHERE s.scope IS NOT NULL AND (%(project)s::text IS NULL OR l.project_id = %(project)s)
  GROUP BY l.project_id, s.scope, s.month
)
SELECT coalesce(b.project_id, r.project_id) AS project_id, coalesce(b.scope, r.scope) AS scope,
  coalesce(b.month, r.month) AS month,
  coalesce(b.spent, 0) - coalesce(r.spent, 0) AS spent, coalesce(b.reserved, 0) - coalesce(r.reserved, 0) AS reserved,
  coalesce(b.unconfirmed, 0) - coalesce(r.unconfirmed, 0) AS unconfirmed,
  coalesce(b.overrun, 0) - coalesce(r.overrun, 0) AS overrun
FROM (SELECT * FROM budgets WHERE %(project)s::text IS NULL OR project_id = %(project)s) b
FULL JOIN rebuilt r ON b.project_id = r.project_id AND b.scope = r.scope AND b.month = r.month
WHERE (coalesce(b.spent, 0), coalesce(b.reserved, 0), coalesce(b.unconfirmed, 0), coalesce(b.overrun, 0))
  IS DISTINCT FROM (coalesce(r.spent, 0), coalesce(r.reserved, 0), coalesce(r.unconfirmed, 0), coalesce(r.overrun, 0))
"""  # noqa: S608
