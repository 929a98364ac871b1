"""Webhooks to places that are no customer's: every way to write a private address, and names that change their mind."""

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from cope.adapters.http_webhooks import HttpWebhookSender
from cope.ports.support import WebhookReply, WebhookRequest

PUBLIC, LOOPBACK, METADATA = "93.184.216.34", "127.0.0.1", "169.254.169.254"


class Names:
    """A resolver that the attacker runs: what a name leads to may be another thing each time it is asked."""

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []

    async def look_up(self, host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        told = self.answers[host]
        addresses = told.pop(0) if len(told) > 1 else told[0]
        found: list[tuple[Any, ...]] = []
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            found.append((family, socket.SOCK_STREAM, 6, "", (address, port)))
        return found


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    made = Names()
    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", lambda _, host, port, **told: made.look_up(host, port))
    return made


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Somebody on loopback who must never be called."""
    with socket.create_server((LOOPBACK, 0)) as server:
        server.setblocking(False)
        yield server


def called(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return False
    return True


async def deliver(url: str, *, times: int = 1) -> list[WebhookReply]:
    sender = HttpWebhookSender()
    replies = [await sender.send(WebhookRequest(url, b"{}", ())) for _ in range(times)]
    await sender.aclose()
    return replies


@pytest.mark.parametrize(
    "address",
    [
        LOOPBACK, "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", METADATA, "100.64.0.1", "192.0.0.1",
        "198.18.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "::ffff:127.0.0.1",
        "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:53aa:64c::1", "ff02::1", "fec0::1",
        "2001:db8::1", "64:ff9b:1::a00:1",
    ],
)  # fmt: skip
async def test_a_name_that_leads_to_a_private_address_is_not_called(names: Names, address: str) -> None:
    names.answers["evil.example.com"] = [[address]]

    (reply,) = await deliver("https://evil.example.com/x")

    assert reply.status is None
    assert reply.error is not None
    assert "ForbiddenAddress" in reply.error


async def test_one_private_address_among_public_ones_is_enough(names: Names, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    names.answers["evil.example.com"] = [[PUBLIC, LOOPBACK]]

    (reply,) = await deliver(f"https://evil.example.com:{port}/x")

    assert "ForbiddenAddress" in str(reply.error)
    assert not called(listener)


async def test_a_name_that_turns_private_after_it_was_checked_is_never_connected_to(
    names: Names, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = listener.getsockname()[1]
    names.answers["rebind.example.com"] = [[PUBLIC], [LOOPBACK]]
    connected: list[str] = []

    async def no_network(_: object, sock: socket.socket, address: tuple[Any, ...]) -> None:
        connected.append(str(address[0]))
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", no_network)

    first, second = await deliver(f"https://rebind.example.com:{port}/x", times=2)

    # The first delivery connects to the address that was checked, by its number: it is not looked up a second time.
    assert connected == [PUBLIC]
    assert "ConnectionRefused" in str(first.error) or "Connect" in str(first.error)
    # The next delivery looks again, and refuses.
    assert "ForbiddenAddress" in str(second.error)
    assert names.asked == ["rebind.example.com", "rebind.example.com"]
    assert not called(listener)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "//example.com/",
        "https://", "https:///x", "https://user:pass@example.com/", "https://example.com@127.0.0.1/",
        "https://127.0.0.1/", "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://169.254.169.254/latest/meta-data",
        "https://example.com:0/", "https://example.com:99999/", "https://exa mple.com/", "https://example.com/\r\nX: 1",
        "https://example.com\t/", "https://[::1", "javascript:alert(1)", "",
    ],
)  # fmt: skip
def test_an_address_that_can_not_be_a_webhook_is_refused_at_once(url: str) -> None:
    assert HttpWebhookSender().refuse_reason(url) is not None


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f.1",
        "017700000001",
        "127.1",
        "localhost",
        "localhost.",
        "①27.0.0.1",
        "127。0。0。1",
        "１２７.0.0.1",
    ],
)
async def test_an_odd_way_to_write_loopback_is_not_called(host: str, listener: socket.socket) -> None:
    port = listener.getsockname()[1]

    (reply,) = await deliver(f"https://{host}:{port}/x")

    assert reply.status is None
    assert not called(listener)
