"""The price table: dated, versioned rows, looked up by price id, tier and moment.

Of a price id and tier, the latest row effective by then is in force: a change that lies in the future takes effect at
its instant, in every process that knows the row. Rows come from the shipped table, from the operator's own file and
from the store; what operators add at run time counts beside whatever is configured at present, while a row that the
store only remembers from an earlier configuration is kept to be looked up, and prices nothing.
"""

import shlex
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from cope.core.errors import Unpriced
from cope.core.models import ModelEntry
from cope.core.money import NanoUSD, Price, PriceTier
from cope.core.stages import Tier

TIERS: tuple[PriceTier, ...] = ("standard", "batch")
Status = Literal["in_force", "scheduled", "superseded", "lapsed", "withdrawn"]

_Key = tuple[str, PriceTier, str]
_OLD_BATCH_SUFFIX = ":batch"
_MOST_NAMED = 12
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class PriceTable:
    """Rows of any number of price ids, tiers and dates. It only ever grows: rows are never changed or taken away."""

    def __init__(self, configured: Iterable[Price] = ()) -> None:
        self._configured: dict[_Key, Price] = {row.key: row for row in configured}
        self._stored: dict[_Key, Price] = {}
        self._arrange()

    @property
    def rows(self) -> tuple[Price, ...]:
        """Every row that is, was or will be in force, by price id, tier and date."""
        return tuple(row for key in sorted(self._counting) for row in self._counting[key])

    @property
    def history(self) -> tuple[Price, ...]:
        """Those and the ones that are only remembered from an earlier configuration."""
        return tuple(sorted({**self._configured, **self._stored}.values(), key=_by_id_and_date))

    @property
    def stored_count(self) -> int:
        """How many of the store's rows are known here."""
        return len(self._stored)

    def learn(self, stored: Iterable[Price]) -> None:
        """Take in rows of the store, with their provenance."""
        self._stored.update({row.key: row for row in stored})
        self._arrange()

    def plus(self, row: Price) -> "PriceTable":
        """Another table that also has this row of an operator's: to look at what it would change."""
        table = PriceTable(self._configured.values())
        table.learn((*self._stored.values(), row))
        return table

    def at(self, price_id: str, now: datetime, tier: PriceTier = "standard") -> Price:
        """The row in force at `now`: the latest one effective by then, unless it has lapsed.

        Of two with one date the one added later counts. An id of the old form ``…:batch`` is its batch tier. Raises
        `Unpriced`, with the command that adds a price.
        """
        price_id, tier = split_price_id(price_id, tier)
        begun = [row for row in self._counting.get((price_id, tier), ()) if row.effective_at <= now]
        if not begun or not begun[-1].holds(now):
            raise self._unpriced(price_id, tier, now)
        return begun[-1]

    def row(self, price_id: str, version: str, tier: PriceTier = "standard") -> Price | None:
        """The row that an attempt or a ledger entry names, in force or not."""
        price_id, tier = split_price_id(price_id, tier)
        key = (price_id, tier, version)
        return self._stored.get(key) or self._configured.get(key)

    def bound(self, price_id: str, now: datetime, *, within_s: float, tier: PriceTier = "standard") -> Price:
        """The dearest of each amount among the rows in force at any moment from `now` to `within_s` later.

        What a reservation is reckoned with, so that a rise while the call is under way stays within it. Raises
        `Unpriced` where none is in force at `now`.
        """
        present = self.at(price_id, now, tier)
        end = now + timedelta(seconds=within_s)
        coming = [row for row in self._counting[present.price_id, present.tier] if now < row.effective_at <= end]
        rows = (present, *coming)
        return replace(
            present,
            input_per_mtok=NanoUSD(max(row.input_per_mtok for row in rows)),
            cached_input_per_mtok=NanoUSD(max(row.cached_input_per_mtok for row in rows)),
            output_per_mtok=NanoUSD(max(row.output_per_mtok for row in rows)),
        )

    def of_model(self, model: ModelEntry, now: datetime, tier: PriceTier = "standard") -> Price | None:
        """The price of a model's calls; None for a small model without one, which is free.

        A model of the paid tier without a price in force raises `Unpriced`: it is refused, never free.
        """
        if is_free(model):
            return None
        try:
            return self.at(model.price_id or model.served_name, now, tier)
        except Unpriced as missing:
            raise Unpriced(f"Model {model.name!r} can't be called. {missing.message}") from None

    def status(self, row: Price, now: datetime) -> Status:
        """How a row stands at `now`."""
        siblings = self._counting.get((row.price_id, row.tier), [])
        if row not in siblings:
            return "withdrawn"
        if row.effective_at > now:
            return "scheduled"
        if [other for other in siblings if other.effective_at <= now][-1].key != row.key:
            return "superseded"
        return "in_force" if row.holds(now) else "lapsed"

    def _arrange(self) -> None:
        counting = {
            **self._configured,
            **{k: row for k, row in self._stored.items() if row.origin == "operator" or k in self._configured},
        }
        self._counting: dict[tuple[str, PriceTier], list[Price]] = {}
        for row in sorted(counting.values(), key=_by_id_and_date):
            self._counting.setdefault((row.price_id, row.tier), []).append(row)

    def _unpriced(self, price_id: str, tier: PriceTier, now: datetime) -> Unpriced:
        rows = self._counting.get((price_id, tier), [])
        upcoming = next((row.effective_at for row in rows if row.effective_at > now), None)
        ended = max(
            (row.effective_until for row in rows if row.effective_until and row.effective_until <= now), default=None
        )
        what = f"There is no price {price_id!r} in force" + ("" if tier == "standard" else f" for the {tier} tier")
        when = ""
        if ended is not None:
            when += f" (the last one lapsed at {ended:%Y-%m-%dT%H:%M:%SZ})"
        if upcoming is not None:
            when += f" (the next one begins at {upcoming:%Y-%m-%dT%H:%M:%SZ})"
        return Unpriced(
            f"{what}{when}: a paid model is refused, never free. Add one, with the provider's own amounts in USD per "
            f"million tokens: {add_command(price_id, tier)}{self._known_ids(price_id)}"
        )

    def _known_ids(self, price_id: str) -> str:
        """For a slip in the id: those there are, unless it is one of them."""
        known = sorted({known for known, _ in self._counting})
        if price_id in known or not known:
            return ""
        more = f" and {len(known) - _MOST_NAMED} more" if len(known) > _MOST_NAMED else ""
        return f" (known price ids: {', '.join(known[:_MOST_NAMED])}{more})"


