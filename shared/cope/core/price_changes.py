"""Whether a new price looks like a slip of the pen, and what it would have changed. Pure.

Every objection may be overruled, with a reason that is stored with the row: prices do rise fivefold, and some are zero.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from cope.core.errors import Unpriced
from cope.core.money import NANO_PER_USD, NanoUSD, Price, TokenUsage, format_usd
from cope.core.policies.spec import SOLUTION_TOKENS
from cope.core.prices import PriceTable

LARGEST_FACTOR = 4
_USUAL_LOW, _USUAL_HIGH = NANO_PER_USD // 1000, NANO_PER_USD * 1000
_CLOCKS_DIFFER = timedelta(seconds=60)
_TYPICAL_PROMPT_TOKENS = 500
_BYTES_PER_TOKEN = 4
_TEMPLATE_TOKENS = 3 * 16 + 64


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a row is not taken without being told to. `code` is stable; the message says what to look at."""

    code: str
    message: str


def objections(new: Price, table: PriceTable, now: datetime) -> tuple[Objection, ...]:
    """What speaks against adding `new` to `table` at `now`; empty where nothing does."""
    found = [*_odd_amounts(new), *_odd_dates(new, table, now)]
    replaced = in_force(table, new, max(now, new.effective_at))
    if replaced is not None:
        found += _leaps(new, replaced)
    if new.tier == "batch":
        found += _dearer_than_standard(new, table, max(now, new.effective_at))
    return tuple(found)


def in_force(table: PriceTable, like: Price, now: datetime) -> Price | None:
    """The row of the same id and tier that is in force at `now`, or None."""
    try:
        return table.at(like.price_id, now, like.tier)
    except Unpriced:
        return None


def amounts(price: Price) -> dict[str, NanoUSD]:
    """The three amounts by name, per million tokens."""
    return {
        "input": price.input_per_mtok,
        "cached_input": price.cached_input_per_mtok,
        "output": price.output_per_mtok,
    }


def next_version(table: PriceTable, price_id: str, tier: str, now: datetime) -> str:
    """A version that is still free for this id and tier: the day, from the second on with a number behind it."""
    taken = {row.version for row in table.history if (row.price_id, row.tier) == (price_id, tier)}
    day, number = now.date().isoformat(), 1
    version = day
    while version in taken:
        number += 1
        version = f"{day}.{number}"
    return version


def _odd_amounts(new: Price) -> list[Objection]:
    found = []
    for name, amount in amounts(new).items():
        if amount == 0:
            found.append(Objection("zero_price", f"{name} is zero: these tokens would be free."))
        elif not _USUAL_LOW <= amount <= _USUAL_HIGH:
            found.append(
                Objection(
                    "unusual_price",
                    f"{name} is ${format_usd(amount)} per million tokens, outside $0.001 to $1000: check the unit.",
                )
            )
    if new.cached_input_per_mtok > new.input_per_mtok:
        found.append(
            Objection(
                "cached_above_input",
                f"cached_input (${format_usd(new.cached_input_per_mtok)}) is above input "
                f"(${format_usd(new.input_per_mtok)}).",
            )
        )
    return found


def _odd_dates(new: Price, table: PriceTable, now: datetime) -> list[Objection]:
    siblings = [row for row in table.rows if (row.price_id, row.tier) == (new.price_id, new.tier)]
    if not siblings:
        return []  # the first row of its kind: no call can have been made at another price
    found = []
    if new.effective_at < now - _CLOCKS_DIFFER:
        found.append(
            Objection(
                "effective_in_the_past",
                f"effective_at ({_iso(new.effective_at)}) is past. Calls already reserved keep the price they were "
                "reserved at: nothing is repriced, the row would only count from now on.",
            )
        )
    present = in_force(table, new, now)
    if present is not None and new.effective_at < present.effective_at:
        found.append(
            Objection(
                "before_the_row_in_force",
                f"effective_at ({_iso(new.effective_at)}) lies before that of the row in force, {present.version!r} "
                f"({_iso(present.effective_at)}): the new row would never take effect.",
            )
        )
    return found


def _leaps(new: Price, replaced: Price) -> list[Objection]:
    found = []
    for name, was in amounts(replaced).items():
        amount = amounts(new)[name]
        if amount > LARGEST_FACTOR * was or LARGEST_FACTOR * amount < was:
            found.append(
                Objection(
                    "large_change",
                    f"{name} goes from ${format_usd(was)} ({replaced.version!r}) to ${format_usd(amount)} per million "
                    f"tokens, more than {LARGEST_FACTOR} times {'up' if amount > was else 'down'}.",
                )
            )
    return found


def _dearer_than_standard(new: Price, table: PriceTable, now: datetime) -> list[Objection]:
    try:
        standard = table.at(new.price_id, now)
    except Unpriced:
        return []
    return [
        Objection("batch_above_standard", f"{name} of the batch tier is above the standard tier's ${format_usd(was)}.")
        for name, was in amounts(standard).items()
        if amounts(new)[name] > was
    ]


@dataclass(frozen=True, slots=True)
class Repricing:
    """Settled attempts, and what the same tokens cost at another price.

    Sums are over attempts whose usage is known: `attempts` of them, with `usage.calls` calls; `spent` is what they came
    to, overruns included, `repriced` what they would have. An attempt without usage was settled at its reserve or not
    billed at all: `unmeasured` of them came to `unmeasured_spent`, and no price changes that.
    """

    attempts: int
    usage: TokenUsage
    spent: NanoUSD
    repriced: NanoUSD
    unmeasured: int
    unmeasured_spent: NanoUSD

    @property
    def difference(self) -> NanoUSD:
        """What the new price would have added; negative where it is cheaper."""
        return NanoUSD(self.repriced - self.spent)


NOTHING_SETTLED = Repricing(0, TokenUsage(), NanoUSD(0), NanoUSD(0), 0, NanoUSD(0))


def typical_call(usage: TokenUsage) -> tuple[int, int]:
    """(prompt tokens, output limit) of one call to compare reserves by: the mean prompt of `usage`, or 500 tokens where
    there were no calls, and the default limit of a solution."""
    prompt = _TYPICAL_PROMPT_TOKENS if not usage.calls else max(1, usage.prompt // usage.calls)
    return prompt, SOLUTION_TOKENS


def typical_reserve(price: Price, call: tuple[int, int]) -> NanoUSD:
    """What such a call reserves: four bytes a prompt token, three messages, the whole output limit."""
    prompt, limit = call
    return price.worst_case(input_tokens=_BYTES_PER_TOKEN * prompt + _TEMPLATE_TOKENS, output_tokens=limit)


def _iso(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
