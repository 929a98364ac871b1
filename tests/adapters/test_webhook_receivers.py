"""Webhooks to receivers that drip, redirect, flood, lie about who they are, or live where nobody should look."""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cope.adapters.http_webhooks import HttpWebhookSender
from cope.adapters.public_addresses import OwnThreads, is_public
from cope.ports.support import WebhookReply, WebhookRequest

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
NAME = "hooks.example.test"
Talk: TypeAlias = Callable[[bytes, asyncio.StreamWriter], Any]


@contextlib.asynccontextmanager
async def receiver(talk: Talk, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Reads each request and then talks; gives its port."""

    serving: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        # A cancelled handler would be told of in the log by the server of streams.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            await talk(head, writer)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def deliver(url: str, **options: Any) -> WebhookReply:
    sender = HttpWebhookSender(**{"networks": LOOPBACK, **options})
    try:
        return await sender.send(WebhookRequest(url, b"{}", (("webhook-id", "evt_1"),)))
    finally:
        await sender.aclose()


def says(text: str | bytes) -> Talk:
    async def talk(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(text if isinstance(text, bytes) else text.encode())
        await writer.drain()

    return talk


async def test_the_first_kibibyte_of_an_answer_is_kept_and_the_rest_is_not_read():
    body = "x" * 5_000_000
    async with receiver(says(f"HTTP/1.1 500 No\r\ncontent-length: {len(body)}\r\n\r\n{body}")) as port:
        reply = await deliver(f"http://127.0.0.1:{port}/")

    assert (reply.status, reply.excerpt) == (500, "x" * 1024)


async def test_a_body_that_drips_holds_no_place_for_long_and_its_status_counts():
    async def drip(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.3)

    async with receiver(drip) as port:
        began = time.monotonic()
        reply = await deliver(f"http://127.0.0.1:{port}/", timeout_s=20)

    assert reply.status == 200
    assert 0 < len(reply.excerpt) < 1000
    assert time.monotonic() - began < 15


async def test_a_head_that_drips_is_given_up_at_the_time_out():
    async def drip(_: bytes, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"H")
            await writer.drain()
            await asyncio.sleep(0.1)

    async with receiver(drip) as port:
        reply = await deliver(f"http://127.0.0.1:{port}/", timeout_s=0.5)

    assert reply.status is None
    assert reply.error is not None
    assert reply.excerpt == ""


async def test_silence_is_given_up_at_the_time_out_and_says_so():
    async def silent(_: bytes, __: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async with receiver(silent) as port:
        reply = await deliver(f"http://127.0.0.1:{port}/", timeout_s=0.3)

    assert reply.status is None
    assert "no answer within 0.3 s" in str(reply.error)
    assert reply.took_ms >= 300


async def test_a_redirect_is_an_answer_and_is_not_followed():
    asked: list[bytes] = []

    async def elsewhere(head: bytes, writer: asyncio.StreamWriter) -> None:
        asked.append(head)
        writer.write(b"HTTP/1.1 307 Go\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    async with receiver(elsewhere) as port:
        reply = await deliver(f"http://127.0.0.1:{port}/")

    assert (reply.status, len(asked)) == (307, 1)


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with receiver(says("HTTP/1.1 204 OK\r\n\r\n")) as port:
        assert (await deliver(f"http://127.0.0.1:{port}/")).status == 204


@pytest.mark.parametrize("text", ["no HTTP at all\r\n\r\n", "HTTP/1.1 200 OK\r\n" + "x" * 100_000, ""])
async def test_what_is_no_answer_is_a_failure(text: str):
    async with receiver(says(text)) as port:
        reply = await deliver(f"http://127.0.0.1:{port}/", timeout_s=5)

    assert reply.status is None
    assert reply.error


async def test_retry_after_is_read_and_odd_bytes_are_kept_as_text():
    async with receiver(
        says(b"HTTP/1.1 503 No\r\nretry-after: 17\r\ncontent-length: 6\r\n\r\na\x00b\xed\xb3\xbf")
    ) as port:
        reply = await deliver(f"http://127.0.0.1:{port}/")

    assert (reply.status, reply.retry_after_s) == (503, 17.0)
    assert reply.excerpt.startswith("ab")
    assert reply.excerpt.encode()


# ---- who is spoken to ----------------------------------------------------------------------------------------------


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context for `name`, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    (folder / "chain.pem").write_bytes(
        pem
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "chain.pem")
    return server, ssl.create_default_context(cadata=pem.decode())


async def leads_to_loopback(host: str, port: int, family: socket.AddressFamily) -> list[tuple[Any, ...]]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


async def test_the_checked_address_is_connected_to_under_the_names_own_host_and_certificate(tmp_path: Path):
    server, client = certificate(tmp_path, NAME)
    named: list[str | None] = []
    server.sni_callback = lambda _, name, __: named.append(name)
    heads: list[bytes] = []

    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        writer.write(b"HTTP/1.1 204 OK\r\n\r\n")
        await writer.drain()

    async with receiver(talk, tls=server) as port:
        reply = await deliver(f"https://{NAME}:{port}/x", tls=client, look_up=leads_to_loopback)

    assert reply.status == 204
    assert named == [NAME]
    assert f"Host: {NAME}:{port}".encode() in heads[0]


async def test_somebody_elses_certificate_is_not_believed(tmp_path: Path):
    server, client = certificate(tmp_path, "other.example.test")
    async with receiver(says("HTTP/1.1 204 OK\r\n\r\n"), tls=server) as port:
        reply = await deliver(f"https://{NAME}:{port}/x", tls=client, look_up=leads_to_loopback)

    assert reply.status is None
    assert "Hostname mismatch" in str(reply.error)


async def test_a_refusal_does_not_tell_where_the_name_leads():
    reply = await deliver("https://intranet.example.test/x", networks=(), look_up=leads_to_loopback)

    assert "may not reach" in str(reply.error)
    assert "127.0.0.1" not in str(reply.error)


@pytest.mark.parametrize(
    "address",
    [
        "2001:0:53aa:64c::1", "2001:20::1", "2001:db8::1", "3fff::1", "5f00::1", "fec0::1", "::7f00:1", "::127.0.0.1",
        "64:ff9b:1::808:808", "64:ff9b::7f00:1", "100::1", "192.88.99.1", "192.0.0.8", "198.18.0.1", "203.0.113.1",
        "100.127.255.255", "239.255.255.255", "2002:808:808::1", "4000::1",
    ],
)  # fmt: skip
def test_addresses_that_look_public_and_are_not(address: str):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    ["https://①27.0.0.1/", "https://127。0。0。1/", "https://[::ffff:7f00:1]/", "https://169.254.169.254./",
     "https://hooks.example.com\\@127.0.0.1/", "https://[fe80::1%25eth0]/"],
)  # fmt: skip
async def test_an_odd_way_to_write_a_private_address_reaches_nobody(url: str):
    sender = HttpWebhookSender()
    reply = await sender.send(WebhookRequest(url, b"{}", ()))
    await sender.aclose()

    assert reply.status is None


async def test_names_are_looked_up_in_threads_of_their_own():
    names = OwnThreads()
    found = await names("localhost", 80, socket.AF_UNSPEC)
    names.close()

    assert {str(place[0]) for *_, place in found} <= {"127.0.0.1", "::1"}
