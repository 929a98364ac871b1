"""A usage export on the disk: its bytes in a temporary file, its rows in a temporary SQLite database.

Memory stays flat whatever the file's size. Everything runs in threads: parsing a million rows takes seconds.
"""

import asyncio
import csv
import io
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from cope.core.errors import BadRequest
from cope.core.ids import TaskId
from cope.core.money import NanoUSD, TokenUsage
from cope.core.reconcile import BilledCall
from cope.core.usage_records import Columns, UnreadableRow, UsageRow, read_header, task_part
from cope.ports.usage_spool import BadRow, Foreign, Loaded

if TYPE_CHECKING:
    from _csv import Reader

_SHOWN = 1000
_TASKS = 500
_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE calls (task TEXT NOT NULL, request_id TEXT NOT NULL, provider_id TEXT UNIQUE, prompt INTEGER NOT NULL,
  cached INTEGER NOT NULL, completion INTEGER NOT NULL, cost INTEGER, line INTEGER NOT NULL, bad INTEGER NOT NULL);
"""
_INSERT = "INSERT OR IGNORE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)"
_INSERT_BAD = "INSERT INTO calls VALUES (?, ?, NULL, 0, 0, 0, 0, ?, 1)"
_GROUPED = """
SELECT task, request_id, count(*), coalesce(sum(cost), 0), sum(prompt), sum(cached), sum(completion),
  sum(cost IS NULL), sum(CASE WHEN cost IS NULL THEN prompt ELSE 0 END),
  sum(CASE WHEN cost IS NULL THEN cached ELSE 0 END), sum(CASE WHEN cost IS NULL THEN completion ELSE 0 END),
  max(provider_id), min(line), max(bad) FROM calls
"""
_PAGE = f"""
{_GROUPED} WHERE task > ? AND task <= (
  SELECT max(task) FROM (SELECT DISTINCT task FROM calls WHERE task > ? ORDER BY task LIMIT {_TASKS}))
