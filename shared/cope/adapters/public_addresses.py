"""Which addresses are on the public internet, and names looked up without keeping anybody else waiting."""

import asyncio
import functools
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
LookUp: TypeAlias = Callable[[str, int, socket.AddressFamily], Awaitable[list[tuple[Any, ...]]]]
"""`socket.getaddrinfo` for a host, port and family."""

_THREADS = 64

# Said here and not left to `is_global`, whose answers differ from one Python to the next.
_REFUSED_4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
# Protocol assignments (Teredo among them), documentation, 6to4.
_REFUSED_6 = tuple(ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet, seen through the forms that hold an IPv4 address and lead to it
    (mapped, and the well-known NAT64). Other such forms (6to4, Teredo, compatible) are refused whatever they hold."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not any(address in network for network in _REFUSED_4)
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _GLOBAL_6 and address.is_global and not any(address in network for network in _REFUSED_6)


async def look_up_in_loop(host: str, port: int, family: socket.AddressFamily) -> list[tuple[Any, ...]]:
    """By the loop's own threads, of which there are few: a dead name server can keep all of them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
    return list(found)


class OwnThreads:
    """Looks names up in threads that nothing else waits for."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cope-names")

    async def __call__(self, host: str, port: int, family: socket.AddressFamily) -> list[tuple[Any, ...]]:
        """As `socket.getaddrinfo`."""
        ask = functools.partial(socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM)
        return list(await asyncio.get_running_loop().run_in_executor(self._threads, ask))

    def close(self) -> None:
        """Do not wait for look-ups under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)
