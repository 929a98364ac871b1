"""A receiver of webhooks that fails, stalls and heals, and keeps books: ``python -m tests.faults.webhook_sink``.

What it does hangs on how many requests it has seen, not on the clock, so that every sender meets the same: after
`well` good answers it refuses `fails` requests with 500, holds the next `stalls` of them without ever answering, and is
well from then on.
"""

import asyncio
import contextlib
import json
import sys
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """Requests of each kind; `takes_s` is how long a good answer takes."""

    well: int = 0
    fails: int = 0
    stalls: int = 0
    takes_s: float = 0.0


class Sink:
    """Serves on a free loopback port. `GET` tells the books as JSON; ``POST /plan`` begins new ones."""

    def __init__(self, plan: Plan) -> None:
        self.begin(plan)
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    def begin(self, plan: Plan) -> None:
        """New books."""
        self.plan = plan
        self.seen = self.under_way = self.most_under_way = self.failed = self.stalled = 0
        self.taken: Counter[str] = Counter()
        self.odd: list[str] = []

    async def start(self) -> str:
        """Its address."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/hook"

    async def close(self) -> None:
        """Whoever stalls is let go."""
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def books(self) -> dict[str, object]:
        """What happened so far."""
        return {
            "seen": self.seen,
            "failed": self.failed,
            "stalled": self.stalled,
            "taken": len(self.taken),
            "taken_again": sum(count - 1 for count in self.taken.values()),
            "most_under_way": self.most_under_way,
            "odd": self.odd[:10],
        }

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        # A cancelled handler would be told of in the log by the server of streams.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if first.startswith("GET"):
            _say(writer, 200, json.dumps(self.books()))
        elif first.startswith("POST /plan"):
            self.begin(Plan(**json.loads(body)))
            _say(writer, 200, "{}")
        else:
            _say(writer, await self._take(headers, body, reader), "")
        await writer.drain()
        return headers.get("connection", "").lower() != "close"

    async def _take(self, headers: dict[str, str], body: bytes, reader: asyncio.StreamReader) -> int:
        self.seen += 1
        nth, plan, message_id = self.seen, self.plan, headers["webhook-id"]
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            if message_id != json.loads(body)["id"]:
                self.odd.append(message_id)
            if plan.well < nth <= plan.well + plan.fails:
                self.failed += 1
                return 500
            if 0 < nth - plan.well - plan.fails <= plan.stalls:
                self.stalled += 1
                await reader.read(1)  # until the sender gives up
                raise ConnectionResetError
            if plan.takes_s:
                await asyncio.sleep(plan.takes_s)
            self.taken[message_id] += 1
            return 204
        finally:
            self.under_way -= 1


def _say(writer: asyncio.StreamWriter, status: int, body: str) -> None:
    length = "" if status == 204 else f"content-length: {len(body)}\r\n"
    writer.write(f"HTTP/1.1 {status} X\r\n{length}\r\n{body}".encode())


async def _main() -> None:
    sink = Sink(Plan())
    sys.stdout.write(await sink.start() + "\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)  # until whoever started it is gone
    await sink.close()


if __name__ == "__main__":
    asyncio.run(_main())
