"""The writing side of the books: rows are durable on disk before a caller hears anything of its call."""

import asyncio
import json
import os
import queue
import sqlite3
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the books: a call, or one of the two bills of a duplicated one.

    `number` counts calls from 1 over the life of the books. `arrived_s` is monotonic (the clock of the limits, the same
    for all processes of this machine), `arrived_at` seconds since 1970. `admitted_s` is monotonic and None for a call
    that was refused before or by the limits. `reserved_tokens` is what the token limit took at admission,
    `charged_tokens` what it counts in the end. `status` is the HTTP status sent, 0 where no answer was. The usage is
    what the bill rests on, not what a lying answer said.
    """

    number: int
    provider_id: str
    arrived_s: float
    arrived_at: float
    admitted_s: float | None
    client_request_id: str | None
    api_key: str
    prompt_hash: str
    model: str
    stream: bool
    fault: str | None
    status: int
    error_code: str | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    billed: bool
    billed_nano: int
    reserved_tokens: int
    charged_tokens: int


COLUMNS = tuple(field.name for field in fields(Row))
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS calls ({", ".join(name if name != "provider_id" else f"{name} PRIMARY KEY" for name in COLUMNS)});
CREATE INDEX IF NOT EXISTS by_request ON calls (client_request_id);
CREATE INDEX IF NOT EXISTS by_time ON calls (admitted_s);
CREATE TABLE IF NOT EXISTS settings (since_s REAL NOT NULL, body TEXT NOT NULL);
"""  # noqa: E501 - our own names
_INSERT = f"INSERT INTO calls VALUES ({', '.join('?' * len(COLUMNS))})"
Waiting = tuple[tuple[Row, ...], "asyncio.Future[None]"]


class Journal:
    """Appends rows from a thread of its own, many to a commit. Make and use it in one event loop."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._books = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 4000", "busy_timeout = 10000"):
            self._books.execute(f"PRAGMA {pragma}")
        self._books.executescript(_SCHEMA)
        self._thread = threading.Thread(target=self._write_or_die, name="books")
        self._thread.start()

    def last_number(self) -> int:
        """The number of the latest call in the books, 0 for none. Before the first `append`."""
        (number,) = self._books.execute("SELECT coalesce(max(number), 0) FROM calls").fetchone()
        return int(number)

    def admitted_since(self, since_s: float) -> list[tuple[str, float, int]]:
        """Key, time and charge of the calls admitted after a monotonic time, in order. Before the first `append`."""
        rows = self._books.execute(
            "SELECT api_key, admitted_s, charged_tokens FROM calls WHERE admitted_s > ? AND admitted_s <= ? "
            "GROUP BY number ORDER BY admitted_s",
            (since_s, time.monotonic()),  # a row from "the future" is from before the machine's last start
        )
        return [(str(key), float(at), int(tokens)) for key, at, tokens in rows]

    def settings(self, body: Mapping[str, Any]) -> None:
        """Note the limits that hold from now on. Blocks for one write; rare."""
        self._books.execute("INSERT INTO settings VALUES (?, ?)", (time.monotonic(), json.dumps(dict(body))))

    async def append(self, *rows: Row) -> None:
        """Returns when the rows are on the disk, together or not at all."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._queue.put((rows, done))
        await asyncio.shield(done)

    def close(self) -> None:
        """Write what is queued and end the thread."""
        self._queue.put(None)
        self._thread.join()
        self._books.close()

    def _write_or_die(self) -> None:
        try:
            self._write()
        except BaseException:
            traceback.print_exc()
            os._exit(3)  # books that can't be written must not go on answering

    def _write(self) -> None:
        going = True
        while going:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            going = None not in batch
            written = [waiting for waiting in batch if waiting is not None]
            self._books.execute("BEGIN IMMEDIATE")
            self._books.executemany(_INSERT, [astuple(row) for rows, _ in written for row in rows])
            self._books.execute("COMMIT")
            if written and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(_tell, [done for _, done in written])


def _tell(waiting: "list[asyncio.Future[None]]") -> None:
    for done in waiting:
        if not done.done():
            done.set_result(None)
