"""What a look at a deployment found, and what to do about it. Pure: the store and the API bring the facts."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Level(StrEnum):
    """`FAIL`: work stands still, or a promise does not hold. `WARN`: it will, or might."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result; `mend` is empty where nothing is to be done."""

    check: str
    level: Level
    says: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What the database says of itself. `unguarded` are tables with a project's rows and without forced row-level
    security, `loose_roles` those of ours that may do more than they need, `ledger_ahead` whether the next month has
    its partition, `led` whether a worker leads the sweep, `workers` how many connections of workers there are."""

    schema: str
    wanted_schema: str
    server: int
    now: datetime
    unguarded: tuple[str, ...]
    loose_roles: tuple[str, ...]
    ledger_ahead: bool
    led: bool
    workers: int
    connections: int
    max_connections: int


OLDEST_SERVER = 14
_SKEW_S = 5.0
_CROWDED = 0.85


def judge_store(facts: StoreFacts, *, host_now: datetime) -> Iterator[Finding]:
    """One finding for each fact, good ones included."""
    if facts.schema == facts.wanted_schema:
        yield Finding("schema", Level.OK, f"{facts.schema}")
    elif facts.schema > facts.wanted_schema:
        says = f"{facts.schema}, and this process is of {facts.wanted_schema}: a roll-out is under way"
        yield Finding("schema", Level.WARN, says, "Finish the roll-out: start this process with the new version.")
    else:
        says = f"{facts.schema}, and this process needs {facts.wanted_schema}"
        yield Finding("schema", Level.FAIL, says, "Run the migrations (the `migrate` service, or ./run up).")
    if facts.server < OLDEST_SERVER:
        mend = f"Move to {OLDEST_SERVER} or newer by cope backup and cope restore."
        yield Finding("postgres", Level.FAIL, f"version {facts.server} is too old", mend)
    else:
        yield Finding("postgres", Level.OK, f"version {facts.server}")
    if facts.unguarded:
        says = f"no forced row-level security on {', '.join(facts.unguarded)}"
        yield Finding("isolation", Level.FAIL, says, "Run the migrations again; nobody but they should change tables.")
    elif facts.loose_roles:
        says = f"{', '.join(facts.loose_roles)} may do more than it needs"
        yield Finding("isolation", Level.FAIL, says, "Run the `migrate` service: it sets the roles as they must be.")
    else:
        yield Finding("isolation", Level.OK, "row-level security is forced, and the API's role can't get round it")
    skew = abs((host_now - facts.now).total_seconds())
    if skew > _SKEW_S:
        says = f"this host's clock is {skew:.0f} s off the database's"
        yield Finding("clock", Level.WARN, says, "Run NTP on both: leases go by the database, prices by the host.")
    else:
        yield Finding("clock", Level.OK, "this host and the database agree")
    if facts.workers == 0:
        yield Finding("workers", Level.FAIL, "no worker is connected to the database", "Start the workers.")
    elif not facts.led:
        mend = "Look at the workers' logs: one of them must lead the sweep."
        yield Finding("workers", Level.WARN, "nobody leads the sweep: dead leases and holds wait", mend)
    else:
        yield Finding("workers", Level.OK, f"{facts.workers} connections, the sweep is led")
    if facts.ledger_ahead:
        yield Finding("partitions", Level.OK, "the ledger's next month is made")
    else:
        mend = "The sweep makes it within an hour; if not, look at the upkeep worker's log."
        yield Finding("partitions", Level.WARN, "the ledger's next month is not made yet", mend)
    if facts.connections > _CROWDED * facts.max_connections:
        says = f"{facts.connections} of {facts.max_connections} connections are taken"
        yield Finding("connections", Level.WARN, says, "Raise max_connections, or run fewer processes.")
    else:
        yield Finding("connections", Level.OK, f"{facts.connections} of {facts.max_connections}")


def worst(findings: "list[Finding]") -> Level:
    """`OK` where there are none."""
    levels = {finding.level for finding in findings}
    return Level.FAIL if Level.FAIL in levels else Level.WARN if Level.WARN in levels else Level.OK
