"""Partitions made ahead: the ledger's months by one, the event log's days by two, the weeks of steps by two."""

import time
from datetime import datetime

from cope.adapters.postgres.database import Connection, Database, fetch_one
from cope.adapters.postgres.retained import partitions
from cope.core.ids import TASK
from cope.core.keeping import WEEK, first_id, week_of

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
        """Make what is missing. Rows without a partition of their own are not lost: they lie in `ledger_rest`,
        `event_log_rest` or `steps_rest`."""
        if time.monotonic() - self._looked_at < _EVERY_S:
            return
        async with db.transaction() as conn:
            await conn.execute(_AHEAD)
            await conn.execute(_DAYS_AHEAD)
        async with db.transaction() as conn:
            await _make_weeks(conn)
        self._looked_at = time.monotonic()


async def _make_weeks(conn: Connection) -> None:
    """This week's and the next two. What comes without one lies in `steps_rest`."""
    row = await fetch_one(conn, "SELECT now() AS now")
    assert row is not None
    now: datetime = row["now"]
    known = [(part.low or "", part.high) for part in await partitions(conn, "steps") if part.high is not None]
    for week in (week_of(now) + n * WEEK for n in range(3)):
        low, high = first_id(TASK, week), first_id(TASK, week + WEEK)
        if not any(begin <= low < end for begin, end in known):
            await conn.execute("SELECT make_steps_partition(%s, %s, %s)", [f"steps_{week:%Y%m%d}", low, high])