def split_price_id(price_id: str, tier: PriceTier = "standard") -> tuple[str, PriceTier]:
    """Id and tier; ``gpt-4o:batch``, as batch tiers were once written, is the batch tier of ``gpt-4o``."""
    if price_id.endswith(_OLD_BATCH_SUFFIX) and price_id != _OLD_BATCH_SUFFIX:
        return price_id.removesuffix(_OLD_BATCH_SUFFIX), "batch"
    return price_id, tier


def add_command(price_id: str, tier: PriceTier = "standard") -> str:
    """The command that adds a price, with amounts to be replaced."""
    other = "" if tier == "standard" else f" --tier {tier}"
    return (
        f"cope prices add {shlex.quote(price_id)} --input 2.50 --cached-input 1.25 --output 10.00 --source URL{other}"
    )


def parse_moment(text: str) -> datetime:
    """A date or a moment in ISO 8601, as whole seconds in UTC; without a zone it is UTC. Raises `ValueError`."""
    moment = datetime.fromisoformat(text)
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return aware.replace(microsecond=0)


def _by_id_and_date(row: Price) -> tuple[str, str, datetime, datetime, str]:
    return row.price_id, row.tier, row.effective_at, row.added_at or _LONG_AGO, row.version


def is_free(model: ModelEntry) -> bool:
    """Whether nothing is ever paid for this model's calls: a small one without a price of its own."""
    return model.price_id is None and model.tier is Tier.SMALL
