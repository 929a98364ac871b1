"""The ledger in memory: one row per attempt and kind, and the sums that every budget must equal."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from cope.core.budget import scopes_of
from cope.core.ids import AttemptId, BatchId, KeyId, ProjectId
from cope.core.ledger import COUNTED, BookedAttempt, BudgetDifference, CostKind, CostRow, LedgerLine, charged_day
from cope.core.money import ZERO, NanoUSD, TokenUsage
from cope.ports.ledger import LedgerScope

if TYPE_CHECKING:
    from cope.adapters.memory.tables import AttemptRow, Tables


@dataclass(slots=True)
class _Sums:
    spent: int = 0
    reserved: int = 0
    unconfirmed: int = 0
    overrun: int = 0


@dataclass(slots=True)
class Ledger:
    """Append-only."""

    lines: list[LedgerLine] = field(default_factory=list)


def write_correction(db: "Tables", attempt: "AttemptRow", kind: str, amount: int, freed: int) -> None:
    """Append a row of a kind that the attempt may have come to before."""
    nth = sum(line.attempt_id == attempt.id and line.kind == kind for line in db.ledger.lines)
    write(db, attempt, kind, amount, freed, nth=nth)


def write(db: "Tables", attempt: "AttemptRow", kind: str, amount: int, freed: int, *, nth: int = 0) -> None:
    """Append a row."""
    project = db.project(attempt.project_id)
    db.ledger.lines.append(
        LedgerLine(
            at=db.now(),
            project_id=attempt.project_id,
            month=attempt.month,
            day=charged_day(attempt.created_at, project.time_zone, attempt.month),
            key_id=attempt.key_id,
            batch_id=attempt.batch_id,
            task_id=attempt.task_id,
            attempt_id=attempt.id,
            kind=kind,
            nth=nth,
            amount=NanoUSD(amount),
            freed=NanoUSD(freed),
            price_version=attempt.price_version,
            model=attempt.model,
            step=attempt.step,
            request_id=attempt.request_id,
            provider_id=None,
            usage=None,
            flag=None,
        )
    )


def write_external(
    db: "Tables",
    project_id: ProjectId,
    name: str,
    month: str,
    amount: int,
    *,
    key_id: KeyId | None = None,
    batch_id: BatchId | None = None,
) -> None:
    """Append spend that was measured elsewhere under a `name` of its own; the budgets are the caller's to change."""
    project = db.project(project_id)
    db.ledger.lines.append(
        LedgerLine(
            at=db.now(),
            project_id=project_id,
            month=month,
            day=charged_day(db.now(), project.time_zone, month),
            key_id=key_id,
            batch_id=batch_id,
            task_id=None,
            attempt_id=AttemptId(name),
            kind="external",
            nth=0,
            amount=NanoUSD(amount),
            freed=ZERO,
            price_version="",
            model=None,
            step=None,
            request_id=None,
            provider_id=None,
            usage=None,
            flag=None,
        )
    )


def lines_of(db: "Tables", scope: LedgerScope) -> Iterator[LedgerLine]:
    """The rows in the scope, with what their attempts say by now."""
    projects = (scope.project_id,) if scope.project_id is not None else scope.project_ids
    for line in db.ledger.lines:
        if (
            (projects is None or line.project_id in projects)
            and (scope.key_ids is None or line.key_id in scope.key_ids)
            and (scope.batch_id is None or line.batch_id == scope.batch_id)
            and (scope.since is None or line.at >= scope.since)
        ):
            yield _told(db, line)


def _told(db: "Tables", line: LedgerLine) -> LedgerLine:
    attempt = db.attempts.get(line.attempt_id)
    if attempt is None:
        return line
    values = {each.name: getattr(line, each.name) for each in fields(LedgerLine)}
    values |= {"provider_id": attempt.provider_id, "flag": attempt.flag}
    values["usage"] = attempt.usage if line.kind in {"settled", "late"} else None
    return LedgerLine(**values)


def cost_rows(lines: Iterable[LedgerLine]) -> Iterator[CostRow]:
    """One for each amount that counts, told apart by everything."""
    for line in lines:
        if line.kind not in COUNTED:
            continue
        settles = line.kind in {"settled", "late"}
        kind = CostKind.CALLS if settles or line.kind == "refunded" else CostKind(line.kind)
        amount = NanoUSD(-line.amount) if line.kind == "refunded" else line.amount
        yield _cost_row(line, kind, amount, settles)
        if line.kind == "refunded" and line.freed:
            yield _cost_row(line, CostKind.OVERRUN, NanoUSD(-line.freed), settles=False)


def _cost_row(line: LedgerLine, kind: CostKind, amount: NanoUSD, settles: bool) -> CostRow:
    return CostRow(
        kind=kind,
        amount=amount,
        attempts=int(settles),
        usage=(line.usage if settles else None) or TokenUsage(),
        day=line.day,
        month=line.month,
        project_id=line.project_id,
        key_id=line.key_id,
        batch_id=line.batch_id,
        model=line.model,
        step=line.step,
        price_version=line.price_version,
    )


def difference(db: "Tables", project_id: ProjectId | None) -> Iterator[BudgetDifference]:
    """Budgets that are not what the rows add up to."""
    rebuilt: dict[tuple[ProjectId, str, str], _Sums] = defaultdict(_Sums)
    for line in db.ledger.lines:
        for scope, month in scopes_of(line.batch_id, line.key_id, line.month):
            _add(rebuilt[line.project_id, scope, month], line)
    for place in sorted({*rebuilt, *db.budgets}):
        if project_id is not None and place[0] != project_id:
            continue
        budget, sums = db.budgets.get(place), rebuilt.get(place, _Sums())
        had = _Sums() if budget is None else _Sums(budget.spent, budget.reserved, budget.unconfirmed, budget.overrun)
        if had != sums:
            yield BudgetDifference(
                *place,
                spent=had.spent - sums.spent,
                reserved=had.reserved - sums.reserved,
                unconfirmed=had.unconfirmed - sums.unconfirmed,
                overrun=had.overrun - sums.overrun,
            )


def _add(sums: _Sums, line: LedgerLine) -> None:
    match line.kind:
        case "reserved":
            sums.reserved += line.amount
        case "settled":
            sums.spent += line.amount
            sums.reserved -= line.freed
        case "released":
            sums.reserved -= line.freed
        case "unconfirmed":
            sums.unconfirmed += line.amount
            sums.reserved -= line.freed
        case "late":
            sums.spent += line.amount
            sums.unconfirmed -= line.freed
        case "overrun":
            sums.overrun += line.amount
        case "external":
            sums.spent += line.amount
        case "refunded":
            sums.spent -= line.amount
            sums.overrun -= line.freed
        case _:
            raise AssertionError(f"the ledger knows no kind {line.kind!r}")


def booked_of(attempt: "AttemptRow") -> BookedAttempt:
    """As a reconciliation looks at it."""
    return BookedAttempt(
        id=attempt.id,
        project_id=attempt.project_id,
        batch_id=attempt.batch_id,
        key_id=attempt.key_id,
        task_id=attempt.task_id,
        step=attempt.step,
        model=attempt.model,
        request_id=attempt.request_id,
        state=attempt.state,
        month=attempt.month,
        reserved=attempt.reserved,
        cost=attempt.cost or ZERO,
        overrun=attempt.overrun,
        price_version=attempt.price_version,
        provider_id=attempt.provider_id,
        sent_at=attempt.sent_at,
        doubted_at=attempt.doubted_at,
        flag=attempt.flag,
        price_id=attempt.price_id,
        price_tier=attempt.price_tier,
    )
