"""The reading side of the books: what the provider would say was asked, answered, refused and billed.

Reads while the simulator runs, and after it was killed. Every method reads afresh.
"""

import csv
import io
import json
import sqlite3
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tests.paid_api.journal import COLUMNS, Row

CSV_COLUMNS = (
    "request_id", "provider_id", "model", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_usd",
    "created_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Moment:
    """What the window that ends at monotonic `at_s` held, just after a call."""

    at_s: float
    requests: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Used:
    """Shares of what the limits allow over a span (limit x span / window), None for no limit.

    Any stretch as long as the window holds at most one limit, so 1.0 is the most a long span can show; a short one
    that begins with an empty window may show more.
    """

    requests: float | None
    tokens: float | None

    @property
    def binding(self) -> float:
        """The larger of the two: how near the caller came to the limit that binds. 0.0 without limits."""
        return max(self.requests or 0.0, self.tokens or 0.0)


class Books:
    """The books in one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[Row]:
        """Everything, in order of arrival."""
        with self._open() as books:
            found = books.execute(f"SELECT {', '.join(COLUMNS)} FROM calls ORDER BY number, rowid")
            return [_row(values) for values in found]

    def calls(self) -> int:
        """Calls that have ended, refused ones included. A call under way is not in the books yet and not billed."""
        return self._one("SELECT count(DISTINCT number) FROM calls")

    def total_nano(self, *, api_key: str | None = None, client_request_id: str | None = None) -> int:
        """Nano-dollars billed: in all, to a key, or for a client's request id."""
        return self._one(
            "SELECT coalesce(sum(billed_nano), 0) FROM calls "
            "WHERE (?1 IS NULL OR api_key = ?1) AND (?2 IS NULL OR client_request_id = ?2)",
            api_key,
            client_request_id,
        )

    def billed_by_request(self) -> dict[str | None, int]:
        """Nano-dollars billed by the client's request id; None gathers the calls without one."""
        with self._open() as books:
            found = books.execute("SELECT client_request_id, sum(billed_nano) FROM calls WHERE billed GROUP BY 1")
            return {request_id: int(nano) for request_id, nano in found}

    def count_status(self, status: int) -> int:
        """Calls answered with that HTTP status; 429 counts scripted and earned refusals. 0: without any answer."""
        return self._one("SELECT count(DISTINCT number) FROM calls WHERE status = ?", status)

    def by_status(self) -> dict[int, int]:
        """Calls by HTTP status."""
        with self._open() as books:
            return dict(books.execute("SELECT status, count(DISTINCT number) FROM calls GROUP BY status"))

    def refused_by_limits(self) -> int:
        """429s that the caller earned by going over a limit, not those of the script."""
        return self._one("SELECT count(*) FROM calls WHERE status = 429 AND fault IS NULL AND admitted_s IS NULL")

    def duplicates(self, by: Literal["client_request_id", "prompt_hash"] = "client_request_id") -> dict[str, int]:
        """What was billed more than once, and how often. Samples of one prompt share their hash rightly."""
        with self._open() as books:
            found = books.execute(f"SELECT {by} FROM calls WHERE billed AND {by} IS NOT NULL")
            return {value: count for value, count in Counter(value for (value,) in found).items() if count > 1}

    def window_usage(
        self, *, api_key: str | None = None, window_s: float = 60.0, with_refused: bool = False
    ) -> list[Moment]:
        """Requests and tokens in the sliding window after each admitted call.

        `with_refused` counts by arrival what was refused too, each as one request of no tokens: what a caller who
        overshoots asked for. Tokens are as finally charged.
        """
        column = "coalesce(admitted_s, arrived_s)" if with_refused else "admitted_s"
        with self._open() as books:
            found = books.execute(
                f"SELECT {column} AS at, charged_tokens FROM calls "
                "WHERE (?1 IS NULL OR api_key = ?1) AND at IS NOT NULL GROUP BY number ORDER BY at, number",
                (api_key,),
            ).fetchall()
        inside: deque[tuple[float, int]] = deque()
        tokens, moments = 0, []
        for at_s, amount in found:
            inside.append((at_s, amount))
            tokens += amount
            while at_s - inside[0][0] >= window_s:
                tokens -= inside.popleft()[1]
            moments.append(Moment(at_s, len(inside), tokens))
        return moments

    def used(self, since_s: float, until_s: float, *, api_key: str | None = None) -> Used:
        """What share of *one* key's limits was used in a span of monotonic time; the limits are those last set.

        With several keys name one, or divide by their number. Monotonic time is that of `time.monotonic()` in any
        process of this machine.
        """
        with self._open() as books:
            (body,) = books.execute("SELECT body FROM settings ORDER BY rowid DESC LIMIT 1").fetchone()
            requests, tokens = books.execute(
                "SELECT count(*), coalesce(sum(tokens), 0) FROM (SELECT max(charged_tokens) AS tokens FROM calls "
                "WHERE admitted_s >= ? AND admitted_s < ? AND (?3 IS NULL OR api_key = ?3) GROUP BY number)",
                (since_s, until_s, api_key),
            ).fetchone()
        limits: dict[str, Any] = json.loads(body)
        windows = (until_s - since_s) / limits["window_s"]
        return Used(_share(requests, limits["rpm"], windows), _share(tokens, limits["tpm"], windows))

    def csv(self) -> str:
        """The usage records that a provider's page would give: billed calls only, costs in exact dollars."""
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(CSV_COLUMNS)
        for row in self.rows():
            if row.billed:
                whole, nano = divmod(row.billed_nano, 10**9)
                made = datetime.fromtimestamp(row.arrived_at, UTC)
                writer.writerow(
                    (row.client_request_id or "", row.provider_id, row.model, row.prompt_tokens, row.cached_tokens,
                     row.completion_tokens, f"{whole}.{nano:09d}", made.isoformat())
                )  # fmt: skip
        return out.getvalue()

    def _one(self, statement: str, *values: Any) -> int:
        with self._open() as books:
            (number,) = books.execute(statement, values).fetchone()
            return int(number)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # Opened for writing: after a kill -9 the first reader has to finish the write-ahead log's recovery.
        with closing(sqlite3.connect(f"file:{self.path}?mode=rw", uri=True, timeout=10)) as books:
            books.execute("PRAGMA query_only = 1")
            yield books


def _row(values: tuple[Any, ...]) -> Row:
    named = dict(zip(COLUMNS, values, strict=True))
    return Row(**{**named, "stream": bool(named["stream"]), "billed": bool(named["billed"])})


def _share(amount: int, limit: int | None, windows: float) -> float | None:
    return None if limit is None else amount / (limit * windows)
