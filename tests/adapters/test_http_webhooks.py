"""Webhooks: signed so that the stock client believes them, sent to public addresses only."""

import ipaddress
import json

import pytest
from openai import OpenAI
from standardwebhooks import Webhook

from cope.adapters.http_webhooks import HttpWebhookSender, is_public
from cope.core.webhooks import SCHEDULE_S, make_secret, retry_in_s, secret_key, sign
from cope.ports.support import WebhookRequest
from cope_local.sink import WebhookSink

SECRET = make_secret(bytes(range(32)))
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1",
        "2002:a00:1::", "198.51.100.7", "240.0.0.1",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_never_reached(address: str):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_public_addresses_are_fine(address: str):
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    ["http://example.com/", "ftp://example.com/", "https://user:pw@example.com/", "https://127.0.0.1/", "https://[::1]/",
     "https://", "nothing", "https://example.com/ x", "https://example.com:99999/"],
)  # fmt: skip
def test_an_unfit_address_is_refused_before_anything_is_stored(url: str):
    assert HttpWebhookSender().refuse_reason(url)


async def test_a_name_that_leads_to_a_private_address_is_not_connected_to():
    sender = HttpWebhookSender()
    reply = await sender.send(WebhookRequest("https://localhost:9/", b"{}", ()))
    await sender.aclose()

    assert reply.status is None
    assert reply.error is not None
    assert "may not reach" in reply.error


async def test_a_delivery_is_believed_by_the_stock_client_and_a_forged_one_is_not():
    sink, sender = WebhookSink(SECRET), HttpWebhookSender(networks=LOOPBACK)
    body = json.dumps(
        {"id": "evt_1", "object": "event", "created_at": 1, "type": "batch.completed", "data": {"id": "batch_1"}}
    ).encode()
    now = int(__import__("time").time())

    def signed(secret: str) -> tuple[tuple[str, str], ...]:
        signature = sign(secret, message_id="evt_1", timestamp=now, body=body)
        return ("webhook-id", "evt_1"), ("webhook-timestamp", str(now)), ("webhook-signature", signature)

    good = await sender.send(WebhookRequest(sink.url, body, signed(SECRET)))
    forged = await sender.send(WebhookRequest(sink.url, body, signed(make_secret(bytes(32)))))
    await sender.aclose()
    sink.close()

    assert (good.status, forged.status) == (204, 400)
    assert sink.received == [("batch.completed", "batch_1")]
    Webhook(SECRET).verify(body, dict(signed(SECRET)))
    OpenAI(api_key="x", webhook_secret=SECRET).webhooks.unwrap(body, dict(signed(SECRET)))


def test_the_schedule_is_the_published_one_and_ends():
    waits = [retry_in_s(attempt, retry_after_s=None, jitter=0.5) for attempt in range(1, len(SCHEDULE_S) + 2)]

    assert waits == [*map(float, SCHEDULE_S), None]
    assert retry_in_s(1, retry_after_s=600, jitter=0.5) == 600
    assert retry_in_s(1, retry_after_s=1e9, jitter=0.5) == 86_400


def test_a_secret_that_is_none_is_refused():
    with pytest.raises(ValueError, match="whsec_"):
        secret_key("abc")
    with pytest.raises(ValueError, match="base64"):
        secret_key("whsec_!!")
