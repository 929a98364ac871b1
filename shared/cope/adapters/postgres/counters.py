"""Batch counters: every change of a transaction becomes one row of one UPDATE.

The lines that ended are numbered in the same statement, under the batch's lock, which is held until the commit: a line
of a lower number is always there for whoever sees a higher one.

Held time does not count: a batch stands still while any of its tasks is held, it is paused or its project does not
work.
`held_since` says since when; when it goes on, `expires_at` moves by that long.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from cope.adapters.postgres.database import Connection
from cope.adapters.postgres.identity import new_ids
from cope.core import ids
from cope.core.lifecycle import HoldReason
from cope.core.money import TokenUsage
from cope.core.parse_watch import WATCHED_LINES

LONGEST_MESSAGE = 500

HELD_COLUMNS = {
    HoldReason.BUDGET: "held_budget",
    HoldReason.PROVIDER_QUOTA: "held_quota",
    HoldReason.PAUSED: "held_paused",
    HoldReason.UNPARSABLE: "held_unparsable",
}


@dataclass(slots=True)
class BatchDelta:
    """What a transaction adds to one batch's counters."""

    project_id: str
    done: int = 0
    failed: int = 0
    stages: Counter[int] = field(default_factory=Counter)
    held: Counter[HoldReason] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)
    lines: list[int] = field(default_factory=list)
    at_large: int = 0
    small_steps: int = 0
    large_steps: int = 0
    spent: int = 0
    judged: int = 0
    parsed: int = 0
    usage: TokenUsage = field(default_factory=TokenUsage)


class BatchDeltas:
    """The deltas of one transaction, by batch. A task without a batch (a live call) counts nowhere."""

    def __init__(self) -> None:
        self._by_batch: dict[str, BatchDelta] = {}

    def of(self, batch_id: str | None, project_id: str) -> BatchDelta:
        """The delta to add to."""
        if batch_id is None:
            return BatchDelta(project_id)
        return self._by_batch.setdefault(batch_id, BatchDelta(project_id))

    def touch(self, batches: Iterable[tuple[str, str]]) -> None:
        """Have these (batch, project) looked at again though nothing of them was counted."""
        for batch_id, project_id in batches:
            self.of(batch_id, project_id)

    @property
    def batch_ids(self) -> list[str]:
        """Those touched, in locking order."""
        return sorted(self._by_batch)

    async def lock(self, conn: Connection) -> None:
        """Lock the rows in order. One row needs no order: its UPDATE locks it."""
        if len(self._by_batch) > 1:
            await conn.execute(
                "SELECT FROM batches WHERE id = ANY (%s) ORDER BY id FOR NO KEY UPDATE", [self.batch_ids]
            )

    async def write(self, conn: Connection) -> None:
        """Add them up; the last task of a batch moves it to `finalizing`, with an event."""
        if not self._by_batch:
            return
        rows = [(batch_id, self._by_batch[batch_id]) for batch_id in self.batch_ids]
        await conn.execute(_ADD, [[batch_id for batch_id, _ in rows], new_ids(ids.EVENT, len(rows)), *_columns(rows)])
        errors = [
            (batch_id, code, delta.project_id, count, delta.messages.get(code, "")[:LONGEST_MESSAGE] or None)
            for batch_id, delta in rows
            for code, count in delta.errors.items()
        ]
        if errors:
            await conn.execute(_ADD_ERRORS, [list(column) for column in zip(*errors, strict=True)])


def _columns(rows: list[tuple[str, BatchDelta]]) -> list[list[str] | list[int]]:
    columns: dict[str, list[int]] = defaultdict(list)
    for _, delta in rows:
        columns["done"].append(delta.done)
        columns["failed"].append(delta.failed)
        for stage in (1, 2, 3):
            columns[f"stage{stage}"].append(delta.stages[stage])
        for reason, name in HELD_COLUMNS.items():
            columns[name].append(delta.held[reason])
        columns["spent"].append(delta.spent)
        columns["prompt"].append(delta.usage.prompt)
        columns["cached"].append(delta.usage.cached)
        columns["completion"].append(delta.usage.completion)
        columns["reasoning"].append(delta.usage.reasoning)
        columns["judged"].append(delta.judged)
        columns["parsed"].append(delta.parsed)
        columns["at_large"].append(delta.at_large)
        columns["small_steps"].append(delta.small_steps)
        columns["large_steps"].append(delta.large_steps)
    # An array of arrays can't be taken apart by rows, so each batch's lines come as text.
    lines = [f"{{{','.join(map(str, delta.lines))}}}" for _, delta in rows]
    return [[delta.project_id for _, delta in rows], *columns.values(), lines]


