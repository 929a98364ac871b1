"""Webhooks over HTTP to public addresses only: every address a name has must be public, and the checked one is used."""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from cope.core.limits.hints import retry_after_s
from cope.ports.support import WebhookReply, WebhookRequest

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_TIMEOUT_S = 20.0
_EXCERPT = 1024
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class ForbiddenAddress(OSError):
    """The name leads to an address that webhooks may not reach."""


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet, seen through IPv4-in-IPv6 forms."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.sixtofour is not None or address.teredo is not None or address.is_site_local:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class _CheckedResolver(AbstractResolver):
    """Resolves once, refuses the name if any of its addresses is forbidden, and hands out the checked addresses."""

    def __init__(self, hosts: frozenset[str], networks: Sequence[Network]) -> None:
        self._hosts = hosts
        self._networks = tuple(networks)

    def allows(self, host: str, address: Address) -> bool:
        return (
            host.lower() in self._hosts
            or any(address.version == n.version and address in n for n in self._networks)
            or is_public(address)
        )

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        results: list[ResolveResult] = []
        for kind, _, proto, _, place in found:
            address = ipaddress.ip_address(str(place[0]).partition("%")[0])
            if not self.allows(host, address):
                raise ForbiddenAddress(f"{host} has the address {address}, which webhooks may not reach")
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
    is allowed to those only)."""

    def __init__(self, *, hosts: frozenset[str] = frozenset(), networks: Sequence[Network] = ()) -> None:
        self._resolver = _CheckedResolver(hosts, networks)
        self._hosts = hosts
        self._networks = tuple(networks)
        self._session: aiohttp.ClientSession | None = None

    def refuse_reason(self, url: str) -> str | None:
        """Why this address may not be a webhook, or None."""
        try:
            parts = urlsplit(url)
            port = parts.port
            # As the client reads it: to it `①27.0.0.1` is an address, and addresses are not asked of the resolver.
            host = URL(url).raw_host if parts.hostname else None
        except ValueError:
            return "it is not a URL"
        if parts.scheme not in {"https", "http"} or not host:
            return "it must be an https:// address"
        if parts.username or parts.password:
            return "it must not hold credentials"
        if any(ord(c) < 33 or ord(c) == 127 for c in url) or (port is not None and not 0 < port < 65536):
            return "it is not a URL"
        allowed = self._allowed_plainly(host)
        if parts.scheme == "http" and not allowed:
            return "it must be an https:// address"
        literal = _literal(host)
        if literal is not None and not self._resolver.allows(host, literal):
            return f"{literal} is not a public address"
        return None

    def _allowed_plainly(self, host: str) -> bool:
        literal = _literal(host)
        return host.lower() in self._hosts or (
            literal is not None and any(literal.version == n.version and literal in n for n in self._networks)
        )

    async def send(self, request: WebhookRequest) -> WebhookReply:
        """One attempt. Never raises for anything the receiver does."""
        refused = self.refuse_reason(request.url)
        if refused is not None:
            return WebhookReply(None, refused, "", None)
        try:
            async with self._open().post(
                request.url, data=request.body, headers=dict(request.headers), allow_redirects=False
            ) as reply:
                excerpt = (await reply.content.read(_EXCERPT)).decode("utf-8", "replace").replace("\x00", "")
                wait_s = retry_after_s(reply.headers, now=datetime.now(UTC))
                return WebhookReply(reply.status, None, excerpt, wait_s)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            told = _root(error)
            return WebhookReply(None, f"{type(told).__name__}: {told}"[:500], "", None)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # No connection is kept: the next delivery resolves and checks again.
            connector = aiohttp.TCPConnector(resolver=self._resolver, use_dns_cache=False, force_close=True)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"user-agent": "cope-webhooks/1"},
            )
        return self._session

    async def aclose(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _root(error: BaseException) -> BaseException:
    """What an error came from: the client wraps a refused address in one that does not say why."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
