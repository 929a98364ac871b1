"""A batch's lines in the order in which they ended, or of the input: read in pages, never all of them.

The order of completion is `batch_ends`: written with each commit that ends lines, under the batch's row lock. So its
numbers have no gaps, and whoever sees one sees all below it. Every page is a transaction of its own: neither a cursor
nor a snapshot lasts as long as a million lines take to be read.
"""

from collections.abc import AsyncIterator, Sequence

from cope.adapters.postgres.database import Connection, Database, Row, fetch, fetch_one, in_index_order
from cope.adapters.postgres.taskrows import decode_error
from cope.core.ids import BatchId, TaskId
from cope.core.lifecycle import TaskState
from cope.ports.store import ResultLine, ResultWindow

_PAGE_LINES = 500
_PAGE_BYTES = 4 * 1024 * 1024
_GROUP = 1000
LAST_LINE = 2**31 - 1

_ENDED = "state IN ('done', 'failed', 'cancelled', 'expired')"
_OVER = "(b.status IN ('finalizing', 'completed', 'failed', 'expired') OR b.ending IS NOT NULL AND b.ends >= b.total)"

_BY_COMPLETION = f"""
SELECT least(coalesce(b.ends, 0), %(after)s::bigint + %(limit)s)::int AS last, coalesce(b.ends, 0) AS known,
  NOT (coalesce({_OVER}, false) AND b.ends IS NOT NULL AND b.ends <= %(after)s::bigint + %(limit)s) AS incomplete
FROM batches b WHERE b.id = %(id)s AND b.project_id = %(project)s
"""  # noqa: S608

# The finished lines that follow each other without an unfinished one between them.
_BY_INPUT = f"""
SELECT p.last, {LAST_LINE} AS known, NOT coalesce({_OVER}, false) OR b.ends IS NULL OR p.seen > p.taken AS incomplete
FROM batches b, LATERAL (
  SELECT max(line) FILTER (WHERE so_far AND place <= %(limit)s) AS last, count(*) AS seen,
    count(*) FILTER (WHERE so_far AND place <= %(limit)s) AS taken
  FROM (
    SELECT line, bool_and(ended) OVER (ORDER BY line) AS so_far, row_number() OVER (ORDER BY line) AS place FROM (
      SELECT t.line, t.{_ENDED} AS ended FROM tasks t WHERE t.batch_id = b.id AND t.line > %(after)s
      ORDER BY t.line LIMIT %(limit)s + 1) t
  ) w
) p
WHERE b.id = %(id)s AND b.project_id = %(project)s
"""  # noqa: S608

# The groups that hold the next page: those that end within it, and the one after them. A group's array is unpacked once
# (not once for each of its lines), and the tasks are looked up apart, so that no plan can read a whole batch per line.
_NEXT_ENDED = f"""
WITH g AS MATERIALIZED (
  (SELECT upto - cardinality(lines) AS start, lines FROM batch_ends
   WHERE batch_id = %(id)s AND upto > %(after)s AND upto <= %(after)s + {_PAGE_LINES} ORDER BY upto)
  UNION ALL
  (SELECT upto - cardinality(lines), lines FROM batch_ends
   WHERE batch_id = %(id)s AND upto > %(after)s + {_PAGE_LINES} ORDER BY upto LIMIT 1)
)
SELECT (g.start + e.nth)::int AS place, e.line FROM g, unnest(g.lines) WITH ORDINALITY AS e (line, nth)
WHERE g.start + e.nth > %(after)s AND g.start + e.nth <= least(%(last)s, %(after)s + {_PAGE_LINES}) ORDER BY 1
"""  # noqa: S608

_SIZES = """
SELECT line, id, coalesce(octet_length(result), 0) AS size FROM tasks WHERE batch_id = %s AND line = ANY (%s)
"""

_NEXT_IN_INPUT = f"""
SELECT line, id, coalesce(octet_length(result), 0) AS size FROM tasks
WHERE batch_id = %(id)s AND line > %(after)s AND line <= %(last)s AND {_ENDED} ORDER BY line LIMIT {_PAGE_LINES}
"""  # noqa: S608

_BODIES = "SELECT id, custom_id, line, state, status, result, error FROM tasks WHERE id = ANY (%s)"


