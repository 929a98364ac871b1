"""Spend measured elsewhere: it was spent, so it counts, over the cap if need be, and only ever once."""

import asyncio
from datetime import UTC, datetime

import pytest

from cope.core import ids
from cope.core.errors import Conflict, NotFound
from cope.core.ids import KeyId, ProjectId, UsageId
from cope.core.money import NanoUSD
from cope.core.records import Project
from cope.ports.spend import NewUsage
from cope.ports.store import Granted, Refused
from tests.contracts.world import World, bill, done, large_step
from tests.support import new_id


def usage(
    project: Project, amount: int, *, key_id: KeyId | None = None, reference: str | None = None, body: bytes = b"body"
) -> NewUsage:
    return NewUsage(
        id=UsageId(new_id(ids.USAGE)),
        project_id=project.id,
        key_id=key_id,
        amount=NanoUSD(amount),
        occurred_at=datetime(2026, 11, 1, tzinfo=UTC),
        model="gpt-4o",
        description="a notebook",
        reference=reference,
        body_hash=body,
    )


async def spent(world: World, project: Project, scope: str = "project") -> tuple[int, int]:
    """(spent, headroom or -1)."""
    budget = await world.api.get_budget(project.id, scope=scope)
    return budget.spent, -1 if budget.headroom is None else budget.headroom


async def test_it_takes_its_part_of_the_projects_and_the_keys_month(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    key, other = await world.key(project, cap=NanoUSD(600)), await world.key(project, secret="sk-other")

    record = await world.api.record_usage(usage(project, 400, key_id=key.id))

    assert (record.amount, record.key_id, record.model, record.description) == (400, key.id, "gpt-4o", "a notebook")
    assert record.occurred_at == datetime(2026, 11, 1, tzinfo=UTC)
    assert record.month == (await world.budget(project)).month
    assert await spent(world, project) == (400, 600)
    assert await spent(world, project, key.id) == (400, 200)
    assert await spent(world, project, other.id) == (0, -1)


async def test_over_the_cap_it_counts_all_the_same_and_nothing_is_granted_until_the_cap_covers_it(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))
    await world.batch(project, 2, queue="large")
    first, second = await world.claim("large", limit=2)
    open_call = await world.send(first, 500)

    await world.api.record_usage(usage(project, 5_000))

    assert await spent(world, project) == (5_000, 0)
    assert isinstance(await world.reserve(second, 1), Refused)
    await world.commit(done(first, step=large_step(450), bills=(bill(open_call, 450),)))
    assert await spent(world, project) == (5_450, 0)
    await world.api.set_cap(project.id, NanoUSD(5_451))
    assert isinstance(await world.reserve(second, 2), Refused)
    assert isinstance(await world.reserve(second, 1), Granted)


async def test_reported_again_under_the_same_reference_it_counts_once(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))

    first = await world.api.record_usage(usage(project, 300, reference="invoice-7"))
    again = await world.api.record_usage(usage(project, 300, reference="invoice-7"))

    assert again == first
    assert await spent(world, project) == (300, 700)
    with pytest.raises(Conflict) as refused:
        await world.api.record_usage(usage(project, 301, reference="invoice-7", body=b"another"))
    assert refused.value.code == "idempotency_key_reused"
    assert await spent(world, project) == (300, 700)


async def test_eight_reports_of_one_reference_at_once_count_once(world: World) -> None:
    project = await world.project(cap=NanoUSD(1_000))

    records = await asyncio.gather(
        *(world.api.record_usage(usage(project, 100, reference="invoice-8")) for _ in range(8))
    )

    assert len({record.id for record in records}) == 1
    assert await spent(world, project) == (100, 900)


async def test_two_projects_may_use_one_reference(world: World) -> None:
    for project in (await world.project(), await world.project()):
        await world.api.record_usage(usage(project, 10, reference="same"))
        assert await spent(world, project) == (10, -1)


async def test_records_are_listed_newest_first_and_only_the_projects_own(world: World) -> None:
    project, stranger = await world.project(), await world.project()
    made = [await world.api.record_usage(usage(project, amount)) for amount in (1, 2, 3)]
    await world.api.record_usage(usage(stranger, 9))

    first = await world.api.list_usage(project.id, after=None, limit=2)
    rest = await world.api.list_usage(project.id, after=first[-1].id, limit=2)

    assert [record.id for record in (*first, *rest)] == [record.id for record in reversed(made)]


async def test_it_is_in_the_feed(world: World) -> None:
    project = await world.project()
    await world.api.record_usage(usage(project, 10))

    assert [event.type for event in await world.events(project)] == ["budget.usage_reported"]


async def test_spend_of_no_project_is_refused(world: World) -> None:
    project = await world.project()
    nowhere = usage(project, 10)

    with pytest.raises(NotFound):
        await world.api.record_usage(
            NewUsage(**{field: getattr(nowhere, field) for field in NewUsage.__dataclass_fields__}
                     | {"project_id": ProjectId("proj_none")})
        )  # fmt: skip