_ADD = f"""
WITH d AS (
  SELECT n.*, p.paused OR p.archived_at IS NOT NULL AS stopped, p.pause_unparsable
  FROM unnest(%s::text[], %s::text[], %s::text[], %s::int[], %s::int[], %s::int[], %s::int[], %s::int[],
              %s::int[], %s::int[], %s::int[], %s::int[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
              %s::bigint[], %s::int[], %s::int[], %s::int[], %s::int[], %s::int[], %b::text[])
    AS n (id, event_id, project_id, done, failed, stage1, stage2, stage3, held_budget, held_quota, held_paused,
          held_unparsable, spent, prompt, cached, completion, reasoning, judged, parsed, at_large, small_steps,
          large_steps, lines)
  JOIN projects p ON p.id = n.project_id
), added AS (
  UPDATE batches b SET
    done = b.done + d.done, failed = b.failed + d.failed,
    stage1 = b.stage1 + d.stage1, stage2 = b.stage2 + d.stage2, stage3 = b.stage3 + d.stage3,
    held_budget = b.held_budget + d.held_budget, held_quota = b.held_quota + d.held_quota,
    held_paused = b.held_paused + d.held_paused, held_unparsable = b.held_unparsable + d.held_unparsable,
    spent = b.spent + d.spent,
    prompt_tokens = b.prompt_tokens + d.prompt, cached_tokens = b.cached_tokens + d.cached,
    completion_tokens = b.completion_tokens + d.completion, reasoning_tokens = b.reasoning_tokens + d.reasoning,
    judged = b.judged + d.judged, parsed = b.parsed + d.parsed,
    ends = b.ends + cardinality(d.lines::int[]), at_large = b.at_large + d.at_large,
    small_steps = b.small_steps + d.small_steps, large_steps = b.large_steps + d.large_steps,
    parse_watch = CASE WHEN b.parse_watch <> 'watching' OR b.judged + d.judged < {WATCHED_LINES} THEN b.parse_watch
                  WHEN d.pause_unparsable AND 2 * (b.parsed + d.parsed) < b.judged + d.judged THEN 'paused'
                  ELSE 'passed' END,
    paused_at = CASE WHEN b.parse_watch = 'watching' AND b.judged + d.judged >= {WATCHED_LINES} AND d.pause_unparsable
                       AND 2 * (b.parsed + d.parsed) < b.judged + d.judged
                THEN now() ELSE b.paused_at END,
    status = CASE WHEN b.status = 'in_progress' AND b.done + d.done + b.failed + d.failed >= b.total AND NOT b.open
             THEN 'finalizing' ELSE b.status END,
    finalizing_at = CASE WHEN b.status = 'in_progress' AND b.done + d.done + b.failed + d.failed >= b.total
                      AND NOT b.open THEN now() ELSE b.finalizing_at END,
    held_since = CASE WHEN b.status = 'in_progress' AND b.ending IS NULL AND (d.stopped
      OR b.paused OR b.held_budget + b.held_quota + b.held_paused + b.held_unparsable
       + d.held_budget + d.held_quota + d.held_paused + d.held_unparsable > 0)
      THEN coalesce(b.held_since, now()) END,
    expires_at = CASE WHEN b.held_since IS NULL OR (b.status = 'in_progress' AND b.ending IS NULL AND (d.stopped
      OR b.paused OR b.held_budget + b.held_quota + b.held_paused + b.held_unparsable
       + d.held_budget + d.held_quota + d.held_paused + d.held_unparsable > 0))
      THEN b.expires_at ELSE b.expires_at + (now() - b.held_since) END
  FROM d WHERE b.id = d.id
  RETURNING b.id, b.project_id, d.event_id, b.status = 'finalizing' AND b.finalizing_at = now() AS ended,
    b.parse_watch = 'paused' AND b.paused_at = now() AS pauses, b.ends, d.lines
), numbered AS (
  INSERT INTO batch_ends (batch_id, upto, project_id, lines)
  SELECT id, ends, project_id, lines::int[] FROM added WHERE ends IS NOT NULL AND lines <> '{{}}'
)
INSERT INTO events (id, project_id, batch_id, type, data)
SELECT event_id, project_id, id, CASE WHEN ended THEN 'batch.finalizing' ELSE 'batch.paused' END,
  CASE WHEN ended THEN '{{"id":"' || id || '"}}' ELSE '{{"id":"' || id || '","reason":"unparsable"}}' END
FROM added WHERE ended OR pauses
"""  # noqa: S608

_ADD_ERRORS = """
INSERT INTO batch_errors AS e (batch_id, code, project_id, count, message)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[])
ON CONFLICT (batch_id, code) DO UPDATE SET count = e.count + excluded.count,
  message = coalesce(e.message, excluded.message)
"""