async def window(
    conn: Connection, project_id: str, batch_id: BatchId, *, after: int, limit: int, by_input: bool
) -> ResultWindow | None:
    """Up to where the next `limit` lines behind `after` have ended; None if there is no such batch."""
    asked = {"id": batch_id, "project": project_id, "after": after, "limit": limit}
    async with in_index_order(conn):
        row = await fetch_one(conn, _BY_INPUT if by_input else _BY_COMPLETION, asked)
    if row is None:
        return None
    last = max(after, row["last"] or 0)
    return ResultWindow(last=last, known=row["known"], incomplete=row["incomplete"])


async def page(conn: Connection, batch_id: BatchId, *, after: int, last: int, by_input: bool) -> list[ResultLine]:
    """The next lines behind `after`, at most to `last`: some hundreds, or as many as have 4 MiB, at least one."""
    asked = {"id": batch_id, "after": after, "last": last}
    if by_input:
        async with in_index_order(conn):
            found = await fetch(conn, _NEXT_IN_INPUT, asked)
        places = {row["line"]: row["line"] for row in found}
    else:
        places = {row["line"]: row["place"] for row in await fetch(conn, _NEXT_ENDED, asked)}
        found = await fetch(conn, _SIZES, [batch_id, list(places)]) if places else []
    chosen: dict[str, int] = {}
    size = 0
    for row in sorted(found, key=lambda row: places[row["line"]]):
        size += row["size"]
        if chosen and size > _PAGE_BYTES:
            break
        chosen[row["id"]] = places[row["line"]]
    rows = {row["id"]: row for row in await fetch(conn, _BODIES, [list(chosen)])} if chosen else {}
    return [_line(rows[task_id], place) for task_id, place in chosen.items() if task_id in rows]


async def all_pages(db: Database, batch_id: BatchId, *, by_input: bool) -> AsyncIterator[Sequence[ResultLine]]:
    """Every line that has ended."""
    after = -1 if by_input else 0
    while True:
        async with db.transaction() as conn:
            lines = await page(conn, batch_id, after=after, last=LAST_LINE, by_input=by_input)
        if not lines:
            return
        yield lines
        after = lines[-1].place


def _line(row: Row, place: int) -> ResultLine:
    return ResultLine(
        task_id=TaskId(row["id"]),
        custom_id=row["custom_id"],
        line=row["line"],
        status=row["status"],
        body=row["result"],
        error=decode_error(row["error"]),
        failed=row["state"] != TaskState.DONE.value,
        place=place,
    )


# ---- lines that no commit numbered: of batches from before, or ended by a worker of an older version ---------------

_NUMBER = f"""
WITH missing AS (
  SELECT t.line, row_number() OVER (ORDER BY t.finished_at, t.line) - 1 AS place
  FROM tasks t LEFT JOIN (SELECT unnest(lines) AS line FROM batch_ends WHERE batch_id = %(id)s) e ON e.line = t.line
  WHERE t.batch_id = %(id)s AND t.{_ENDED} AND e.line IS NULL
), was AS (
  SELECT coalesce(ends, 0) AS ends, project_id FROM batches WHERE id = %(id)s
), put AS (
  INSERT INTO batch_ends (batch_id, upto, project_id, lines)
  SELECT %(id)s, max(was.ends) + max(m.place) + 1, max(was.project_id), array_agg(m.line ORDER BY m.place)
  FROM missing m, was GROUP BY m.place / {_GROUP}
)
UPDATE batches SET ends = (SELECT ends FROM was) + (SELECT count(*) FROM missing) WHERE id = %(id)s
"""  # noqa: S608

_UNNUMBERED = "SELECT id FROM batches WHERE ends IS NULL ORDER BY id DESC LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED"


async def number_lines(conn: Connection, batch_id: str) -> None:
    """Number what has ended and has no number, by its time. The caller holds the batch's row."""
    await conn.execute(_NUMBER, {"id": batch_id})


async def number_one(conn: Connection) -> None:
    """One batch from before there were numbers, the newest first."""
    row = await fetch_one(conn, _UNNUMBERED)
    if row is not None:
        await number_lines(conn, row["id"])
