"""Spending by reserving, in memory: grant, settle, release, leave unconfirmed."""

from dataclasses import replace

from cope.adapters.memory.journal import note, publish
from cope.adapters.memory.ledger import write, write_correction
from cope.adapters.memory.standstill import refresh_project
from cope.adapters.memory.tables import AttemptRow, BudgetRow, Tables, TaskRow
from cope.core import ids
from cope.core.budget import Scope, scope_kind
from cope.core.ids import AttemptId
from cope.core.ledger import NOT_BILLED, RECONCILED
from cope.core.lifecycle import AttemptState, HoldReason, TaskState
from cope.core.money import NanoUSD
from cope.core.parse_watch import ParseWatch
from cope.ports.store import (
    Adopted,
    Fenced,
    Granted,
    Paused,
    Refused,
    ReserveRequest,
    ReserveResult,
    Settlement,
)


def reserve(db: Tables, request: ReserveRequest) -> ReserveResult:
    """Set the worst case aside in full, or say why not."""
    row = db.tasks.get(request.task_id)
    if row is None or row.state is not TaskState.LEASED or row.fence != request.fence or row.ending is not None:
        return Fenced()
    for earlier in db.task_attempts.get(row.id, ()):
        if earlier.step == request.step and earlier.answer is not None:
            row.needed = None
            return Adopted(earlier.id, earlier.answer)
    if not db.workable(row):
        return Paused(HoldReason.PAUSED)
    if row.batch_id is not None and db.batches[row.batch_id].watch is ParseWatch.PAUSED:
        return Paused(HoldReason.UNPARSABLE)
    month = db.month(row.project_id)
    refused = _refusal(db, row, request, month)
    if refused is not None:
        return refused
    attempt = AttemptRow(
        id=AttemptId(db.ids.new(ids.ATTEMPT)),
        task_id=row.id,
        project_id=row.project_id,
        batch_id=row.batch_id,
        key_id=row.key_id,
        step=request.step,
        fence=row.fence,
        model=request.model,
        price_version=request.price_version,
        month=month,
        reserved=request.amount,
        request_id=request.request_id,
        created_at=db.now(),
        price_id=request.price_id,
        price_tier=request.price_tier,
    )
    db.attempts[attempt.id] = attempt
    db.task_attempts[row.id].append(attempt)
    _book(db, attempt, reserved=request.amount)
    write(db, attempt, "reserved", request.amount, 0)
    row.needed = None
    return Granted(attempt.id, month)


def _refusal(db: Tables, row: TaskRow, request: ReserveRequest, month: str) -> Refused | None:
    """Why this amount can't be granted now, naming the narrowest cap that does not cover it; None where all do."""
    if request.task_cap is not None:
        own = request.task_cap - sum(_counts(attempt) for attempt in db.task_attempts.get(row.id, ()))
        if request.amount > own:
            return Refused(request.amount, NanoUSD(max(0, own)), month, Scope.TASK)
    for budget in db.budgets_of(row, month):
        if budget.left is not None and request.amount > budget.left:
            return Refused(request.amount, NanoUSD(max(0, budget.left)), month, scope_kind(budget.scope))
    return None


def _counts(attempt: AttemptRow) -> int:
    """What an attempt takes of its task's cap."""
    if attempt.state is AttemptState.RELEASED:
        return 0
    return (attempt.cost or 0) + attempt.overrun if attempt.state is AttemptState.SETTLED else attempt.reserved


def mark_sent(db: Tables, attempt_id: AttemptId) -> bool:
    """False where the reservation is no longer there, or its lease is not."""
    attempt = db.attempts.get(attempt_id)
    if attempt is None or attempt.state is not AttemptState.RESERVED:
        return False
    row = db.tasks[attempt.task_id]
    if row.state is not TaskState.LEASED or row.fence != attempt.fence or row.ending is not None:
        return False
    attempt.state = AttemptState.SENT
    attempt.sent_at = db.now()
    return True


def settle(db: Tables, settlement: Settlement, answer: str | None = None) -> None:
    """Turn a reserve into what was spent. A second settlement of one attempt changes nothing.

    An overrun is added apart from the sums that the cap bounds, and stops the project.
    """
    attempt = db.attempts.get(settlement.attempt_id)
    if attempt is None or attempt.state not in {
        AttemptState.RESERVED,
        AttemptState.SENT,
        AttemptState.UNCONFIRMED,
    }:
        return
    # A cost beyond the reserve would be an overrun by another name: it must not enter the sums that the cap bounds.
    cost = NanoUSD(min(settlement.cost, attempt.reserved))
    overrun = NanoUSD(settlement.overrun + settlement.cost - cost)
    late = attempt.state is AttemptState.UNCONFIRMED
    if late:
        _book(db, attempt, unconfirmed=-attempt.reserved, spent=cost, overrun=overrun)
    else:
        _book(db, attempt, reserved=-attempt.reserved, spent=cost, overrun=overrun)
    write(db, attempt, "late" if late else "settled", cost, attempt.reserved)
    attempt.state = AttemptState.SETTLED
    attempt.settled_at = db.now()
    attempt.cost = cost
    attempt.overrun = overrun
    attempt.usage = settlement.usage
    attempt.flag = settlement.flag
    attempt.provider_id = settlement.provider_id
    attempt.answer = answer
    db.bookings[attempt.project_id].append((db.now(), cost + overrun))
    if overrun > 0:
        write(db, attempt, "overrun", overrun, 0)
        _stop_project(db, attempt, overrun)


