"""Webhook endpoints and their deliveries over HTTP, managed by the unmodified openai client."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import SecretStr
from typer.testing import CliRunner

from cope.adapters.memory import FixedClock, MemoryFiles, MemoryStore, MemoryWakeUp, SequentialIds
from cope.bootstrap import ApiParts
from cope.core.models import ModelCatalog, ModelEntry
from cope.core.money import Price, parse_usd
from cope.core.prices import PriceTable
from cope.core.prompts import BUILT_IN
from cope.core.stages import Tier
from cope.ports.store import NewBatch, WebhookOutcome
from cope.ports.support import WebhookReply, WebhookRequest
from cope.settings import Settings
from cope_cli.main import app
from tests.api.serving import serving
from tests.support import NOON, make_batch, make_file

KEY, ADMIN = "cope-sk-webhooks", "cope-admin-webhooks"
URL = "https://hooks.example.com/x"
PRICE = Price("p", "2024-01", parse_usd("2.5"), parse_usd("1.25"), parse_usd("10"), NOON.replace(year=2024))


class Receiver:
    """Answers what it is told to."""

    def __init__(self) -> None:
        self.sent: list[WebhookRequest] = []
        self.reply = WebhookReply(200, None, "thanks", None, 7)

    async def send(self, request: WebhookRequest) -> WebhookReply:
        self.sent.append(request)
        return self.reply

    def refuse_reason(self, url: str) -> str | None:
        return None if url.startswith("https://") else "it must be an https:// address"

    async def aclose(self) -> None:
        """Nothing to close."""


@dataclass(frozen=True)
class Served:
    url: str
    store: MemoryStore
    receiver: Receiver
    wake: MemoryWakeUp
    clock: FixedClock = field(default_factory=FixedClock)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    clock, ids, receiver, wake = FixedClock(), SequentialIds(), Receiver(), MemoryWakeUp()
    store = MemoryStore(clock, ids)
    small = ModelEntry("small", "small", "http://localhost/v1", Tier.SMALL, "instruct", 4096)
    large = ModelEntry("large", "large", "http://localhost/v1", Tier.LARGE, "instruct", 4096, price_id="p")
    parts = ApiParts(
        settings=Settings(admin_key=SecretStr(ADMIN), bootstrap_api_key=SecretStr(KEY), broker_url=""),
        store=store,
        files=MemoryFiles(),
        wake=wake,
        catalog=ModelCatalog({"small": small, "large": large}, "small", "large", BUILT_IN),
        prices=PriceTable([PRICE]),
        clock=clock,
        ids=ids,
        webhooks=receiver,
    )
    with serving(parts) as url:
        yield Served(url, store, receiver, wake, clock)


@pytest.fixture
def client(served: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=served.url, api_key=KEY, max_retries=0) as client:
        yield client


def made(client: OpenAI, **cope: Any) -> Any:
    return client.webhooks.create(
        name="hook", url=URL, event_types=["batch.failed"], extra_body={"cope": cope} if cope else None
    )


async def told(served: Served, *, times: int = 1) -> None:
    """Batches that fail at once."""
    (project,) = [one for one in (await served.store.list_projects(after=None, limit=9)).items if one.name == "default"]
    for _ in range(times):
        file = await served.store.create_file(make_file(project.id))
        batch = make_batch(project.id, file.id, created_at=served.clock.now())
        await served.store.create_batch(NewBatch(batch, batch.id.encode(), None, retry=0))
        job = await served.store.claim_validation(lease_s=30)
        assert job is not None
        await served.store.fail_validation(job, [])


async def ended(served: Served, *, status: int, retry_in_s: float | None = None) -> None:
    """Whatever is due ends like this."""
    for one in await served.store.claim_deliveries(limit=100, lease_s=30):
        ok = status < 300
        await served.store.finish_deliveries(
            [WebhookOutcome(one.id, ok, retry_in_s, status, None, "said", status == 410, one.attempt, 12)]
        )


def get(client: OpenAI, path: str, **query: object) -> Any:
    return client.get(path, cast_to=object, options={"params": {k: str(v) for k, v in query.items()}})


def post(client: OpenAI, path: str, body: object = None) -> Any:
    return client.post(path, body=body, cast_to=object)


def send(served: Served, path: str, body: bytes, key: str = KEY) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(served.url + path, data=body, headers={"authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


# ---- the stock client's own resource -------------------------------------------------------------------------------


def test_the_stock_client_makes_lists_changes_and_deletes_endpoints(client: OpenAI):
    endpoint = client.webhooks.create(name="first", url=URL, event_types=["batch.completed", "batch.failed"])
    assert endpoint.object == "webhook_endpoint"
    assert endpoint.signing_secret.startswith("whsec_")
    assert endpoint.signing_secret_hint == endpoint.signing_secret[-4:]

    seen = client.webhooks.retrieve(endpoint.id)
    assert (seen.name, seen.url, seen.event_types) == ("first", URL, ["batch.completed", "batch.failed"])
    assert not hasattr(seen, "signing_secret")
    assert endpoint.id in {one.id for one in client.webhooks.list(limit=1)}

    changed = client.webhooks.update(endpoint.id, name="second", event_types=["batch.expired"])
    assert (changed.name, changed.url, changed.event_types) == ("second", URL, ["batch.expired"])

    gone = client.webhooks.delete(endpoint.id)
    assert (gone.object, gone.deleted) == ("webhook_endpoint.deleted", True)
    with pytest.raises(openai.NotFoundError):
        client.webhooks.retrieve(endpoint.id)


def test_the_stock_client_lists_event_types(client: OpenAI):
    types = client.webhooks.event_types.list()

    assert {"batch.completed", "budget.alert", "webhook_endpoint.disabled"} <= set(types.data)


def test_the_stock_client_rotates_a_secret_and_both_sign_for_a_day(served: Served, client: OpenAI):
    endpoint = made(client)
    rotated = client.webhooks.rotate_secret(endpoint.id, keep_old_secret_active_for_24_hours=True)
    assert rotated.signing_secret != endpoint.signing_secret
    assert rotated.model_extra is not None
    until = rotated.model_extra["cope"]["old_secret_active_until"]
    assert until == int(served.clock.now().timestamp()) + 86_400

    again = client.webhooks.rotate_secret(endpoint.id)
    assert again.model_extra is not None
    assert again.model_extra["cope"]["old_secret_active_until"] is None
    assert len({endpoint.signing_secret, rotated.signing_secret, again.signing_secret}) == 3
    client.webhooks.delete(endpoint.id)


def test_the_stock_client_sends_a_sample_that_it_believes_itself(served: Served, client: OpenAI):
    endpoint = made(client)
    result = client.webhooks.test(endpoint.id, event_type="batch.completed")

    assert (result.object, result.event_type, result.status_code, result.success, result.webhook_endpoint_id) == (
        "webhook_endpoint.test", "batch.completed", 200, True, endpoint.id,
    )  # fmt: skip
    sample = served.receiver.sent[-1]
    assert sample.url == URL
    with OpenAI(api_key="x", webhook_secret=endpoint.signing_secret) as receiver:
        # The store's clock stands still in another month.
        receiver.webhooks.verify_signature(sample.body, dict(sample.headers), tolerance=10**9)
    assert json.loads(sample.body)["type"] == "batch.completed"
    client.webhooks.delete(endpoint.id)


def test_a_sample_tells_whatever_the_receiver_answers_and_that_it_does_not(served: Served, client: OpenAI):
    endpoint = made(client)
    served.receiver.reply = WebhookReply(500, None, "broken", None, 7)
    assert client.webhooks.test(endpoint.id, event_type="batch.failed").status_code == 500
    served.receiver.reply = WebhookReply(None, "TimeoutError: no answer within 20 s", "", None, 20_000)
    with pytest.raises(openai.BadRequestError) as refused:
        client.webhooks.test(endpoint.id, event_type="batch.failed")
    served.receiver.reply = WebhookReply(200, None, "thanks", None, 7)

    assert refused.value.code == "webhook_endpoint_unreachable"
    assert "no answer within 20 s" in str(refused.value)
    client.webhooks.delete(endpoint.id)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("", b'{"url": "http://hooks.example.com/"}', "url"),
        ("", b'{"name": "x"}', "url"),
        ("", b'{"url": "https://x.example.com/", "event_types": []}', "event_types"),
        ("", b'{"url": "https://x.example.com/", "event_types": ["eval.run.failed"]}', "event_types"),
        ("", b'{"url": "https://x.example.com/", "cope": {"concurrency": 0}}', "cope.concurrency"),
        ("", b'{"url": "https://x.example.com/", "cope": {"concurrency": true}}', "cope.concurrency"),
        ("", b'{"url": "https://x.example.com/", "cope": {"x": 1}}', "cope.x"),
        ("", b'{"url": "https://x.example.com/", "secret": "mine"}', "secret"),
        ("/{id}", b'{"cope": {"disabled": "no"}}', "cope.disabled"),
        ("/{id}", b'{"url": "ftp://x"}', "url"),
        ("/{id}/rotate_secret", b'{"keep_old_secret_active_for_24_hours": 1}', "keep_old_secret_active_for_24_hours"),
        ("/{id}/test", b"{}", "event_type"),
        ("/{id}/test", b'{"event_type": "nothing"}', "event_type"),
        ("/{id}/redeliver", b"{}", "since"),
        ("/{id}/redeliver", b'{"since": 5, "until": 5}', "until"),
        ("/{id}/redeliver", b'{"since": -5}', "since"),
        ("/{id}/redeliver", b'{"since": 1e9}', "since"),
        ("/{id}/redeliver", b'{"delivery_ids": []}', "delivery_ids"),
        ("/{id}/redeliver", b'{"delivery_ids": ["x"], "since": 5}', "delivery_ids"),
        ("/{id}/redeliver", b'{"since": 5, "only_failed": "yes"}', "only_failed"),
        ("/{id}/redeliver", b'{"since": 99999999999999999999}', "since"),
    ],
)  # fmt: skip
def test_what_can_not_be_done_is_refused_by_name(served: Served, client: OpenAI, path: str, body: bytes, param: str):
    endpoint = made(client)
    status, answer = send(served, "/webhook_endpoints" + path.replace("{id}", endpoint.id), body)
    client.webhooks.delete(endpoint.id)

    assert status == 400
    assert answer["error"]["param"] == param


# ---- deliveries ----------------------------------------------------------------------------------------------------


async def test_a_delivery_is_listed_with_its_attempts_its_request_and_without_its_signature(
    served: Served, client: OpenAI
):
    endpoint = made(client)
    await told(served)
    await ended(served, status=500, retry_in_s=60)

    (brief,) = get(client, f"/webhook_endpoints/{endpoint.id}/deliveries")["data"]
    whole = get(client, f"/webhook_deliveries/{brief['id']}")
    failing = get(client, f"/webhook_endpoints/{endpoint.id}")["cope"]["failing"]
    client.webhooks.delete(endpoint.id)

    assert (brief["status"], brief["event_type"], brief["attempts"]) == ("pending", "batch.failed", 1)
    assert brief["last_attempt"] == {
        "at": int(served.clock.now().timestamp()), "status_code": 500, "error": None, "latency_ms": 12,
    }  # fmt: skip
    assert whole["attempt_log"][0]["response_excerpt"] == "said"
    assert json.loads(whole["request"]["body"])["id"] == whole["event_id"]
    assert "signature" not in json.dumps(whole)
    assert (failing["failures"], failing["last_status_code"]) == (1, 500)


async def test_deliveries_are_paged_and_sifted(served: Served, client: OpenAI):
    endpoint = made(client)
    await told(served, times=3)
    await ended(served, status=200)
    await told(served)

    path = f"/webhook_endpoints/{endpoint.id}/deliveries"
    first = get(client, path, limit=3)
    rest = get(client, path, limit=3, after=first["last_id"])
    delivered = get(client, path, status="delivered")["data"]
    every = get(client, "/webhook_deliveries", limit=100)["data"]
    none = get(client, path, since=int(served.clock.now().timestamp()) + 5)["data"]
    client.webhooks.delete(endpoint.id)

    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert len({one["id"] for one in (*first["data"], *rest["data"])}) == 4
    assert [one["status"] for one in delivered] == ["delivered"] * 3
    assert {one["id"] for one in delivered} < {one["id"] for one in every}
    assert none == []
    for query in ({"status": "lost"}, {"since": "yesterday"}, {"limit": 0}):
        with pytest.raises((openai.BadRequestError, openai.NotFoundError)):
            get(client, "/webhook_deliveries", **query)


async def test_one_or_a_range_is_sent_again_and_the_couriers_are_woken(served: Served, client: OpenAI):
    endpoint = made(client)
    since = int(served.clock.now().timestamp())
    await told(served, times=2)
    await ended(served, status=500)
    first, second = sorted(one["id"] for one in get(client, f"/webhook_endpoints/{endpoint.id}/deliveries")["data"])
    pokes = len(served.wake.poked)

    again = post(client, f"/webhook_deliveries/{first}/redeliver")
    rest = post(client, f"/webhook_endpoints/{endpoint.id}/redeliver", {"since": since})
    named = post(client, f"/webhook_endpoints/{endpoint.id}/redeliver", {"delivery_ids": [first]})

    assert (again["id"], again["status"], again["attempts"]) == (first, "pending", 1)
    assert (rest["count"], rest["delivery_ids"], rest["has_more"]) == (1, [second], False)
    assert named["delivery_ids"] == [first]
    assert served.wake.poked[pokes:] == ["webhooks"] * 3
    await served.store.claim_deliveries(limit=9, lease_s=30)
    with pytest.raises(openai.UnprocessableEntityError) as busy:
        post(client, f"/webhook_deliveries/{first}/redeliver")
    assert busy.value.code == "webhook_delivery_under_way"
    client.webhooks.delete(endpoint.id)


async def test_nothing_is_sent_again_to_an_endpoint_that_is_disabled_until_an_update_enables_it(
    served: Served, client: OpenAI
):
    endpoint = made(client)
    await told(served)
    await ended(served, status=410)
    (dead,) = get(client, f"/webhook_endpoints/{endpoint.id}/deliveries")["data"]

    shown = get(client, f"/webhook_endpoints/{endpoint.id}")["cope"]
    assert (dead["status"], shown["disabled_reason"]) == ("dead", "gone")
    for path, body in ((f"/webhook_endpoints/{endpoint.id}/redeliver", {"delivery_ids": [dead["id"]]}),
                       (f"/webhook_deliveries/{dead['id']}/redeliver", None)):  # fmt: skip
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            post(client, path, body)
        assert refused.value.code == "webhook_endpoint_disabled"

    enabled = client.webhooks.update(endpoint.id, url=URL)
    assert enabled.model_extra is not None
    assert enabled.model_extra["cope"]["disabled_at"] is None
    assert post(client, f"/webhook_deliveries/{dead['id']}/redeliver")["status"] == "pending"
    client.webhooks.delete(endpoint.id)


async def test_another_projects_deliveries_are_not_there(served: Served, client: OpenAI):
    endpoint = made(client)
    await told(served)
    (mine,) = get(client, f"/webhook_endpoints/{endpoint.id}/deliveries")["data"]
    _, project = send(served, "/organization/projects", b'{"name": "other"}', ADMIN)
    _, account = send(served, f"/organization/projects/{project['id']}/service_accounts", b'{"name": "k"}', ADMIN)

    with OpenAI(base_url=served.url, api_key=account["api_key"]["value"], max_retries=0) as stranger:
        assert get(stranger, "/webhook_deliveries")["data"] == []
        for path in (f"/webhook_endpoints/{endpoint.id}/deliveries", f"/webhook_deliveries/{mine['id']}"):
            with pytest.raises(openai.NotFoundError):
                get(stranger, path)
        for path, body in (
            (f"/webhook_endpoints/{endpoint.id}/redeliver", {"delivery_ids": [mine["id"]]}),
            (f"/webhook_deliveries/{mine['id']}/redeliver", {}),
            (f"/webhook_endpoints/{endpoint.id}/test", {"event_type": "batch.failed"}),
            (f"/webhook_endpoints/{endpoint.id}/rotate_secret", {}),
        ):
            with pytest.raises(openai.NotFoundError):
                post(stranger, path, body)
    client.webhooks.delete(endpoint.id)


async def test_the_operators_metrics_tell_what_is_due_and_what_fails(served: Served, client: OpenAI):
    endpoint = made(client)
    await told(served, times=2)
    address, key = served.url.removesuffix("/v1") + "/metrics", {"authorization": f"Bearer {ADMIN}"}
    request = urllib.request.Request(address, headers=key)
    with urllib.request.urlopen(request) as answer:
        lines = answer.read().decode().splitlines()
    client.webhooks.delete(endpoint.id)

    assert [line for line in lines if line.startswith("cope_webhook_deliveries_due ")] == [
        "cope_webhook_deliveries_due 2"
    ]
    assert "cope_webhook_lanes_failing 0" in lines
    assert any(line.startswith("cope_webhook_oldest_due_age_seconds ") for line in lines)


# ---- the command line ----------------------------------------------------------------------------------------------


def cope(served: Served, *arguments: str) -> tuple[int, str]:
    options = ["--base-url", served.url, "--api-key", KEY]
    result = CliRunner().invoke(app, [*options, "webhooks", *arguments])
    return result.exit_code, result.output


async def test_the_command_line_manages_endpoints_and_sends_again(served: Served):
    code, text = cope(served, "add", URL, "--event", "batch.failed", "--concurrency", "3")
    assert code == 0
    endpoint = json.loads(text)
    assert (endpoint["event_types"], endpoint["cope"]["concurrency"]) == (["batch.failed"], 3)
    assert cope(served, "test", endpoint["id"]) == (0, "200 after 7 ms\n")
    assert "budget.alert" in cope(served, "types")[1]
    assert "well" in cope(served, "list")[1]

    await told(served, times=2)
    await ended(served, status=500)
    found = json.loads(cope(served, "deliveries", endpoint["id"], "--status", "dead", "--json")[1])
    assert len(found) == 2
    assert "dead" in cope(served, "deliveries", endpoint["id"], "--limit", "1")[1]
    whole = json.loads(cope(served, "delivery", found[0]["id"])[1])
    assert whole["attempt_log"][0]["status_code"] == 500
    assert cope(served, "redeliver", found[0]["id"]) == (0, f"{found[0]['id']} is due again\n")
    assert cope(served, "redeliver", endpoint["id"], "--since", "2026-11-01") == (0, "1 deliveries are due again\n")
    assert cope(served, "redeliver", endpoint["id"])[0] != 0

    secret = json.loads(cope(served, "rotate", endpoint["id"], "--keep-old")[1])["signing_secret"]
    assert secret.startswith("whsec_")
    disabled = json.loads(cope(served, "update", endpoint["id"], "--disable", "--name", "off")[1])
    assert (disabled["name"], disabled["cope"]["disabled_reason"]) == ("off", "by_hand")
    assert cope(served, "update", endpoint["id"])[0] != 0
    assert json.loads(cope(served, "update", endpoint["id"], "--enable")[1])["cope"]["disabled_at"] is None
    assert json.loads(cope(served, "delete", endpoint["id"])[1])["deleted"]
