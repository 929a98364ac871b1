"""What is kept and until when: partitions with their times, and the counts of what goes next."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from cope.adapters.postgres.database import Connection, fetch, fetch_one
from cope.core.keeping import Keeping, time_of
from cope.ports.retention import PartitionView

PARTITIONED = ("steps", "events", "event_log", "deliveries")
"""Tables whose old partitions are dropped whole; one that is not partitioned is passed over."""

_BOUNDS = re.compile(r"FROM \((?P<low>MINVALUE|'[^']*')\) TO \((?P<high>MAXVALUE|'[^']*')\)")

_LIST = """
SELECT c.relname AS name, pg_get_expr(c.relpartbound, c.oid) AS bounds, pg_total_relation_size(c.oid) AS bytes
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass('public.' || %s)
ORDER BY c.relname
"""


@dataclass(frozen=True, slots=True)
class Partition:
    """One range of a partitioned table. `low` None is without a lower bound; `high` None is the rest. `until` is the
    time at which its range ends: a time itself, or that of the id it ends with."""

    table: str
    name: str
    bytes: int
    low: str | None
    high: str | None
    until: datetime | None

    def goes_at(self, keep: timedelta | None) -> datetime | None:
        """When it may be dropped; None: never."""
        return None if keep is None or self.until is None else self.until + keep

    def over(self, keep: timedelta | None, now: datetime) -> bool:
        """Whether its time has come."""
        goes_at = self.goes_at(keep)
        return goes_at is not None and goes_at <= now


def keeps_of(keeping: Keeping) -> dict[str, timedelta | None]:
    """How long each partitioned table keeps its rows."""
    keeps = (keeping.steps, keeping.events, keeping.events, keeping.deliveries)
    return dict(zip(PARTITIONED, keeps, strict=True))


def values_of(keeping: Keeping) -> dict[str, object]:
    """As parameters; NULL is for ever."""
    return {"tasks": keeping.tasks, "live": keeping.live, "deliveries": keeping.deliveries, "events": keeping.events}


async def partitions(conn: Connection, table: str) -> list[Partition]:
    """Empty for a table that is not partitioned."""
    found = []
    for row in await fetch(conn, _LIST, [table]):
        bounds = _BOUNDS.search(row["bounds"] or "")
        low = None if bounds is None or bounds["low"] == "MINVALUE" else bounds["low"].strip("'")
        high = None if bounds is None or bounds["high"] == "MAXVALUE" else bounds["high"].strip("'")
        found.append(Partition(table, row["name"], row["bytes"], low, high, None if high is None else _time(high)))
    return found


def _time(bound: str) -> datetime | None:
    known = time_of(bound)
    if known is not None:
        return known
    try:
        moment = datetime.fromisoformat(bound)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


async def holds_tasks(conn: Connection, part: Partition) -> bool:
    """Whether a task is left whose steps lie in this partition of `steps`."""
    row = await fetch_one(
        conn,
        "SELECT EXISTS (SELECT FROM tasks WHERE id >= %s AND id < %s) AS held",
        [part.low or "", part.high],
    )
    return row is None or bool(row["held"])


async def views(conn: Connection, keeping: Keeping, now: datetime) -> list[PartitionView]:
    """All partitions of all tables, as they are shown."""
    shown = []
    for table, keep in keeps_of(keeping).items():
        for part in await partitions(conn, table):
            held = table == "steps" and part.over(keep, now) and await holds_tasks(conn, part)
            shown.append(PartitionView(table, part.name, part.bytes, part.until, part.goes_at(keep), held))
    return shown
