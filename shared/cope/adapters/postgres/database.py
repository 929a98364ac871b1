"""Connections: one pool per store, and transactions that say whose rows they may see.

In statements, `%b` asks for binary parameters: an array of long texts in text form is escaped character by character,
which cost half of a commit's time.
"""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import psycopg
from psycopg.rows import TupleRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from cope.core.errors import StoreUnavailable

Connection: TypeAlias = psycopg.AsyncConnection[TupleRow]
Row: TypeAlias = Mapping[str, Any]

_CONNECT_WAIT_S = 10.0
_PREPARE_AFTER = 2
_TRUSTED_S = 1.0
_CHECK_WITHIN_S = 5.0
_LIMIT_S = 30.0
# A host or a firewall that is gone says nothing: the kernel has to ask, and to give up on what nobody acknowledges.
KEEPALIVE: Mapping[str, Any] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


class Database:
    """A pool of connections under one role. `open` before use, `close` after."""

    def __init__(self, url: str, *, min_size: int, max_size: int, name: str, idle_s: float = _LIMIT_S) -> None:
        """A process that stands still, or is cut off, in the middle of a transaction that has a limit loses it, and
        its locks, after `idle_s` seconds."""
        self.url = url
        self._idle_s = idle_s
        self._seen_alive: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            min_size=min_size,
            max_size=max_size,
            open=False,
            name=name,
            timeout=_CONNECT_WAIT_S,
            check=self._check,
            configure=self._configure,
            kwargs={
                "autocommit": True,
                "prepare_threshold": _PREPARE_AFTER,
                "application_name": name,
                "connect_timeout": 10,
                **KEEPALIVE,
            },
        )

    async def open(self) -> None:
        """Start the pool; connections follow in the background."""
        await self._pool.open()

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    async def _configure(self, conn: Connection) -> None:
        """How the server finds out that this process is gone or cut off, and frees what it holds."""
        wanted = {
            "idle_in_transaction_session_timeout": f"{self._idle_s * 1000:.0f}",
            # A server process that waits for a lock for somebody who has hung up goes too. Else those that come after
            # it pile up until the server takes no more connections.
            "client_connection_check_interval": "2s",
            "tcp_keepalives_idle": str(KEEPALIVE["keepalives_idle"]),
            "tcp_keepalives_interval": str(KEEPALIVE["keepalives_interval"]),
            "tcp_keepalives_count": str(KEEPALIVE["keepalives_count"]),
        }
        if _has_transaction_timeout(conn):
            # In the middle of a pipeline the server does not count itself as idle, whoever it waits for.
            wanted["transaction_timeout"] = _timeout(self._idle_s)
        names = ", ".join("set_config(%s, %s, false)" for _ in wanted)
        await conn.execute(f"SELECT {names}", [part for setting in wanted.items() for part in setting])

    async def _check(self, conn: Connection) -> None:
        """A connection that the server dropped (a restart) is replaced before anybody is given it. One that was in use
        a moment ago is trusted: a round trip before each transaction was a tenth of a busy worker's time."""
        now = time.monotonic()
        if now - self._seen_alive.get(conn, -_TRUSTED_S) >= _TRUSTED_S:
            with hung_up_after(conn, _CHECK_WITHIN_S):
                await AsyncConnectionPool.check_connection(conn)
        self._seen_alive[conn] = now

    @contextlib.asynccontextmanager
    async def connection(self, *, limit_s: float | None = _LIMIT_S) -> AsyncIterator[Connection]:
        """A connection in autocommit. A lost server is `StoreUnavailable`, which says nothing about a commit.

        After `limit_s` seconds the connection is cut, which is `StoreUnavailable` too: a pooler, a proxy or a half-open
        connection can be silent for ever where keep-alives see nothing wrong. None for what may rightly take long.
        """
        try:
            async with self._pool.connection() as conn:
                with contextlib.nullcontext() if limit_s is None else hung_up_after(conn, limit_s):
                    yield conn
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as lost:
            raise StoreUnavailable(f"the database did not answer: {lost}") from lost

    @contextlib.asynccontextmanager
    async def transaction(self, *, limit_s: float | None = _LIMIT_S, **settings: str) -> AsyncIterator[Connection]:
        """One transaction. `settings` become `cope.<name>` for its duration: what row-level security looks at."""
        async with self.connection(limit_s=limit_s) as conn, conn.transaction():
            if limit_s is None:
                await conn.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            if (limit_s is None or limit_s > self._idle_s) and _has_transaction_timeout(conn):
                longer = "0" if limit_s is None else _timeout(limit_s)
                # Off and on again: a clock that runs is not put forward.
                await conn.execute(
                    "SELECT set_config('transaction_timeout', '0', true), set_config('transaction_timeout', %s, true)",
                    [longer],
                )
            for name, value in settings.items():
                await conn.execute("SELECT set_config(%s, %s, true)", [f"cope.{name}", value])
            yield conn


def _has_transaction_timeout(conn: Connection) -> bool:
    """From Postgres 17 on."""
    return conn.info.server_version >= 170_000


def _timeout(limit_s: float) -> str:
    """In the server's milliseconds, a little after this side has given up."""
    return f"{limit_s * 1000 + 1000:.0f}"


@contextlib.asynccontextmanager
async def in_index_order(conn: Connection) -> AsyncIterator[None]:
    """For pages in the order of an index. A batch of a million lines is a surprise to the planner until its rows have
    been analysed: it expects a handful, reads all of them and sorts, for every page."""
    await conn.execute("SET LOCAL enable_sort = off")
    yield
    await conn.execute("SET LOCAL enable_sort = on")


@contextlib.contextmanager
def hung_up_after(conn: Connection, seconds: float) -> Iterator[None]:
    """The connection is cut if the block takes longer."""
    timer = asyncio.get_running_loop().call_later(seconds, hang_up, conn)
    try:
        yield
    finally:
        timer.cancel()


def hang_up(conn: Connection) -> None:
    """End a connection's traffic both ways, so that whoever waits for it hears at once that it is gone. (Cancelling
    the waiter instead would ask the silent server to cancel, and wait for that.)"""
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(conn.fileno())) as same:
        same.shutdown(socket.SHUT_RDWR)


async def fetch(conn: Connection, query: str, params: object = None) -> list[dict[str, Any]]:
    """All rows by column name."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query, params)  # type: ignore[call-overload]
        rows: list[dict[str, Any]] = await cursor.fetchall()
        return rows


async def fetch_one(conn: Connection, query: str, params: object = None) -> dict[str, Any] | None:
    """The first row by column name, or None."""
    rows = await fetch(conn, query, params)
    return rows[0] if rows else None
