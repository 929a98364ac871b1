"""Webhooks over HTTP to public addresses only: every address a name has must be public, and the checked one is used."""

import asyncio
import socket
import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from cope.adapters.public_addresses import Address, LookUp, Network, is_public, look_up_in_loop
from cope.core.limits.hints import retry_after_s
from cope.ports.support import WebhookReply, WebhookRequest

__all__ = ["ForbiddenAddress", "HttpWebhookSender", "Network", "is_public"]

TIMEOUT_S = 20.0
_CONNECT_S = 10.0
_BODY_S = 2.0
_EXCERPT = 1024
_REMEMBERED = 1000


class ForbiddenAddress(OSError):
    """The name leads to an address that webhooks may not reach."""


class _CheckedResolver(AbstractResolver):
    """Resolves once, refuses the name if any of its addresses is forbidden, and hands out the checked addresses."""

    def __init__(self, hosts: frozenset[str], networks: Sequence[Network], look_up: LookUp) -> None:
        self._hosts = hosts
        self._networks = tuple(networks)
        self._look_up = look_up

    def named(self, host: str) -> bool:
        """Whether the operator allows this host, wherever it leads."""
        return host.lower().rstrip(".") in self._hosts

    def in_networks(self, address: Address) -> bool:
        """Whether it is in a network that the operator allows."""
        return any(address.version == network.version and address in network for network in self._networks)

    def allows(self, host: str, address: Address) -> bool:
        """Whether messages to this host may go to this address."""
        return self.named(host) or self.in_networks(address) or is_public(address)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        results: list[ResolveResult] = []
        for kind, _, proto, _, place in await self._look_up(host, port, family):
            address = ip_address(str(place[0]).partition("%")[0])
            if not self.allows(host, address):
                # Which one is not said: a name's inner addresses are nobody's business outside.
                raise ForbiddenAddress(f"{host} leads to an address that webhooks may not reach")
            results.append(
                {
                    "hostname": host,
                    "host": str(address),
                    "port": port,
                    "family": kind,
                    "proto": proto,
                    "flags": socket.AI_NUMERICHOST,
                }
            )
        return results

    async def close(self) -> None:
        """Nothing is held."""


class HttpWebhookSender:
    """A `WebhookSender`. `hosts` and `networks` are what the operator allows besides public addresses (and plain HTTP
    is allowed to those only). `timeout_s` bounds an attempt from the look-up of the name to the answer's head; its body
    is read for two seconds at most. `tls` is the system's trust unless given."""

    def __init__(
        self,
        *,
        hosts: frozenset[str] = frozenset(),
        networks: Sequence[Network] = (),
        timeout_s: float = TIMEOUT_S,
        look_up: LookUp = look_up_in_loop,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._resolver = _CheckedResolver(hosts, networks, look_up)
        self._timeout_s = timeout_s
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._judged: dict[str, str | None] = {}

    def refuse_reason(self, url: str) -> str | None:
        """Why this address may not be a webhook, or None."""
        if url not in self._judged:
            if len(self._judged) >= _REMEMBERED:
                self._judged.clear()
            self._judged[url] = self._judge(url)
        return self._judged[url]

    def _judge(self, url: str) -> str | None:
        if any(ord(c) < 33 or ord(c) == 127 for c in url):
            return "it is not a URL"
        try:
            parts, seen = urlsplit(url), URL(url)
            port = parts.port
            # As the client will read it, which is what counts: it folds odd digits and dots into plain ones.
            hosts = {host for host in (parts.hostname, seen.host, seen.raw_host) if host}
        except (ValueError, TypeError):
            return "it is not a URL"
        if parts.scheme not in {"https", "http"} or not parts.hostname or not seen.host:
            return "it must be an https:// address"
        if parts.username or parts.password or seen.user or seen.password:
            return "it must not hold credentials"
        if port is not None and not 0 < port < 65536:
            return "it is not a URL"
        literals = [literal for host in hosts if (literal := _literal(host)) is not None]
        for literal in literals:
            if not self._resolver.allows(parts.hostname, literal):
                return f"{literal} is not a public address"
        allowed = self._resolver.named(parts.hostname) or (
            bool(literals) and all(self._resolver.in_networks(literal) for literal in literals)
        )
        if parts.scheme == "http" and not allowed:
            return "it must be an https:// address"
        return None

    async def send(self, request: WebhookRequest) -> WebhookReply:
        """One attempt. Never raises for anything the receiver does."""
        refused = self.refuse_reason(request.url)
        if refused is not None:
            return WebhookReply(None, refused, "", None)
        began_s = time.monotonic()
        try:
            async with self._open().post(
                request.url, data=request.body, headers=dict(request.headers), allow_redirects=False
            ) as reply:
                took_ms = _since_ms(began_s)
                wait_s = retry_after_s(reply.headers, now=datetime.now(UTC))
                return WebhookReply(reply.status, None, await _beginning(reply), wait_s, took_ms)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            told = _told(error, self._timeout_s)
            return WebhookReply(None, told[:500], "", None, _since_ms(began_s))

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # No connection is kept: the next delivery resolves and checks again.
            connector = aiohttp.TCPConnector(
                resolver=self._resolver,
                use_dns_cache=False,
                force_close=True,
                limit=0,
                ssl=self._tls if self._tls is not None else True,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=min(_CONNECT_S, self._timeout_s)),
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"user-agent": "cope-webhooks/1", "accept-encoding": "identity"},
                auto_decompress=False,
            )
        return self._session

    async def aclose(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _beginning(reply: aiohttp.ClientResponse) -> str:
    """The first KiB of the answer, or as much as came within two seconds: a body that drips or breaks off changes
    nothing about a status that is known."""
    if reply.content.at_eof():
        return ""
    data = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            while len(data) < _EXCERPT and (chunk := await reply.content.read(_EXCERPT - len(data))):
                data += chunk
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
        pass
    return data.decode("utf-8", "replace").replace("\x00", "")


def _since_ms(began_s: float) -> int:
    return round((time.monotonic() - began_s) * 1000)


def _told(error: BaseException, timeout_s: float) -> str:
    """What an error came from: the client wraps a refused address in one that does not say why."""
    if isinstance(error, TimeoutError):
        return f"TimeoutError: no answer within {timeout_s:g} s"
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