GROUP BY task, request_id ORDER BY task, request_id
"""  # noqa: S608
_MENTIONED = "SELECT EXISTS (SELECT 1 FROM calls WHERE task = ? AND (request_id = ? OR substr(request_id, 1, ?) = ?))"


class SqliteSpool:
    """One export. Made, filled, loaded once, asked, closed."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by aclose
        self._rows = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._rows.executescript(_SCHEMA)

    async def write(self, data: bytes) -> None:
        """Append."""
        await asyncio.to_thread(self._file.write, data)

    async def load(self) -> Loaded:
        """Raises `BadRequest` for a header that can't be used."""
        return await asyncio.to_thread(self._load)

    async def tasks(self) -> AsyncIterator[Sequence[tuple[TaskId, Sequence[BilledCall]]]]:
        """Pages of up to 500 tasks."""
        after = ""
        while True:
            page = await asyncio.to_thread(self._fetch, _PAGE, (after, after))
            if not page:
                return
            tasks = groupby(page, key=lambda row: str(row[0]))
            yield [(TaskId(task), [_billed(row) for row in rows]) for task, rows in tasks]
            after = str(page[-1][0])

    async def mentioned(self, request_ids: Sequence[str]) -> set[str]:
        """By the step's id, or that followed by ``-``."""
        return await asyncio.to_thread(self._mentioned, request_ids)

    async def foreign_calls(self, limit: int) -> list[BilledCall]:
        """By what they cost; those told in tokens only come last."""
        query = f"{_GROUPED} WHERE task = '' GROUP BY request_id ORDER BY sum(cost) DESC, request_id LIMIT ?"
        return [_billed(row) for row in await asyncio.to_thread(self._fetch, query, (limit,))]

    async def aclose(self) -> None:
        """Both files are gone."""
        self._rows.close()
        self._file.close()

    def _fetch(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        return self._rows.execute(query, values).fetchall()

    def _mentioned(self, request_ids: Sequence[str]) -> set[str]:
        found = set()
        for request_id in request_ids:
            prefix = f"{request_id}-"
            values = (task_part(request_id) or "", request_id, len(prefix), prefix)
            if self._rows.execute(_MENTIONED, values).fetchone()[0]:
                found.add(request_id)
        return found

    # ---- reading the file ------------------------------------------------------------------------------------------

    def _load(self) -> Loaded:
        self._file.seek(0)
        text = io.TextIOWrapper(self._file, encoding="utf-8-sig", errors="replace", newline="")
        try:
            return self._read(csv.reader(text))
        finally:
            text.detach()

    def _read(self, reader: "Reader") -> Loaded:
        columns = _header(reader)
        rows = repeated = nameless = bad_count = 0
        bad: list[BadRow] = []
        self._rows.execute("BEGIN")
        for line, found in _fields(reader):
            try:
                if isinstance(found, str):
                    raise UnreadableRow(line, found, "")
                row = columns.row(line, found)
                rows += 1
                nameless += not row.request_id
                repeated += not self._insert(row)
            except UnreadableRow as wrong:
                bad_count += 1
                bad.extend([BadRow(line, wrong.message)] if len(bad) < _SHOWN else [])
                self._rows.execute(_INSERT_BAD, (task_part(wrong.request_id) or "", wrong.request_id, line))
        self._rows.execute("COMMIT")
        self._rows.execute("CREATE INDEX by_task ON calls (task, request_id)")
        return Loaded(rows, repeated, nameless, bad_count, tuple(bad), self._foreign())

    def _insert(self, row: UsageRow) -> bool:
        """False for a row that came before. Raises `UnreadableRow` where it then said something else."""
        told = (row.usage.prompt, row.usage.cached, row.usage.completion, row.cost)
        values = (task_part(row.request_id) or "", row.request_id, row.provider_id, *told, row.line)
        if self._rows.execute(_INSERT, values).rowcount:
            return True
        first = self._rows.execute(
            "SELECT request_id, prompt, cached, completion, cost, line FROM calls WHERE provider_id = ?",
            (row.provider_id,),
        ).fetchone()
        if first[:-1] == (row.request_id, *told):
            return False
        # Which of the two is true can't be told: neither step is settled by this file.
        self._rows.execute(_INSERT_BAD, (task_part(first[0]) or "", first[0], row.line))
        message = f"provider_id {row.provider_id} stands in line {first[-1]} with another request id or amount"
        raise UnreadableRow(row.line, message, row.request_id)

    def _foreign(self) -> Foreign:
        ((calls, cost, prompt, cached, completion, unpriced),) = self._rows.execute(
            "SELECT count(*), coalesce(sum(cost), 0), coalesce(sum(prompt), 0), coalesce(sum(cached), 0), "
            "coalesce(sum(completion), 0), coalesce(sum(cost IS NULL), 0) FROM calls WHERE task = '' AND bad = 0"
        )
        return Foreign(calls, NanoUSD(cost), TokenUsage(prompt, cached, completion, 0, calls), unpriced)


def _header(reader: "Reader") -> Columns:
    try:
        names: list[str] = next(reader, [])
    except csv.Error as wrong:
        raise BadRequest(f"The header row can't be read: {wrong}.", param="file", code="invalid_csv") from None
    return read_header(names)


def _fields(reader: "Reader") -> Iterator[tuple[int, list[str] | str]]:
    """Rows with the line that they begin in, or what is wrong with them. Empty lines are passed over."""
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as wrong:
            yield line, f"it is no row of CSV: {wrong}"
            continue
        if any("\n" in field for field in fields):
            # A quote that is never closed swallows the rows behind it: they must not pass for absent.
            yield line, "a quote is opened and closed lines later, or never"
        elif fields:
            yield line, fields


def _billed(row: tuple[object, ...]) -> BilledCall:
    _, request_id, calls, cost, prompt, cached, completion, unpriced, up, uc, uo, provider_id, line, bad = row
    number = [int(str(value)) for value in (calls, cost, prompt, cached, completion, unpriced, up, uc, uo, line)]
    return BilledCall(
        request_id=str(request_id),
        calls=number[0],
        cost=NanoUSD(number[1]),
        usage=TokenUsage(number[2], number[3], number[4], 0, number[0]),
        unpriced=TokenUsage(number[6], number[7], number[8], 0, number[5]),
        provider_id=None if provider_id is None else str(provider_id),
        line=number[9],
        unreadable=bool(bad),
    )
