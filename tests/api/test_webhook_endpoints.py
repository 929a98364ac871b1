"""Webhook management through the unmodified openai client, and a test message to a real receiver."""

import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from openai import OpenAI

from cope.adapters.http_webhooks import HttpWebhookSender
from cope.adapters.memory import (
    FixedClock,
    MemoryStore,
    SequentialIds,
)
from cope.core.records import Delivery
from cope.core.webhooks import make_secret
from cope.usecases.deliver_webhooks import signed_request
from cope_local.sink import WebhookSink
from tests.api.serving import serving
from tests.api.test_api import KEY, Served, client, send, served
from tests.support import NOON

__all__ = ["client", "served"]  # fixtures
PATH = "/webhook_endpoints"


def made(client: OpenAI, url: str = "https://example.com/hook") -> Any:
    return client.webhooks.create(name="ours", url=url, event_types=["batch.completed"])


def test_the_stock_client_makes_changes_rotates_and_deletes_an_endpoint(client: OpenAI):
    one = made(client)
    assert one.signing_secret.startswith("whsec_")
    assert client.webhooks.retrieve(one.id).signing_secret_hint == one.signing_secret[-4:]

    changed = client.webhooks.update(one.id, url="https://example.com/new", event_types=["batch.failed"])
    assert (changed.name, changed.url, changed.event_types) == ("ours", "https://example.com/new", ["batch.failed"])
    rotated = client.webhooks.rotate_secret(one.id, keep_old_secret_active_for_24_hours=True)
    assert rotated.signing_secret not in {None, one.signing_secret}
    shown = client.webhooks.retrieve(one.id).to_dict()
    assert shown["cope"]["old_secret_until"] == int(NOON.timestamp()) + 86_400  # type: ignore[index]
    assert one.id in {each.id for each in client.webhooks.list()}
    assert client.webhooks.delete(one.id).deleted


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("", b'{"url": "https://10.0.0.1/"}', "url"),
        ("", b'{"event_types": ["batch.eaten"]}', "event_types"),
        ("", b'{"event_types": []}', "event_types"),
        ("", b'{"enabled": true}', "enabled"),
        ("/rotate_secret", b'{"keep_old_secret_active_for_24_hours": 1}', "keep_old_secret_active_for_24_hours"),
        ("/test", b'{"event_type": "batch.eaten"}', "event_types"),
        ("/redeliver", b"{}", "since"),
        ("/redeliver", b'{"delivery_ids": ["a"], "since": 1}', "since"),
        ("/redeliver", b'{"since": 5, "until": 5}', "until"),
        ("/redeliver", b'{"since": 5, "only_failed": "no"}', "only_failed"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(served: Served, client: OpenAI, path: str, body: bytes, param: str):
    one = made(client)
    status, answer, _ = send(served, f"{PATH}/{one.id}{path}", body)

    assert (status, answer["error"]["param"]) == (400, param)  # type: ignore[index]


@pytest.mark.parametrize("path", ["", "/rotate_secret", "/test", "/redeliver", "/deliveries"])
def test_an_endpoint_that_is_not_there_is_not_found(served: Served, path: str):
    bodies = {"/test": b'{"event_type": "batch.failed"}', "/redeliver": b'{"since": 1}', "/deliveries": None}
    method = "GET" if path == "/deliveries" else "POST"
    status, answer, _ = send(served, f"{PATH}/we_none{path}", bodies.get(path, b"{}"), method=method)

    assert (status, answer["error"]["type"]) == (404, "invalid_request_error")  # type: ignore[index]


@pytest.fixture(scope="module")
def sink() -> Iterator[WebhookSink]:
    made = WebhookSink(make_secret(bytes(32)))
    yield made
    made.close()


def test_a_test_message_is_sent_signed_and_its_answer_shown(served: Served, client: OpenAI, sink: WebhookSink):
    sender = HttpWebhookSender(networks=(ipaddress.ip_network("127.0.0.0/8"),))
    parts = replace(served.parts, store=MemoryStore(FixedClock(), SequentialIds()), webhooks=sender)
    with serving(parts) as url, OpenAI(base_url=url, api_key=KEY, max_retries=0) as own:
        one = own.webhooks.create(name="ours", url=sink.url, event_types=["batch.completed"])
        told = own.webhooks.test(one.id, event_type="batch.completed")

    # Another secret signs here than the receiver's, so it does not believe it, and that is shown.
    assert (told.status_code, told.success, told.event_type) == (400, False, "batch.completed")
    assert told.webhook_endpoint_id == one.id
    assert sink.forged == 1


def test_while_two_secrets_count_a_message_carries_both_signatures():
    old, new = make_secret(bytes(32)), make_secret(bytes(range(32)))
    delivery = Delivery("del_1", "evt_1", "https://example.com/", "{}", 1, new, None, old)  # type: ignore[arg-type]
    headers = dict(signed_request(delivery, now=NOON).headers)

    signed = f"evt_1.{int(NOON.timestamp())}.{{}}".encode()
    expected = []
    for secret in (new, old):
        key = base64.b64decode(secret.removeprefix("whsec_"))
        expected.append("v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode())
    assert headers["webhook-signature"].split(" ") == expected


def test_deliveries_can_be_read_and_an_unknown_status_is_refused(served: Served, client: OpenAI):
    one = made(client)
    status, body, _ = send(served, f"{PATH}/{one.id}/deliveries", method="GET")
    assert (status, body["data"], body["has_more"]) == (200, [], False)
    assert send(served, "/webhook_deliveries?status=lost", method="GET")[0] == 400
    assert send(served, "/webhook_deliveries/del_none", method="GET")[0] == 404
    status, body, _ = send(served, f"{PATH}/{one.id}/redeliver", b'{"since": 1}')
    assert (status, body["count"]) == (200, 0)
