"""Connections: one pool per store, and transactions that say whose rows they may see.

In statements, `%b` asks for binary parameters: an array of long texts in text form is escaped character by character,
which cost half of a commit's time.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Mapping
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


class Database:
    """A pool of connections under one role. `open` before use, `close` after."""

    def __init__(self, url: str, *, min_size: int, max_size: int, name: str) -> None:
        self.url = url
        self._seen_alive: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            min_size=min_size,
            max_size=max_size,
            open=False,
            name=name,
            timeout=_CONNECT_WAIT_S,
            check=self._check,
            kwargs={
                "autocommit": True,
                "prepare_threshold": _PREPARE_AFTER,
                "application_name": name,
                "connect_timeout": 10,
            },
        )

    async def open(self) -> None:
        """Start the pool; connections follow in the background."""
        await self._pool.open()

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    async def _check(self, conn: Connection) -> None:
        """A connection that the server dropped (a restart) is replaced before anybody is given it. One that was in use
        a moment ago is trusted: a round trip before each transaction was a tenth of a busy worker's time."""
        now = time.monotonic()
        if now - self._seen_alive.get(conn, -_TRUSTED_S) >= _TRUSTED_S:
            await AsyncConnectionPool.check_connection(conn)
        self._seen_alive[conn] = now

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection in autocommit. A lost server is `StoreUnavailable`, which says nothing about a commit."""
        try:
            async with self._pool.connection() as conn:
                yield conn
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as lost:
            raise StoreUnavailable(f"the database did not answer: {lost}") from lost

    @contextlib.asynccontextmanager
    async def transaction(self, **settings: str) -> AsyncIterator[Connection]:
        """One transaction. `settings` become `cope.<name>` for its duration: what row-level security looks at."""
        async with self.connection() as conn, conn.transaction():
            for name, value in settings.items():
                await conn.execute("SELECT set_config(%s, %s, true)", [f"cope.{name}", value])
            yield conn


@contextlib.asynccontextmanager
async def in_index_order(conn: Connection) -> AsyncIterator[None]:
    """For pages in the order of an index. A batch of a million lines is a surprise to the planner until its rows have
    been analysed: it expects a handful, reads all of them and sorts, for every page."""
    await conn.execute("SET LOCAL enable_sort = off")
    yield
    await conn.execute("SET LOCAL enable_sort = on")


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
