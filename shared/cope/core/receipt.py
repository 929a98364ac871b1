"""A receipt: everything that one project and month, or one batch, has cost, down to the nano-dollar."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from cope.core.ledger import CostKind, CostRow, total_of
from cope.core.money import NanoUSD, TokenUsage, format_usd
from cope.core.records import Budget


@dataclass(frozen=True, slots=True)
class Receipt:
    """`lines` are told apart by kind, model, stage and price version. `budget` is what the caps look at: where the
    books are right, its spent and overrun are the total (`difference` 0).

    `final`: nothing is reserved or in doubt any more and the period is over, so that only a later correction after the
    provider's records can change it.
    """

    about: str
    project_id: str
    project_name: str
    period: str
    time_zone: str
    made_at: datetime
    final: bool
    lines: tuple[CostRow, ...]
    budget: Budget

    @property
    def total(self) -> NanoUSD:
        """Calls, external spend and overruns."""
        return total_of(self.lines)

    @property
    def usage(self) -> TokenUsage:
        """All calls' tokens."""
        return sum((line.usage for line in self.lines), TokenUsage())

    @property
    def attempts(self) -> int:
        """Paid steps."""
        return sum(line.attempts for line in self.lines)

    @property
    def price_versions(self) -> tuple[str, ...]:
        """Those used, sorted."""
        return tuple(sorted({line.price_version for line in self.lines if line.price_version}))

    @property
    def difference(self) -> int:
        """Budget minus ledger, in nano-dollars."""
        return self.budget.spent + self.budget.overrun - self.total


def receipt_text(receipt: Receipt) -> str:
    """For people: a table and the sums, in plain text."""
    told = [
        f"Receipt · {receipt.about} · {receipt.period}",
        f"Project {receipt.project_name} ({receipt.project_id}) · days and months in {receipt.time_zone}",
        f"Made {receipt.made_at:%Y-%m-%d %H:%M:%S} UTC · {'final' if receipt.final else 'not final: see below'}",
        "",
        *_table(receipt.lines),
        "",
        *_sums(receipt),
    ]
    return "\n".join(told) + "\n"


def _table(lines: Sequence[CostRow]) -> Iterable[str]:
    head = ("what", "stage", "calls", "prompt", "cached", "output", "price", "USD")
    rows: list[tuple[str, ...]] = [head]
    for line in lines:
        used = (line.usage.calls, line.usage.prompt, line.usage.cached, line.usage.completion)
        numbers = [f"{number:,}" for number in used] if line.kind is CostKind.CALLS else ["", "", "", ""]
        rows.append((line.line_item, line.stage or "", *numbers, line.price_version or "", format_usd(line.amount)))
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    for row in rows:
        cells = [cell.ljust(width) if place in {0, 1, 6} else cell.rjust(width)
                 for place, (cell, width) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        yield "  ".join(cells).rstrip()


def _sums(receipt: Receipt) -> Iterable[str]:
    amounts = [
        ("Calls", total_of(receipt.lines, CostKind.CALLS)),
        ("External", total_of(receipt.lines, CostKind.EXTERNAL)),
        ("Overrun (billed beyond a reserve)", total_of(receipt.lines, CostKind.OVERRUN)),
        ("TOTAL", receipt.total),
    ]
    open_amounts = [
        ("Reserved by calls under way (not in the total)", receipt.budget.reserved),
        ("Unconfirmed: sent, outcome unknown (not in the total)", receipt.budget.unconfirmed),
    ]
    shown = [*amounts, *((name, amount) for name, amount in open_amounts if amount)]
    width = max(len(format_usd(amount)) for _, amount in shown)
    yield from (f"{name:<56}${format_usd(amount).rjust(width)}" for name, amount in shown)
    yield f"{receipt.total} nano-dollars; the budget differs by {receipt.difference}"
    if receipt.budget.cap is not None:
        yield f"Cap ${format_usd(receipt.budget.cap)}"