def keep_reconciled_answer(db: Tables, settlement: Settlement, answer: str) -> None:
    """An answer that comes after its money was reconciled is kept to be adopted; it books nothing."""
    attempt = db.attempts.get(settlement.attempt_id)
    if attempt is None or attempt.flag not in {RECONCILED, NOT_BILLED} or attempt.answer is not None:
        return
    attempt.answer, attempt.provider_id = answer, attempt.provider_id or settlement.provider_id
    booked, answered = (attempt.cost or 0) + attempt.overrun, settlement.cost + settlement.overrun
    if booked != answered:
        note(
            db,
            attempt.project_id,
            "budget.late_answer_differs",
            batch_id=attempt.batch_id,
            task_id=attempt.task_id,
            booked_nanousd=booked,
            answered_nanousd=answered,
        )


def correct(db: Tables, attempt: AttemptRow, booked: int, billed: int) -> bool:
    """Set what is settled or released to what was billed; False where the books no longer say `booked`.

    The reserve is long free, so what was billed beyond is an overrun, even where the reserve would have covered it.
    """
    had, overran = attempt.cost or 0, attempt.overrun
    if (
        attempt.state not in {AttemptState.SETTLED, AttemptState.RELEASED}
        or had + overran != booked
        or billed == booked
    ):
        return False
    overrun = max(0, billed - had)
    cost = billed - overrun
    _book(db, attempt, spent=cost - had, overrun=overrun - overran)
    attempt.cost, attempt.overrun = NanoUSD(cost), NanoUSD(overrun)
    db.bookings[attempt.project_id].append((db.now(), billed - booked))
    if billed > booked:
        write_correction(db, attempt, "overrun", billed - booked, 0)
        _stop_project(db, attempt, billed - booked)
    else:
        write_correction(db, attempt, "refunded", had - cost, overran - overrun)
    return True


def release(db: Tables, attempt: AttemptRow) -> None:
    """Give back the reserve of a call that never left. An attempt that is settled or in doubt stays as it is."""
    if attempt.state in {AttemptState.RESERVED, AttemptState.SENT}:
        attempt.state = AttemptState.RELEASED
        _book(db, attempt, reserved=-attempt.reserved)
        write(db, attempt, "released", 0, attempt.reserved)


def release_all(db: Tables, attempts: tuple[AttemptId, ...]) -> None:
    """`release` by id, on a worker's word: it may have marked a call as sent and then found the door closed."""
    for attempt_id in attempts:
        if attempt_id in db.attempts:
            release(db, db.attempts[attempt_id])


def leave_unconfirmed(db: Tables, attempt: AttemptRow) -> None:
    """Nobody knows whether the provider billed it: the reserve stays counted until the answer or an operator comes."""
    attempt.state = AttemptState.UNCONFIRMED
    attempt.doubted_at = db.now()
    _book(db, attempt, reserved=-attempt.reserved, unconfirmed=attempt.reserved)
    write(db, attempt, "unconfirmed", attempt.reserved, attempt.reserved)


def _book(
    db: Tables, attempt: AttemptRow, *, spent: int = 0, reserved: int = 0, unconfirmed: int = 0, overrun: int = 0
) -> None:
    # The month is the one of the reservation, whenever the settlement comes.
    for budget in db.budgets_of(attempt, attempt.month):
        budget.spent += spent
        budget.reserved += reserved
        budget.unconfirmed += unconfirmed
        budget.overrun += overrun
        _check(budget)
    if attempt.batch_id is not None:
        owner = db.batches[attempt.batch_id]
        owner.batch = replace(
            owner.batch,
            spent=NanoUSD(owner.batch.spent + spent),
            reserved=NanoUSD(owner.batch.reserved + reserved),
            unconfirmed=NanoUSD(owner.batch.unconfirmed + unconfirmed),
        )


def _check(budget: BudgetRow) -> None:
    if min(budget.spent, budget.reserved, budget.unconfirmed, budget.overrun) < 0:
        raise AssertionError(f"a sum of the budget fell below zero: {budget}")


def _stop_project(db: Tables, attempt: AttemptRow, overrun: int) -> None:
    owner = db.projects[attempt.project_id]
    owner.project = replace(owner.project, paused=True)
    refresh_project(db, attempt.project_id)
    data = {"overrun_nanousd": int(overrun)}
    publish(db, attempt.project_id, "budget.overrun", batch_id=attempt.batch_id, task_id=attempt.task_id, data=data)
