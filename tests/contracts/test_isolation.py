"""A project sees its own rows only, through every method of the API's side that names one."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from cope.core.alerts import AlertKind
from cope.core.deliveries import DeliveryFilter, Redelivery
from cope.core.errors import NotFound
from cope.core.ids import AlertId, DeliveryId, EndpointId, FileId, KeyId, TaskId
from cope.core.money import NanoUSD
from cope.core.records import Batch, Project
from cope.ports.retention import Stored
from cope.ports.store import ApiStore, Granted, NewLine, Page
from cope.ports.webhooks import EndpointChange
from tests.contracts.test_alerts import alert
from tests.contracts.test_dead_letters import dead_letter
from tests.contracts.test_external_usage import usage
from tests.contracts.world import World
from tests.support import make_endpoint, make_file, make_key, make_new_task


@dataclass(frozen=True)
class Victim:
    """One project's rows of every kind, and a stranger who tries to reach them."""

    project: Project
    stranger: Project
    batch: Batch
    task_id: TaskId
    live_id: TaskId
    file_id: FileId
    key_id: KeyId
    endpoint_id: EndpointId
    alert_id: AlertId
    dead_id: DeliveryId
    delivery_id: DeliveryId


Reach = Callable[[ApiStore, Victim], Awaitable[object]]

NOTHING: dict[str, tuple[Reach, object]] = {
    "revoke_key": (lambda api, v: api.revoke_key(v.stranger.id, v.key_id), False),
    "rotate_key": (
        lambda api, v: api.rotate_key(v.stranger.id, v.key_id, new_hash=b"x" * 32, hint="xxxx", overlap_s=0),
        None,
    ),
    "get_file": (lambda api, v: api.get_file(v.stranger.id, v.file_id), None),
    "delete_file": (lambda api, v: api.delete_file(v.stranger.id, v.file_id), None),
    "stored": (lambda api, v: api.stored(v.stranger.id), Stored(0, 0)),
    "expired_results": (lambda api, v: api.expired_results(v.stranger.id, v.file_id), None),
    "get_batch": (lambda api, v: api.get_batch(v.stranger.id, v.batch.id), None),
    "cancel_batch": (lambda api, v: api.cancel_batch(v.stranger.id, v.batch.id), None),
    "resume_batch": (lambda api, v: api.resume_batch(v.stranger.id, v.batch.id), None),
    "hold_batch": (lambda api, v: api.hold_batch(v.stranger.id, v.batch.id), None),
    "list_alerts": (lambda api, v: api.list_alerts(v.stranger.id), ()),
    "update_alert": (
        lambda api, v: api.update_alert(
            v.stranger.id, v.alert_id, kind=AlertKind.AMOUNT, threshold=1, recipients=(), subject_prefix=None
        ),
        None,
    ),
    "delete_alert": (lambda api, v: api.delete_alert(v.stranger.id, v.alert_id), False),
    "list_usage": (lambda api, v: api.list_usage(v.stranger.id, after=None, limit=10), ()),
    "get_task": (lambda api, v: api.get_task(v.stranger.id, v.task_id), None),
    "cancel_live_task": (lambda api, v: api.cancel_live_task(v.stranger.id, v.live_id), None),
    "erase_live_task": (lambda api, v: api.erase_live_task(v.stranger.id, v.live_id), False),
    "get_endpoint": (lambda api, v: api.get_endpoint(v.stranger.id, v.endpoint_id), None),
    "delete_endpoint": (lambda api, v: api.delete_endpoint(v.stranger.id, v.endpoint_id), False),
    "update_endpoint": (
        lambda api, v: api.update_endpoint(v.stranger.id, v.endpoint_id, EndpointChange(name="x", disabled=True)),
        None,
    ),
    "rotate_endpoint_secret": (
        lambda api, v: api.rotate_endpoint_secret(v.stranger.id, v.endpoint_id, "whsec_AAAA", keep_old_s=None),
        None,
    ),
    "list_deliveries": (
        lambda api, v: api.list_deliveries(v.stranger.id, DeliveryFilter(), after=None, limit=10),
        (),
    ),
    "get_delivery": (lambda api, v: api.get_delivery(v.stranger.id, v.delivery_id), None),
    "redeliver": (lambda api, v: api.redeliver(v.stranger.id, None, Redelivery(ids=(v.delivery_id,))), []),
    "list_keys": (lambda api, v: api.list_keys(v.stranger.id), ()),
    "seal_batch": (lambda api, v: api.seal_batch(v.stranger.id, v.batch.id), None),
    "append_lines": (
        lambda api, v: api.append_lines(
            v.stranger.id, v.batch.id, [NewLine(make_new_task(custom_id="x"), b"x")], window=timedelta(hours=1), most=9
        ),
        None,
    ),
    "audit_counts": (lambda api, v: api.audit_counts(v.stranger.id, batch_id=v.batch.id), ()),
    "result_window": (
        lambda api, v: api.result_window(v.stranger.id, v.batch.id, after=0, limit=10, by_input=False),
        None,
    ),
    "paces": (lambda api, v: api.paces(v.stranger.id, [v.batch.id]), {}),
    "get_consumer": (lambda api, v: api.get_consumer(v.stranger.id, "group"), None),
    "list_consumers": (lambda api, v: api.list_consumers(v.stranger.id), ()),
    "delete_consumer": (lambda api, v: api.delete_consumer(v.stranger.id, "group"), False),
    "list_dead_letters": (
        lambda api, v: api.list_dead_letters(v.stranger.id, endpoint_id=None, after=None, limit=10),
        (),
    ),
    "get_dead_letter": (lambda api, v: api.get_dead_letter(v.stranger.id, v.dead_id), None),
    "replay_dead_letters": (
        lambda api, v: api.replay_dead_letters(v.stranger.id, ids=[v.dead_id], endpoint_id=None),
        (),
    ),
    "list_events": (lambda api, v: api.list_events(v.stranger.id, after=0, limit=100, batch_id=v.batch.id), ()),
}

