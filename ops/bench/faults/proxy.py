"""TCP links that go wrong: one thread, one loop, a listening port for each address that is proxied.

A link may be late, let one byte a second through, refuse everybody, reset what is open, or freeze it: a frozen
connection takes what is sent and passes nothing on, for good, as after a firewall has forgotten it.
"""

import asyncio
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_TRICKLE_S = 1.0


class _Side(asyncio.Protocol):
    """One end of a proxied connection; what it hears goes to `peer`."""

    def __init__(self, link: "Link") -> None:
        self.link = link
        self.peer: _Side | None = None
        self.transport: asyncio.Transport | None = None
        self.frozen = False
        self._queue: deque[tuple[float, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        own = transport.get_extra_info("socket")
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.link.sides.add(self)

    def data_received(self, data: bytes) -> None:
        if not self.frozen and self.peer is not None:
            self.peer.send(data)

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None and not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.link.sides.discard(self)
        if self.peer is not None and not self.frozen:
            self.peer.end()

    def send(self, data: bytes) -> None:
        """Pass on to this end, at once or when the link lets it."""
        if self.transport is None or self._queue or self.link.latency_s or self.link.trickling:
            self._queue.append((self.link.loop.time() + self.link.latency_s, data))
            self.pump()
        elif not self.transport.is_closing():
            self.transport.write(data)

    def end(self) -> None:
        """The other end has closed: close this one after what is still to come."""
        self._ended = True
        self.pump()

    def pump(self) -> None:
        """Send what is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.transport is None or self.transport.is_closing():
            return
        while self._queue and not self.frozen:
            due, data = self._queue[0]
            if self.link.trickling:
                self.transport.write(data[:1])
                self._queue.popleft()
                if data[1:]:
                    self._queue.appendleft((due, data[1:]))
                self._timer = self.link.loop.call_later(_TRICKLE_S, self.pump)
                return
            if self.link.latency_s and due > self.link.loop.time():
                self._timer = self.link.loop.call_at(due, self.pump)
                return
            self._queue.popleft()
            self.transport.write(data)
        if self._ended and not self._queue:
            self.transport.close()

    def reset(self) -> None:
        """End it with a TCP reset."""
        if self.transport is not None:
            own = self.transport.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()


class Link:
    """One proxied address."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target_port: int) -> None:
        self.loop = loop
        self.target_port = target_port
        self.port = 0
        self.sides: set[_Side] = set()
        self.latency_s = 0.0
        self.trickling = self.refusing = False
        self._connecting: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        """Begin, on a free port."""
        self._server = await self.loop.create_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def _accept(self) -> _Side:
        side = _Side(self)
        task = self.loop.create_task(self._connect(side))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return side

    async def _connect(self, client: _Side) -> None:
        if self.refusing:
            client.reset()
            return
        server = _Side(self)
        server.peer, client.peer = client, server
        try:
            await self.loop.create_connection(lambda: server, "127.0.0.1", self.target_port)
        except OSError:
            client.reset()
            return
        server.pump()

    def pump(self) -> None:
        """The link has changed: look at every queue."""
        for side in list(self.sides):
            side.pump()

    def freeze(self) -> None:
        """Every open connection becomes a black hole."""
        for side in self.sides:
            side.frozen = True

    def reset(self) -> None:
        """Every open connection ends with a reset."""
        for side in list(self.sides):
            side.reset()

    def close(self) -> None:
        """No new connections, and an end to the open ones."""
        if self._server is not None:
            self._server.close()
        self.refusing = True
        self.reset()


class Proxies:
    """The links of one place. Use from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()
        self.links: dict[str, Link] = {}

    def add(self, name: str, target_port: int) -> int:
        """A port that leads to `target_port`."""
        link = self.links[name] = Link(self._loop, target_port)
        asyncio.run_coroutine_threadsafe(link.listen(), self._loop).result(10)
        return link.port

    def late(self, name: str, seconds: float) -> None:
        """Everything arrives so much later; 0 for at once."""
        self._set(name, latency_s=seconds)

    def trickle(self, name: str, *, on: bool) -> None:
        """One byte a second each way of each connection, or all that waits."""
        self._set(name, trickling=on)

    def refuse(self, name: str, *, on: bool) -> None:
        """New connections are reset, or not; those that are open stay."""
        self._set(name, refusing=on)

    def freeze(self, name: str) -> None:
        """What is open passes nothing on any more, for good; new connections work."""
        self._do(self.links[name].freeze)

    def reset(self, name: str) -> None:
        """What is open is reset; new connections work."""
        self._do(self.links[name].reset)

    def heal(self, name: str) -> None:
        """All as it should be. What was frozen stays so."""
        self._set(name, latency_s=0.0, trickling=False, refusing=False)

    def close(self) -> None:
        """End the thread and with it every connection."""

        async def end() -> None:
            for link in self.links.values():
                link.close()
            await asyncio.sleep(0.05)  # the transports' own last callbacks

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _set(self, name: str, **values: object) -> None:
        link = self.links[name]

        def change() -> None:
            for field, value in values.items():
                setattr(link, field, value)
            link.pump()

        self._do(change)

    def _do(self, act: Callable[[], T]) -> T:
        async def inside() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(inside(), self._loop).result(10)
