"""The ledger: one row per attempt and kind, in the partition of its month, and every budget can be rebuilt from it."""

import psycopg
import pytest

from cope.adapters.postgres.money import ledger_difference
from cope.core.money import NanoUSD
from tests.contracts.world import PostgresWorld, bill, done, large_step
from tests.postgres.conftest import Place

pytestmark = pytest.mark.integration


def partitions(place: Place) -> dict[str, int]:
    """Rows by partition."""
    with psycopg.connect(place.superuser) as conn:
        rows = conn.execute("SELECT tableoid::regclass::text, count(*) FROM ledger GROUP BY 1").fetchall()
    return dict(rows)


async def difference(place: Place) -> list[dict[str, object]]:
    async with await psycopg.AsyncConnection.connect(place.superuser) as conn:
        return [dict(row) for row in await ledger_difference(conn)]


async def spend(world: PostgresWorld) -> str:
    project = await world.project(cap=NanoUSD(10_000))
    key = await world.key(project, secret=f"sk-{project.id}")
    await world.batch(project, 1, queue="large", key_id=key.id, cap=NanoUSD(5_000))
    task = await world.claim_one("large")
    granted = await world.send(task, 1_000)
    await world.commit(done(task, step=large_step(400), bills=(bill(granted, 400),)))
    return granted.month


async def test_rows_lie_in_the_partition_of_the_month_they_were_reserved_in(world: PostgresWorld, place: Place) -> None:
    month = await spend(world)

    assert partitions(place) == {f"ledger_{month.replace('-', '_')}": 2}


async def test_nothing_can_be_booked_twice(world: PostgresWorld, place: Place) -> None:
    await spend(world)

    with psycopg.connect(place.worker) as conn, pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute("INSERT INTO ledger SELECT * FROM ledger LIMIT 1")


async def test_a_month_without_a_partition_loses_nothing_and_keeps_the_books_right(
    world: PostgresWorld, place: Place
) -> None:
    month = await spend(world)
    with psycopg.connect(place.superuser) as conn:
        conn.execute(f"ALTER TABLE ledger DETACH PARTITION ledger_{month.replace('-', '_')}")
        conn.execute(f"DROP TABLE ledger_{month.replace('-', '_')}")
        conn.execute("UPDATE budgets SET spent = 0")
    try:
        await spend(world)
        assert partitions(place) == {"ledger_rest": 2}
        assert await difference(place) == []
        with psycopg.connect(place.worker) as conn:
            assert conn.execute("SELECT make_ledger_partition(%s)", [month]).fetchone() == (False,)
        assert partitions(place) == {"ledger_rest": 2}
    finally:
        with psycopg.connect(place.superuser, autocommit=True) as conn:
            conn.execute("TRUNCATE ledger")
            conn.execute("SELECT make_ledger_partition(%s)", [month])


async def test_partitions_are_made_by_the_worker_once_and_only_for_a_month(place: Place) -> None:
    with psycopg.connect(place.worker, autocommit=True) as conn:
        assert conn.execute("SELECT make_ledger_partition('2031-01')").fetchone() == (True,)
        assert conn.execute("SELECT make_ledger_partition('2031-01')").fetchone() == (False,)
        with pytest.raises(psycopg.errors.RaiseException, match="a month is written"):
            conn.execute("SELECT make_ledger_partition('2031-01; DROP TABLE tasks')")
    with psycopg.connect(place.api) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("SELECT make_ledger_partition('2031-02')")


async def test_a_budget_that_was_tampered_with_is_named_to_the_nano_dollar(world: PostgresWorld, place: Place) -> None:
    await spend(world)
    assert await difference(place) == []

    with psycopg.connect(place.superuser) as conn:
        conn.execute("UPDATE budgets SET spent = spent - 7 WHERE scope LIKE 'batch%'")

    (wrong,) = await difference(place)
    assert (wrong["spent"], wrong["reserved"], str(wrong["scope"])[:6]) == (-7, 0, "batch_")