EMPTY_PAGES: dict[str, Callable[[ApiStore, Victim], Awaitable[Page[Any]]]] = {
    "list_files": lambda api, v: api.list_files(v.stranger.id, after=None, limit=10, ascending=True, purpose=None),
    "list_batches": lambda api, v: api.list_batches(v.stranger.id, after=None, limit=10),
    "list_tasks": lambda api, v: api.list_tasks(v.stranger.id, v.batch.id, state=None, after=None, limit=10),
    "list_audits": lambda api, v: api.list_audits(v.stranger.id, batch_id=v.batch.id, state=None, after=None, limit=10),
    "list_endpoints": lambda api, v: api.list_endpoints(v.stranger.id, after=None, limit=10),
}

ELSEWHERE = {
    "update_project": "the operator's",
    "get_project": "names the project itself",
    "set_cap": "the operator's",
    "set_audit_share": "the operator's",
    "set_keep_days": "the operator's",
    "get_budget": "test_a_stranger_has_a_budget_of_its_own",
    "list_budgets": "test_a_stranger_has_a_budget_of_its_own",
    "ledger_difference": "test_ledger_reports.py",
    "unconfirmed": "test_ledger_reports.py",
    "unconfirmed_ages": "test_ledger_reports.py",
    "put_consumer": "test_event_consumers.py",
    "join_consumer": "test_event_consumers.py",
    "commit_offset": "test_event_consumers.py",
    "seek_consumer": "test_event_consumers.py",
    "read_events": "test_event_log.py",
    "event_bounds": "test_event_log.py",
    "offset_at": "test_event_log.py",
    "settle_unconfirmed": "test_reconcile.py",
    "correct": "test_reconcile.py",
    "result_page": "test_reading.py",
}


