"""The price table: dated rows, looked up by price id and moment."""

from collections.abc import Iterable
from datetime import datetime

from cope.core.errors import Misconfigured
from cope.core.models import ModelEntry
from cope.core.money import Price
from cope.core.stages import Tier


class PriceTable:
    """Rows of any number of price ids and dates. Immutable after construction."""

    def __init__(self, rows: Iterable[Price]) -> None:
        self._rows: dict[str, list[Price]] = {}
        for row in sorted(rows, key=lambda price: price.effective_at):
            self._rows.setdefault(row.price_id, []).append(row)

    @property
    def rows(self) -> tuple[Price, ...]:
        """Every row, by price id and date."""
        return tuple(row for price_id in sorted(self._rows) for row in self._rows[price_id])

    def at(self, price_id: str, now: datetime) -> Price:
        """The row in force at `now`: the latest one effective by then. Raises `Misconfigured` if there is none."""
        in_force = [row for row in self._rows.get(price_id, []) if row.effective_at <= now]
        if not in_force:
            known = ", ".join(sorted(self._rows)) or "none"
            raise Misconfigured(f"There is no price {price_id!r} in force. Known price ids: {known}.")
        return in_force[-1]

    def of_model(self, model: ModelEntry, now: datetime) -> Price | None:
        """The price of a model's calls; None for a small model without one, which is free.

        A model of the paid tier without a price raises `Misconfigured`: it is refused, never free.
        """
        if model.price_id is not None:
            return self.at(model.price_id, now)
        if model.tier is Tier.LARGE:
            raise Misconfigured(f"Model {model.name!r} is of the paid tier and has no price: set its price id.")
        return None
