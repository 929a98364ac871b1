"""Spend alerts: at what sum each fires, when it may fire again, and what its event says."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cope.core.ids import AlertId, ProjectId
from cope.core.money import NanoUSD
from cope.core.projection import Projection
from cope.core.records import Budget

MOST_ALERTS = 100
"""Per project."""

HIGHEST_PERCENT = 1000
"""Spend beyond the cap exists: a provider's overrun, and what was reported from outside."""


class AlertKind(StrEnum):
    """`amount`: a sum of money. `percent`: a share of the cap. `projected`: the month is heading beyond the cap."""

    AMOUNT = "amount"
    PERCENT = "percent"
    PROJECTED = "projected"


@dataclass(frozen=True, slots=True)
class SpendAlert:
    """Tells a project once a month. `threshold` is nano-dollars (amount), whole per cent ≥ 1 (percent) or None.

    `recipients` and `subject_prefix` are kept and shown; no e-mail is sent. The `fired_*` fields change when it fires,
    and `fired_month` is None again once it is armed again; `fired_threshold` is the sum at which it fired.
    """

    id: AlertId
    project_id: ProjectId
    kind: AlertKind
    threshold: int | None
    recipients: tuple[str, ...]
    subject_prefix: str | None
    created_at: datetime
    fired_month: str | None = None
    fired_at: datetime | None = None
    fired_threshold: NanoUSD | None = None

    def limit(self, cap: NanoUSD | None) -> NanoUSD | None:
        """The sum at which it fires; None where it needs a cap and there is none."""
        match self.kind:
            case AlertKind.AMOUNT:
                return None if self.threshold is None else NanoUSD(self.threshold)
            case AlertKind.PERCENT:
                return None if cap is None or self.threshold is None else NanoUSD(-(-cap * self.threshold // 100))
            case AlertKind.PROJECTED:
                return cap


@dataclass(frozen=True, slots=True)
class Standing:
    """The project's budget of the present month as an alert looks at it.

    `exhausted`: a task waits for money that the month would still not have if all calls in flight came back for
    nothing. The last cents of a cap are seldom spent to the nano-dollar: this is when a cap counts as reached.
    """

    budget: Budget
    exhausted: bool = False
    projection: Projection | None = None

    @property
    def counted(self) -> NanoUSD:
        """What alerts count as spent: settled, possibly billed, and billed beyond the bound. Reserves come back."""
        return counted(self.budget)


def counted(budget: Budget) -> NanoUSD:
    """See `Standing.counted`."""
    return NanoUSD(budget.spent + budget.unconfirmed + budget.overrun)


def fires(alert: SpendAlert, standing: Standing) -> bool:
    """Whether it is due now. One that has fired in this month is not, whatever it would be worth now; nor is a share
    of a cap of nothing while nothing is spent."""
    cap = standing.budget.cap
    limit = alert.limit(cap)
    if limit is None or alert.fired_month == standing.budget.month:
        return False
    if alert.kind is AlertKind.PROJECTED:
        return standing.projection is not None and standing.projection.total > limit
    return standing.counted >= max(limit, 1) or (standing.exhausted and limit == cap)


def rearms(alert: SpendAlert, before: NanoUSD | None, budget: Budget) -> bool:
    """Whether a change of the cap from `before` to what `budget` now says lets a fired alert fire again this month:
    where its sum now lies above what is spent and above the one at which it fired, or, for a projected one, where the
    cap was raised."""
    if alert.fired_month != budget.month:
        return False
    if alert.kind is AlertKind.PROJECTED:
        return budget.cap is None or (before is not None and budget.cap > before)
    limit = alert.limit(budget.cap)
    return limit is None or limit > max(counted(budget), alert.fired_threshold or 0)


def alert_data(alert: SpendAlert, standing: Standing, now: datetime) -> Mapping[str, str | int | None]:
    """What the event `budget.alert` says. None values are left out of it."""
    budget, ahead = standing.budget, standing.projection
    data: dict[str, str | int | None] = {
        "id": alert.id,
        "kind": alert.kind.value,
        "month": budget.month,
        "threshold_nanousd": alert.limit(budget.cap),
        "percent": alert.threshold if alert.kind is AlertKind.PERCENT else None,
        "spent_nanousd": budget.spent,
        "reserved_nanousd": budget.reserved,
        "unconfirmed_nanousd": budget.unconfirmed,
        "overrun_nanousd": budget.overrun,
        "cap_nanousd": budget.cap,
    }
    if alert.kind is AlertKind.PROJECTED and ahead is not None and budget.cap is not None:
        reached = ahead.reaches_at(budget.cap, now)
        data |= {
            "projected_nanousd": ahead.total,
            "projected_at": None if reached is None else int(reached.timestamp()),
            "rate": ahead.rate.value,
            "rate_nanousd_per_day": ahead.per_day,
            "backlog_nanousd": ahead.backlog,
        }
    return data