@pytest.fixture
async def victim(world: World) -> Victim:
    project, stranger = await world.project(name="victim"), await world.project(name="stranger")
    live_id = await world.live(project, body=b"1")
    batch = await world.batch(project, 2)
    tasks = await world.claim(limit=3)
    task_id = next(task.task_id for task in tasks if task.batch_id == batch.id)
    file = await world.api.create_file(make_file(project.id))
    key = await world.api.create_key(make_key(project.id))
    endpoint = await world.api.create_endpoint(make_endpoint(project.id))
    mine = await alert(world, project, AlertKind.PERCENT, 50)
    await world.api.record_usage(usage(project, 10))
    await world.api.put_consumer(project.id, "group", types=None, committed=0)
    dead_id = await dead_letter(world, project)
    await world.sweep()
    await world.submit(project, webhook_url="https://b.example.com/2")
    refused = await world.worker.claim_validation(lease_s=30)
    assert refused is not None
    await world.worker.fail_validation(refused, [])
    delivery, *_ = await world.api.list_deliveries(project.id, DeliveryFilter(), after=None, limit=10)
    made = (live_id, file.id, key.id, endpoint.id, mine.id)
    return Victim(project, stranger, batch, task_id, *made, dead_id, delivery.id)


@pytest.mark.parametrize("method", sorted(NOTHING))
async def test_a_stranger_reaches_nothing_by_id(world: World, victim: Victim, method: str) -> None:
    reach, nothing = NOTHING[method]
    before = await everything(world, victim)

    assert await reach(world.api, victim) == nothing

    assert await everything(world, victim) == before


@pytest.mark.parametrize("method", sorted(EMPTY_PAGES))
async def test_a_stranger_lists_nothing(world: World, victim: Victim, method: str) -> None:
    page = await EMPTY_PAGES[method](world.api, victim)

    assert page.items == ()
    assert page.has_more is False


async def test_a_stranger_has_a_budget_of_its_own(world: World, victim: Victim) -> None:
    await world.batch(victim.project, queue="large")
    assert isinstance(await world.reserve(await world.claim_one("large"), 500), Granted)

    assert (await world.api.get_budget(victim.project.id)).reserved == 500
    assert (await world.api.get_budget(victim.stranger.id)).reserved == 0
    assert [budget.scope for budget in await world.api.list_budgets(victim.stranger.id)] == ["project"]
    for scope in (victim.batch.id, victim.key_id):
        with pytest.raises(NotFound):
            await world.api.get_budget(victim.stranger.id, scope=scope)
        with pytest.raises(NotFound):
            await world.api.set_cap(victim.stranger.id, NanoUSD(0), scope=scope)
        assert (await world.api.get_budget(victim.project.id, scope=scope)).cap is None


async def test_a_strangers_list_does_not_continue_after_a_foreign_id(world: World, victim: Victim) -> None:
    own = await world.api.create_file(make_file(victim.stranger.id))

    page = await world.api.list_files(victim.stranger.id, after=victim.file_id, limit=10, ascending=True, purpose=None)

    assert {file.id for file in page.items} <= {own.id}


async def test_a_stranger_sees_its_own_events_only(world: World, victim: Victim) -> None:
    await world.finish_all(victim.stranger)

    events = await world.events(victim.stranger)

    assert events
    assert {event.project_id for event in events} == {victim.stranger.id}


def test_every_method_that_names_a_project_is_tested_here() -> None:
    named = {
        name
        for name, method in inspect.getmembers(ApiStore, inspect.isfunction)
        if "project_id" in inspect.signature(method).parameters
    }

    assert named == set(NOTHING) | set(EMPTY_PAGES) | set(ELSEWHERE)


async def everything(world: World, victim: Victim) -> tuple[object, ...]:
    """The victim's rows as they are now."""
    api, mine = world.api, victim.project.id
    return (
        await api.get_batch(mine, victim.batch.id),
        (await api.get_task(mine, victim.task_id)),
        (await api.get_task(mine, victim.live_id)),
        await api.get_file(mine, victim.file_id),
        await api.get_endpoint(mine, victim.endpoint_id),
        [(key.id, key.hash, key.revoked_at) for key in await api.list_keys(mine)],
        (await api.list_alerts(mine)) or None,
        (await api.list_usage(mine, after=None, limit=10)) or None,
        await api.get_consumer(mine, "group"),
        await api.get_dead_letter(mine, victim.dead_id),
        await api.get_delivery(mine, victim.delivery_id),
    )


async def test_the_victim_itself_reaches_all_of_it(world: World, victim: Victim) -> None:
    assert all(row is not None for row in await everything(world, victim))
