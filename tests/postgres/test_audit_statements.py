"""What an audit costs a commit in statements: none at a share of 0, a few per group above."""

import contextlib
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from cope.adapters.postgres import PostgresApiStore, PostgresWorkerStore, commit
from cope.adapters.postgres.claim import Policies
from cope.adapters.postgres.migrate import downgrade, upgrade
from cope.adapters.postgres.money import ledger_difference
from cope.core.audit_sampling import WHOLE
from cope.core.budget import AUDIT_SCOPE
from cope.core.money import NanoUSD
from cope.ports.store import StepCommit
from tests.contracts.world import PostgresWorld, accepted, bill, done, large_step
from tests.postgres.conftest import Place

pytestmark = pytest.mark.integration

BEFORE = "0008-1"
"""The revision that the shadow audit's comes after."""


class Recording(psycopg.AsyncCursor[Any]):
    """Remembers what it was asked to run."""

    statements: list[str] = []  # noqa: RUF012

    async def execute(self, query: Any, *arguments: Any, **options: Any) -> "Recording":
        self.statements.append(" ".join(str(query).split()))
        await super().execute(query, *arguments, **options)
        return self


async def run(place: Place, *commits: StepCommit) -> list[str]:
    """The statements of one transaction of commits."""
    Recording.statements.clear()
    async with await psycopg.AsyncConnection.connect(place.worker, cursor_factory=Recording) as conn:
        await commit.commit(conn, Policies(), commits)
    return list(Recording.statements)


async def test_at_a_share_of_0_an_accepting_commit_runs_the_statements_it_always_ran(
    world: PostgresWorld, place: Place
) -> None:
    project = await world.project()
    await world.batch(project, 2)
    one, other = await world.claim(limit=2)

    plain = await run(place, done(one))
    confident = await run(place, replace(done(other), audit=accepted()))

    assert confident == plain
    with psycopg.connect(place.superuser) as conn:
        assert conn.execute("SELECT count(*) FROM audits").fetchone() == (0,)
        assert conn.execute("SELECT count(*) FROM audit_population").fetchone() == (0,)
        assert conn.execute("SELECT count(*) FROM tasks").fetchone() == (2,)


async def test_above_0_a_group_of_commits_runs_one_statement_more_where_none_is_sampled_and_four_where_some_are(
    world: PostgresWorld, place: Place
) -> None:
    project = await world.project()
    await world.batch(project, 9)
    tasks = await world.claim(limit=9)
    plain = await run(place, *[done(task) for task in tasks[:3]])
    await world.api.set_audit_share(project.id, 1)  # of a million: none of three
    few = await run(place, *[replace(done(task), audit=accepted()) for task in tasks[3:6]])
    await world.api.set_audit_share(project.id, WHOLE)
    all_of_them = await run(place, *[replace(done(task), audit=accepted()) for task in tasks[6:]])

    assert len(few) == len(plain) + 1
    assert len(all_of_them) == len(plain) + 4


async def test_the_ledger_rebuilds_the_audits_budget(world: PostgresWorld, place: Place) -> None:
    project = await world.project(cap=NanoUSD(10_000))
    key = await world.key(project)
    await world.api.set_cap(project.id, NanoUSD(5_000), scope=AUDIT_SCOPE)
    await world.api.set_audit_share(project.id, WHOLE)
    await world.batch(project, 2, key_id=key.id)
    await world.commit(*[replace(done(task), audit=accepted()) for task in await world.claim(limit=2)])
    first, second = await world.claim("large", limit=2)
    granted = await world.send(first, 1_000, step="audit")
    await world.commit(done(first, step=large_step(400, name="audit"), bills=(bill(granted, 400),)))
    await world.send(second, 900, step="audit")

    async with await psycopg.AsyncConnection.connect(place.superuser) as conn:
        assert await ledger_difference(conn) == []
        found = await conn.execute("SELECT scope, spent, reserved FROM budgets ORDER BY scope")
        assert await found.fetchall() == [(AUDIT_SCOPE, 400, 900), ("project", 400, 900)]
        await conn.execute("UPDATE budgets SET reserved = 0 WHERE scope = 'audit'")
        (wrong,) = await ledger_difference(conn)
        assert (wrong["scope"], wrong["reserved"]) == (AUDIT_SCOPE, -900)


async def test_taking_the_migration_back_ends_what_was_still_to_be_asked_and_keeps_the_money(bare: Place) -> None:
    upgrade(bare.owner)
    key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    api, worker = PostgresApiStore(bare.api, secret_key=key), PostgresWorkerStore(bare.worker, secret_key=key)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(worker.aclose)
        stack.push_async_callback(api.aclose)
        await api.open()
        await worker.open()
        world = PostgresWorld(api, worker, bare.superuser)
        project = await world.project()
        await world.api.set_cap(project.id, NanoUSD(5_000), scope=AUDIT_SCOPE)
        await world.api.set_audit_share(project.id, WHOLE)
        await world.batch(project, 2)
        await world.commit(*[replace(done(task), audit=accepted()) for task in await world.claim(limit=2)])
        first = await world.claim_one("large")
        granted = await world.send(first, 1_000, step="audit")
        await world.commit(done(first, step=large_step(400, name="audit"), bills=(bill(granted, 400),)))

    downgrade(bare.owner, BEFORE)

    with psycopg.connect(bare.superuser) as conn:
        states = conn.execute("SELECT state FROM tasks WHERE key_id = 'audit' ORDER BY state").fetchall()
        assert states == [("cancelled",), ("done",)]
        assert conn.execute("SELECT spent FROM budgets WHERE scope = 'audit'").fetchone() == (400,)
        assert conn.execute("SELECT to_regclass('audits')").fetchone() == (None,)
    upgrade(bare.owner)
