"""The ledger's monthly partitions and the event log's daily ones, made a month and two days ahead."""

import time

from cope.adapters.postgres.database import Database

_EVERY_S = 3600.0

# The present month and the next, in UTC: a project whose zone is ahead comes to its new month hours earlier.
_AHEAD = """
SELECT make_ledger_partition(to_char(now() AT TIME ZONE 'UTC' + ahead * interval '1 month', 'YYYY-MM'))
FROM generate_series(0, 1) AS ahead
"""


_DAYS_AHEAD = "SELECT make_event_partition((now() AT TIME ZONE 'UTC')::date + n) FROM generate_series(0, 2) AS n"


class Partitions:
    """Remembers when it last looked: once an hour is enough for what is needed in a month."""

    def __init__(self) -> None:
        self._looked_at = -_EVERY_S

    async def make_ahead(self, db: Database) -> None:
        """Make what is missing. Rows without a partition of their own are not lost: they lie in `ledger_rest` or
        `event_log_rest`."""
        if time.monotonic() - self._looked_at < _EVERY_S:
            return
        async with db.transaction() as conn:
            await conn.execute(_AHEAD)
            await conn.execute(_DAYS_AHEAD)
        self._looked_at = time.monotonic()
