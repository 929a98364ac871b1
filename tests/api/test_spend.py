"""Limits, alerts, external spend and holds through the stock client's own resources, over a real loopback server."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import openai
import pytest
from openai import OpenAI

from cope.adapters.memory import MemoryStore
from cope.core.lifecycle import HoldReason
from cope.core.money import NanoUSD
from cope.ports.store import BatchJob, ClaimedTask, GiveBack
from tests.api import test_api
from tests.api.test_api import ADMIN, KEY, Served, send, upload
from tests.contracts.world import LEASE_S, pages
from tests.support import make_new_task

served = test_api.served
client = test_api.client

AS_ADMIN = {"authorization": f"Bearer {ADMIN}"}


@pytest.fixture
def admin(served: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=served.url, api_key="", admin_api_key=ADMIN, max_retries=0) as made:
        yield made


@pytest.fixture
def project(served: Served) -> str:
    """A new project in Berlin, capped at 10 dollars."""
    _, made, _ = send(
        served, "/organization/projects", b'{"name": "b", "cope": {"time_zone": "Europe/Berlin"}}', headers=AS_ADMIN
    )
    return str(made["id"])


@pytest.fixture
def key(served: Served, project: str) -> tuple[str, str]:
    """(id, secret) of a key of that project."""
    _, made, _ = send(served, f"/organization/projects/{project}/service_accounts", b"{}", headers=AS_ADMIN)
    return str(made["id"]), str(made["api_key"]["value"])  # type: ignore[index]


def as_key(key: tuple[str, str]) -> dict[str, str]:
    return {"authorization": f"Bearer {key[1]}"}


def store_of(served: Served) -> MemoryStore:
    assert isinstance(served.parts.store, MemoryStore)
    return served.parts.store


def cope(thing: Any) -> dict[str, Any]:
    return dict(thing.to_dict()["cope"])


def test_the_stock_admin_client_sets_shows_and_removes_a_spend_limit(admin: OpenAI, project: str):
    limits = admin.admin.organization.projects.spend_limit

    made = limits.update(project, currency="USD", interval="month", threshold_amount=2_500)
    shown = limits.retrieve(project)

    assert made == shown
    assert (shown.object, shown.threshold_amount, shown.currency) == ("project.spend_limit", 2_500, "USD")
    assert (shown.interval, shown.enforcement.status) == ("month", "enforcing")
    assert limits.delete(project).deleted
    assert limits.retrieve(project).enforcement.status == "inactive"


def test_the_stock_admin_client_makes_shows_changes_and_deletes_a_spend_alert(admin: OpenAI, project: str):
    alerts = admin.admin.organization.projects.spend_alerts
    channel: Any = {"type": "email", "recipients": ["cfo@example.com", "ops@example.com"], "subject_prefix": "[cope]"}

    made = alerts.create(project, currency="USD", interval="month", threshold_amount=500, notification_channel=channel)
    changed = alerts.update(
        made.id,
        project_id=project,
        currency="USD",
        interval="month",
        threshold_amount=600,
        notification_channel={"type": "email", "recipients": []},
    )

    assert (made.object, made.threshold_amount) == ("project.spend_alert", 500)
    assert made.notification_channel.recipients == ["cfo@example.com", "ops@example.com"]
    assert made.notification_channel.subject_prefix == "[cope]"
    assert cope(made)["delivered_as"] == ["webhook", "event"]
    assert "No e-mail is sent" in cope(made)["note"]
    assert (changed.id, changed.threshold_amount, changed.notification_channel.recipients) == (made.id, 600, [])
    assert alerts.retrieve(made.id, project_id=project) == changed
    assert alerts.delete(made.id, project_id=project).object == "project.spend_alert.deleted"
    with pytest.raises(openai.NotFoundError):
        alerts.retrieve(made.id, project_id=project)


def test_alerts_at_a_percentage_and_at_a_projected_overrun_are_made_through_the_stock_client(
    admin: OpenAI, project: str
):
    alerts = admin.admin.organization.projects.spend_alerts
    channel: Any = {"type": "email", "recipients": []}

    def make(own: dict[str, object]) -> Any:
        return alerts.create(
            project,
            currency="USD",
            interval="month",
            threshold_amount=0,
            notification_channel=channel,
            extra_body={"cope": own},
        )

    eighty, ahead, tiny = make({"percent": 80}), make({"projected": True}), make({"threshold_usd": "0.000000001"})

    assert (eighty.threshold_amount, cope(eighty)["percent"], cope(eighty)["kind"]) == (800, 80, "percent")
    assert (ahead.threshold_amount, cope(ahead)["kind"]) == (1_000, "projected")
    assert (tiny.threshold_amount, cope(tiny)["threshold_usd"]) == (0, "0.000000001")
    assert [alert.id for alert in alerts.list(project, limit=2)] == [eighty.id, ahead.id, tiny.id]
    assert [alert.id for alert in alerts.list(project, order="desc")] == [tiny.id, ahead.id, eighty.id]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "threshold_amount"),
        ({"threshold_amount": 0}, "threshold_amount"),
        ({"threshold_amount": 1.5}, "threshold_amount"),
        ({"threshold_amount": 1, "currency": "EUR"}, "USD"),
        ({"threshold_amount": 1, "cope": {"percent": 80}}, "or one of"),
        ({"cope": {"percent": 80, "projected": True}}, "or one of"),
        ({"cope": {"percent": 0}}, "cope.percent"),
        ({"cope": {"percent": 1001}}, "cope.percent"),
        ({"cope": {"projected": False}}, "must be true"),
        ({"cope": {"threshold_usd": 0.5}}, "as text"),
        ({"cope": {"threshold_usd": "0"}}, "above 0"),
        ({"cope": {"at": 5}}, "Unknown key"),
        ({"threshold_amount": 1, "notification_channel": {"type": "slack"}}, "webhook_endpoints"),
        ({"threshold_amount": 1, "notification_channel": {"type": "email", "recipients": ["nobody"]}}, "no e-mail"),
        ({"threshold_amount": 1, "email": "a@b"}, "Unknown key"),
    ],
)
def test_a_wrong_alert_is_refused_saying_what_to_mend(served: Served, project: str, body: dict[str, object], says: str):
    path = f"/organization/projects/{project}/spend_alerts"
    status, answer, _ = send(served, path, json.dumps(body).encode(), headers=AS_ADMIN)

    assert status == 400
    assert says in answer["error"]["message"]  # type: ignore[index]
    assert send(served, path, method="GET", headers=AS_ADMIN)[1]["data"] == []


def test_a_projects_key_sees_its_alerts_and_only_the_operator_changes_them(
    served: Served, project: str, key: tuple[str, str]
):
    path = f"/organization/projects/{project}/spend_alerts"
    _, made, _ = send(served, path, b'{"threshold_amount": 5}', headers=AS_ADMIN)

    assert send(served, path, method="GET", headers=as_key(key))[1]["data"] == [made]
    mine = "/organization/projects/me/spend_alerts"
    assert send(served, f"{mine}/{made['id']}", method="GET", headers=as_key(key))[1] == made
    assert send(served, path, b'{"threshold_amount": 5}', headers=as_key(key))[0] == 403
    assert send(served, f"{path}/{made['id']}", method="DELETE", headers=as_key(key))[0] == 403
    assert send(served, path, method="GET")[0] == 403  # another project's key


def test_external_spend_is_counted_shown_in_the_limits_and_fires_the_alert(
    served: Served, project: str, key: tuple[str, str]
):
    path = f"/organization/projects/{project}/spend_alerts"
    send(served, path, b'{"cope": {"percent": 80}}', headers=AS_ADMIN)
    body = {"amount_usd": "8.5", "id": "invoice-1", "model": "gpt-4o", "occurred_at": 1_793_000_000}

    status, record, _ = send(served, "/usage", json.dumps(body).encode(), headers=as_key(key))
    again = send(served, "/usage", json.dumps(body).encode(), headers=as_key(key))[1]
    asyncio.run(store_of(served).sweep(lease_s=LEASE_S))

    assert status == 200
    assert again == record
    assert str(record["id"]).startswith("usage_")
    assert (record["amount_usd"], record["key_id"], record["reference"]) == ("8.50", key[0], "invoice-1")
    _, limits, _ = send(served, "/limits", method="GET", headers=as_key(key))
    whole, own = limits["budgets"]  # type: ignore[misc]
    assert (whole["scope"], whole["used_usd"], whole["headroom_usd"]) == ("project", "8.50", "1.50")
    assert (own["scope"], own["id"], own["used_usd"], own["cap_usd"]) == ("key", key[0], "8.50", None)
    assert limits["alerts"][0]["cope"]["state"] == "fired"  # type: ignore[index]
    assert send(served, "/usage", method="GET", headers=as_key(key))[1]["data"] == [record]


@pytest.mark.parametrize(
    ("body", "headers", "says"),
    [
        ({}, {}, "missing"),
        ({"amount_usd": "-1"}, {}, "never taken back"),
        ({"amount_usd": -1}, {}, "never taken back"),
        ({"amount_usd": "0"}, {}, "above 0"),
        ({"amount_usd": 0.5}, {}, "as text"),
        ({"amount_usd": "1000000.01"}, {}, "at most 1000000"),
        ({"amount_usd": "1", "occurred_at": 9_999_999_999}, {}, "occurred_at"),
        ({"amount_usd": "1", "id": ""}, {}, "`id`"),
        ({"amount_usd": "1", "id": "a"}, {"idempotency-key": "b"}, "differ"),
        ({"amount_usd": "1", "project_id": "proj_other"}, {}, "another project"),
        ({"amount_usd": "1", "cost": 1}, {}, "Unknown key"),
        ({"amount_usd": "1"}, {"x-stainless-retry-count": "1"}, "own retry"),
    ],
)
def test_wrong_external_spend_is_refused_saying_what_to_mend(
    served: Served, key: tuple[str, str], body: dict[str, object], headers: dict[str, str], says: str
):
    status, answer, _ = send(served, "/usage", json.dumps(body).encode(), headers={**as_key(key), **headers})

    assert status == 400
    assert says in answer["error"]["message"]  # type: ignore[index]
    assert send(served, "/usage", method="GET", headers=as_key(key))[1]["data"] == []


def test_one_id_with_another_body_is_refused_and_the_operator_names_the_project(
    served: Served, project: str, key: tuple[str, str]
):
    send(served, "/usage", b'{"amount_usd": "1"}', headers={**as_key(key), "Idempotency-Key": "k"})
    status, answer, headers = send(served, "/usage", b'{"amount_usd": "2", "id": "k"}', headers=as_key(key))

    assert (status, headers["x-should-retry"]) == (422, "false")
    assert answer["error"]["code"] == "idempotency_key_reused"  # type: ignore[index]
    named = json.dumps({"amount_usd": "1", "project_id": project}).encode()
    assert send(served, "/usage", named, headers=AS_ADMIN)[1]["key_id"] is None
    assert send(served, "/usage", b'{"amount_usd": "1"}', headers=AS_ADMIN)[0] == 400
    assert send(served, "/usage", b'{"amount_usd": "1", "project_id": "proj_none"}', headers=AS_ADMIN)[0] == 404


def test_limits_say_when_the_month_begins_again_in_the_projects_own_zone(
    served: Served, project: str, key: tuple[str, str]
):
    send(
        served,
        f"/organization/projects/{project}/api_keys/{key[0]}/spend_limit",
        b'{"threshold_amount": 300}',
        headers=AS_ADMIN,
    )

    _, limits, _ = send(served, "/limits", method="GET", headers=as_key(key))

    # The clock of the tests stands in November 2026; Berlin is then an hour ahead.
    midnight = int(datetime(2026, 11, 30, 23, tzinfo=UTC).timestamp())
    assert (limits["month"], limits["time_zone"], limits["resets_at"]) == ("2026-11", "Europe/Berlin", midnight)
    assert [(b["scope"], b["cap_usd"], b["resets_at"]) for b in limits["budgets"]] == [  # type: ignore[attr-defined]
        ("project", "10.00", midnight),
        ("key", "3.00", midnight),
    ]
    assert limits["provider"] == [
        {
            "model": "large",
            "requests_per_minute": None,
            "tokens_per_minute": None,
            "concurrent_requests": None,
            "remaining": None,
        }
    ]
    assert send(served, "/limits", method="GET", headers=AS_ADMIN)[0] == 403


def in_progress(served: Served, secret: str, *, cap: str | None = None) -> str:
    """A batch of one line that asks for a paid call."""
    with OpenAI(base_url=served.url, api_key=secret, max_retries=0) as client:
        batch = client.batches.create(
            input_file_id=upload(client),
            endpoint="/v1/chat/completions",
            completion_window="24h",
            extra_body=None if cap is None else {"cope": {"max_cost_usd": cap}},
        )
    asyncio.run(ingest(store_of(served), batch.id))
    return batch.id


async def ingest(store: MemoryStore, batch_id: str) -> None:
    for _ in range(50):
        job: BatchJob | None = await store.claim_validation(lease_s=LEASE_S)
        assert job is not None
        if job.batch.id == batch_id:
            rows = [make_new_task(1, queue="large")]
            await store.ingest(job, pages(rows), model=lambda: "cope", expires_in=timedelta(days=1))
            return


async def hold_line(store: MemoryStore, batch_id: str, needed: int) -> None:
    tasks: list[ClaimedTask] = await store.claim("large", worker="w", limit=100, lease_s=LEASE_S)
    for task in tasks:
        if task.batch_id == batch_id:
            back = GiveBack(task.task_id, task.fence, hold=HoldReason.BUDGET, needed=NanoUSD(needed))
            await store.give_back([back])


def held(served: Served, batch_id: str, secret: str) -> dict[str, Any]:
    _, batch, _ = send(served, f"/batches/{batch_id}", method="GET", headers={"authorization": f"Bearer {secret}"})
    return dict(batch["cope"]["hold"])  # type: ignore[index]


def test_a_budget_hold_says_when_it_ends_by_itself_and_that_it_never_will(served: Served, key: tuple[str, str]):
    store, midnight = store_of(served), int(datetime(2026, 11, 30, 23, tzinfo=UTC).timestamp())
    next_month = in_progress(served, key[1])
    asyncio.run(hold_line(store, next_month, 9_000_000_000))
    never = in_progress(served, key[1])
    asyncio.run(hold_line(store, never, 11_000_000_000))
    own = in_progress(served, key[1], cap="0.5")
    asyncio.run(hold_line(store, own, 600_000_000))

    assert held(served, next_month, key[1])["resumes_at"] == midnight
    for batch_id, says in ((never, "whole month"), (own, "max_cost_usd")):
        hold = held(served, batch_id, key[1])
        assert hold["resumes_at"] is None
        assert says in hold["message"]


def test_a_batch_is_held_by_hand_and_resumed_and_a_finished_one_is_not(served: Served, client: OpenAI):
    batch_id = in_progress(served, KEY)

    status, batch, _ = send(served, f"/batches/{batch_id}/hold", b"")
    assert (status, batch["status"], batch["cope"]["hold"]["reason"]) == (200, "in_progress", "paused")  # type: ignore[index]
    assert "by hand" in batch["cope"]["hold"]["message"]  # type: ignore[index]
    assert held(served, batch_id, KEY)["since"] is not None
    _, batch, _ = send(served, f"/batches/{batch_id}/resume", b"")
    assert batch["cope"]["hold"] is None  # type: ignore[index]
    client.batches.cancel(batch_id)
    status, answer, _ = send(served, f"/batches/{batch_id}/hold", b"")

    assert (status, answer["error"]["code"]) == (422, "batch_not_holdable")  # type: ignore[index]
    assert send(served, "/batches/batch_none/hold", b"")[0] == 404


def test_a_paused_project_is_why_its_batches_wait(served: Served, project: str, key: tuple[str, str]):
    batch_id = in_progress(served, key[1])
    send(served, f"/organization/projects/{project}", b'{"cope": {"paused": true}}', headers=AS_ADMIN)

    assert held(served, batch_id, key[1])["reason"] == "paused"
    assert "project is paused" in held(served, batch_id, key[1])["message"]
    assert send(served, "/limits", method="GET", headers=as_key(key))[1]["paused"] is True


def test_budget_events_are_for_endpoints_that_name_them(client: OpenAI):
    usual = client.post("/webhook_endpoints", body={"url": "https://hooks.example.com/u"}, cast_to=dict[str, Any])
    own = client.post(
        "/webhook_endpoints",
        body={"url": "https://hooks.example.com/o", "event_types": ["budget.alert", "budget.held"]},
        cast_to=dict[str, Any],
    )

    assert all(one.startswith("batch.") for one in usual["event_types"])
    assert own["event_types"] == ["budget.alert", "budget.held"]
    types = client.get("/webhook_event_types", cast_to=dict[str, Any])
    assert {"budget.alert", "budget.held", "budget.resumed", "budget.overrun"} <= set(types["data"])


def test_an_unknown_project_has_no_alerts(served: Served):
    assert send(served, "/organization/projects/proj_none/spend_alerts", method="GET", headers=AS_ADMIN)[0] == 404
