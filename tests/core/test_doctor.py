"""What the doctor makes of the database's facts."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cope.core.doctor import Finding, Level, StoreFacts, judge_store, worst

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
WELL = StoreFacts(
    schema="0019",
    wanted_schema="0019",
    server=18,
    now=NOON,
    unguarded=(),
    loose_roles=(),
    ledger_ahead=True,
    led=True,
    workers=3,
    connections=20,
    max_connections=100,
)


def bad(facts: StoreFacts, host_now: datetime = NOON) -> dict[str, Level]:
    return {one.check: one.level for one in judge_store(facts, host_now=host_now) if one.level is not Level.OK}


def test_a_healthy_database_has_a_finding_for_every_check_and_nothing_to_mend():
    found = list(judge_store(WELL, host_now=NOON))
    assert [one.check for one in found] == [
        "schema",
        "postgres",
        "isolation",
        "clock",
        "workers",
        "partitions",
        "connections",
    ]
    assert {(one.level, one.mend) for one in found} == {(Level.OK, "")}


@pytest.mark.parametrize(
    ("change", "check", "level"),
    [
        ({"schema": "0018"}, "schema", Level.FAIL),
        ({"schema": "0020"}, "schema", Level.WARN),
        ({"server": 13}, "postgres", Level.FAIL),
        ({"unguarded": ("tasks",)}, "isolation", Level.FAIL),
        ({"loose_roles": ("cope_api",)}, "isolation", Level.FAIL),
        ({"workers": 0, "led": False}, "workers", Level.FAIL),
        ({"led": False}, "workers", Level.WARN),
        ({"ledger_ahead": False}, "partitions", Level.WARN),
        ({"connections": 90}, "connections", Level.WARN),
    ],
)
def test_each_fault_is_one_finding_that_says_how_to_mend_it(change: dict[str, object], check: str, level: Level):
    facts = replace(WELL, **change)  # type: ignore[arg-type]
    assert bad(facts) == {check: level}
    assert all(one.mend for one in judge_store(facts, host_now=NOON) if one.level is not Level.OK)


def test_a_host_clock_that_is_off_either_way_is_told():
    assert bad(WELL, NOON + timedelta(seconds=30)) == bad(WELL, NOON - timedelta(seconds=30)) == {"clock": Level.WARN}
    assert bad(WELL, NOON + timedelta(seconds=3)) == {}


def test_the_worst_finding_is_the_whole_result():
    ok, warn, fail = (Finding("x", level, "") for level in (Level.OK, Level.WARN, Level.FAIL))
    assert (worst([]), worst([ok]), worst([ok, warn]), worst([warn, fail, ok])) == (
        Level.OK,
        Level.OK,
        Level.WARN,
        Level.FAIL,
    )
