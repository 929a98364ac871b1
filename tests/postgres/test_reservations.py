"""64 claimants at once, over 200 seeded runs: headroom for exactly N calls grants exactly N, whichever cap holds it."""

import asyncio
from random import Random

import psycopg
import pytest

from cope.adapters.postgres.money import ledger_difference
from cope.core.errors import StoreUnavailable
from cope.core.money import NanoUSD
from cope.ports.store import ClaimedTask, Granted, Refused, ReserveResult
from tests.contracts.world import PostgresWorld, ask
from tests.postgres.conftest import Place

pytestmark = pytest.mark.integration

CLAIMANTS = 64
RUNS = 200


async def one_run(world: PostgresWorld, random: Random) -> None:
    """A new project with one binding cap, the others loose or absent, and 64 claimants alone or in groups."""
    amount, fits = random.randint(1, 10**7), random.randint(0, CLAIMANTS)
    cap = NanoUSD(fits * amount + random.randint(0, amount - 1))
    loose = [None, NanoUSD(cap + random.randint(0, 10**9))]
    binding = random.choice(["project", "key", "batch"])
    caps = {scope: cap if scope == binding else random.choice(loose) for scope in ("project", "key", "batch")}

    project = await world.project(cap=caps["project"])
    key = await world.key(project, cap=caps["key"], secret=f"sk-{project.id}")
    batch = await world.batch(project, CLAIMANTS, queue="large", key_id=key.id, cap=caps["batch"])
    tasks = await world.claim("large", limit=CLAIMANTS)
    size = random.choice([1, 1, 1, 4, 16])
    groups = [tasks[start : start + size] for start in range(0, CLAIMANTS, size)]

    async def claimant(group: list[ClaimedTask]) -> list[ReserveResult]:
        return await world.worker.reserve([ask(task, amount) for task in group])

    answers = [answer for group in await asyncio.gather(*(map(claimant, groups))) for answer in group]

    granted = [answer for answer in answers if isinstance(answer, Granted)]
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    said = (binding, fits, size, amount)
    assert (len(granted), len(refused)) == (fits, CLAIMANTS - fits), said
    assert {answer.scope.value for answer in refused} <= {binding}, said
    for scope in ("project", key.id, batch.id):
        assert (await world.api.get_budget(project.id, scope=scope)).reserved == fits * amount, said


async def test_exactly_as_many_are_granted_as_the_headroom_covers_in_each_of_200_seeded_runs(
    world: PostgresWorld, place: Place
) -> None:
    for seed in range(RUNS):
        await one_run(world, Random(seed))
    async with await psycopg.AsyncConnection.connect(place.worker) as conn:
        assert await ledger_difference(conn) == []


async def test_a_budget_row_that_vanishes_is_begun_again_by_the_next_reservation(
    world: PostgresWorld, place: Place
) -> None:
    project = await world.project(cap=NanoUSD(5_000))
    await world.batch(project, 3, queue="large")
    first, second, third = await world.claim("large", limit=3)
    assert isinstance(await world.reserve(first, 1_000), Granted)
    assert isinstance(await world.reserve(second, 1_000), Granted)  # from now on the rows are known to exist
    with psycopg.connect(place.superuser) as conn:
        conn.execute("DELETE FROM budgets")

    with pytest.raises(StoreUnavailable):
        await world.reserve(third, 1_000)

    assert isinstance(await world.reserve(third, 1_000), Granted)
