"""Keep a process's price table in step with the store: a row added at run time counts without a restart."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from cope.core.batch_tier import batch_price
from cope.core.errors import Unpriced
from cope.core.models import ModelCatalog
from cope.core.prices import PriceTable
from cope.ports.prices import PriceReader
from cope.ports.support import Clock

logger = logging.getLogger(__name__)

REREAD_EVERY_S = 30.0
_STOP_CHECK_S = 0.5


async def reread(store: PriceReader, table: PriceTable) -> bool:
    """Take in rows that the store has and `table` has not; whether there were any. One count where there are none."""
    if await store.count_prices() == table.stored_count:
        return False
    table.learn(await store.list_prices())
    return True


async def reread_or_go_on(store: PriceReader, table: PriceTable) -> None:
    """The same, where an unreachable store must not fail the caller: the rows known so far go on to count."""
    try:
        await reread(store, table)
    except Exception:
        logger.warning("prices could not be read again; those known go on to count", exc_info=True)


class PriceParts(Protocol):
    """What watching needs."""

    @property
    def store(self) -> PriceReader: ...
    @property
    def catalog(self) -> ModelCatalog: ...
    @property
    def prices(self) -> PriceTable: ...
    @property
    def clock(self) -> Clock: ...


async def watch_prices(parts: PriceParts, stopping: Callable[[], bool], *, every_s: float = REREAD_EVERY_S) -> None:
    """Look every `every_s` seconds until `stopping()` is true, and say which models' work waits for a price."""
    while not stopping():
        waited = 0.0
        while waited < every_s and not stopping():
            await asyncio.sleep(min(_STOP_CHECK_S, every_s))
            waited += _STOP_CHECK_S
        if not stopping():
            await reread_or_go_on(parts.store, parts.prices)
            for missing in unpriced(parts.catalog, parts.prices, parts.clock.now()):
                logger.error("%s", missing)


def unpriced(catalog: ModelCatalog, table: PriceTable, now: datetime) -> list[str]:
    """For every configured model that must not be called at `now` for want of a price: how to mend it."""
    found = []
    for entry in catalog.entries.values():
        try:
            for served in entry.variants:
                table.of_model(served, now)
            if entry.batch is not None:
                batch_price(table, entry, now)
        except Unpriced as missing:
            found.append(missing.message)
    return found
