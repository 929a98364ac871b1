"""Webhook deliveries are claimed by lane: leased by moving `due_at`, which is also when a lost one is due again.

Three statements. The first finds lanes with something due. The second takes an advisory lock on each, or passes it
over: what is under way in a lane must not change between being counted and being added to. The third, with a snapshot
that is younger than the locks, counts and leases.
"""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from cope.adapters.postgres.database import Connection, Row, fetch
from cope.adapters.postgres.identity import new_id
from cope.adapters.postgres.journal import write_notes
from cope.adapters.postgres.sealing import Sealer
from cope.adapters.postgres.webhook_notes import delivery_note
from cope.core.deliveries import DEFAULT_CONCURRENCY
from cope.core.errors import Misconfigured
from cope.core.ids import DeliveryId, EndpointId, EventId
from cope.core.records import Delivery
from cope.core.webhook_lanes import LaneClass, LaneRoom, no_classes

logger = logging.getLogger(__name__)

_ROWS_READ = 200
_LANES_READ = 1000
_PAGES = 10
_CLOSED_AT_ONCE = 1000
_SECRETS_KEPT = 1000

# An endpoint's id has no space; a batch's own address has its project's id, a space and the host.
_LOOK = """
SELECT w.lane, w.last, w.due, e.concurrency, t.lane IS NOT NULL AS troubled, coalesce(b.n, 0) AS busy,
  coalesce(b.elsewhere, false) AS elsewhere,
  coalesce(t.blocked_until > now(), false) AS blocked,
  strpos(w.lane, ' ') = 0 AND (e.id IS NULL OR e.disabled_at IS NOT NULL) AS closed
FROM seen w LEFT JOIN webhook_endpoints e ON e.id = w.lane LEFT JOIN webhook_troubles t ON t.lane = w.lane
LEFT JOIN busy b ON b.lane = w.lane ORDER BY w.place
"""

_BUSY = """busy AS MATERIALIZED (
  SELECT lane, count(*) AS n, bool_or(sending_by IS DISTINCT FROM %(me)s) AS elsewhere FROM deliveries
  WHERE sending_until > now() GROUP BY lane
)"""

# What a crash of the server undoes is claimed, or sent, once more: it need not wait for the disk. And what is due
# changes faster than the planner's statistics: by these settings it walks the indexes whatever it believes.
BY_INDEX = """
SELECT set_config('synchronous_commit', 'off', true), set_config('enable_seqscan', 'off', true),
  set_config('enable_bitmapscan', 'off', true), set_config('enable_hashjoin', 'off', true),
  set_config('enable_mergejoin', 'off', true)
"""

_DUE_FIRST = f"""
WITH read AS MATERIALIZED (
  SELECT lane, due_at, id FROM deliveries WHERE state = 'pending' AND due_at <= now()
  ORDER BY due_at, id LIMIT %(limit)s
), seen AS MATERIALIZED (
  SELECT lane, count(*) AS last, true AS due, min(due_at) AS place FROM read GROUP BY lane
), {_BUSY} {_LOOK}
"""  # noqa: S608

# From one lane to the next by the index, however many rows each has: a lane with a million waiting costs one step.
_DUE_BY_LANE = f"""
WITH RECURSIVE lanes AS (
  (SELECT lane, due_at FROM deliveries WHERE state = 'pending' AND lane > %(after)s ORDER BY lane, due_at LIMIT 1)
  UNION ALL
  SELECT n.lane, n.due_at FROM lanes l CROSS JOIN LATERAL (
    SELECT d.lane, d.due_at FROM deliveries d WHERE d.state = 'pending' AND d.lane > l.lane
    ORDER BY d.lane, d.due_at LIMIT 1) n
), seen AS MATERIALIZED (
  SELECT lane, 0 AS last, due_at <= now() AS due, lane AS place FROM lanes LIMIT %(limit)s
), {_BUSY} {_LOOK}
"""  # noqa: S608

_LOCK = "SELECT lane FROM unnest(%s::text[]) AS w (lane) WHERE pg_try_advisory_xact_lock(hashtextextended(lane, 0))"

_CLAIM = f"""
WITH {_BUSY}, found AS MATERIALIZED (
  SELECT w.lane, w.kind, w.most, w.concurrency, d.id, d.due_at
  FROM unnest(%(lanes)b::text[], %(rooms)b::int[], %(kinds)b::text[], %(limits)b::int[],
    %(concurrencies)b::int[]) AS w (lane, room, kind, most, concurrency)
  LEFT JOIN busy b ON b.lane = w.lane
  CROSS JOIN LATERAL (
    SELECT x.id, x.due_at FROM deliveries x WHERE x.state = 'pending' AND x.lane = w.lane AND x.due_at <= now()
    ORDER BY x.due_at, x.id
    LIMIT least(CASE WHEN b.elsewhere THEN 0 ELSE greatest(0, w.room - coalesce(b.n, 0)) END, w.most, %(turn)s)
    FOR NO KEY UPDATE SKIP LOCKED) d
), in_turns AS (
  SELECT *, row_number() OVER (PARTITION BY lane ORDER BY due_at, id) AS turn FROM found
), ranked AS (
  SELECT id, due_at, most, concurrency, row_number() OVER (PARTITION BY kind ORDER BY turn, due_at, id) AS nth,
    row_number() OVER (ORDER BY turn, due_at, id) AS place FROM in_turns
)
UPDATE deliveries d SET attempt = d.attempt + 1, due_at = now() + %(lease_s)s * interval '1 second',
  sending_until = now() + %(lease_s)s * interval '1 second', sending_by = %(me)s,
  url = coalesce((SELECT e.url FROM webhook_endpoints e WHERE e.id = d.endpoint_id), d.url)
FROM ranked r WHERE d.id = r.id AND r.nth <= r.most AND r.place <= %(limit)s
RETURNING d.id, d.event_id, r.concurrency, d.url, d.body, d.attempt, d.endpoint_id, d.lane, r.due_at AS was_due,
  coalesce((SELECT e.secret FROM webhook_endpoints e WHERE e.id = d.endpoint_id),
           (SELECT p.webhook_secret FROM projects p WHERE p.id = d.project_id)) AS secret,
  ARRAY(SELECT s.secret FROM webhook_old_secrets s WHERE s.endpoint_id = d.endpoint_id AND s.until > now()
        ORDER BY s.until DESC) AS old_secrets
"""  # noqa: S608

_CLOSE = """
UPDATE deliveries d SET state = 'dead', finished_at = now(), sending_until = NULL,
  error = coalesce(d.error, 'not sent: the endpoint is disabled or deleted')
FROM (SELECT id FROM deliveries WHERE state = 'pending' AND lane = ANY (%s) AND due_at <= now()
      ORDER BY id LIMIT %s FOR NO KEY UPDATE SKIP LOCKED) over
WHERE d.id = over.id
RETURNING d.project_id, d.state, d.id, d.endpoint_id, d.event_id, d.attempt, d.status, d.error
"""


class _Lane(NamedTuple):
    """A lane with something due. `most` is how many it may have under way, `limit` what room its class has."""

    row: Row
    kind: LaneClass
    most: int
    limit: int

    @property
    def has_room(self) -> bool:
        free = not self.row["blocked"] and not self.row["elsewhere"]
        return free and self.row["busy"] < self.most and self.limit > 0


def _lanes(seen: Sequence[Row], room: LaneRoom) -> list[_Lane]:
    kinds = [room.kind(row["lane"], troubled=row["troubled"]) for row in seen]
    crowd = Counter(kinds)
    return [
        _Lane(
            row,
            kind,
            room.most(kind, row["concurrency"] or DEFAULT_CONCURRENCY, beside=crowd[kind]),
            room.limits.get(kind, 0),
        )
        for row, kind in zip(seen, kinds, strict=True)
    ]


class Claimer:
    """Claims for one process. Where more is due than one look shows, it goes round all lanes, and remembers where."""

    def __init__(self) -> None:
        self._after = ""
        self._me = new_id("")
        self._opened: dict[str, str] = {}

    async def claim(
        self, conn: Connection, sealer: Sealer, *, limit: int, lease_s: float, room: LaneRoom | None
    ) -> list[Delivery]:
        """Each lane's longest due first, lanes in turns. The secret is the endpoint's, else the project's."""
        room = room or no_classes(limit)
        rows: list[Row] = []
        async for seen in self._due(conn):
            lanes = _lanes(seen, room)
            fit = [one for one in lanes if one.row["closed"] or one.has_room][:limit]
            if len(fit) == limit and self._after:
                self._after = fit[-1].row["lane"]
            if fit:
                rows = await self._take(conn, fit, limit=limit, lease_s=lease_s)
            if rows:
                break
        return [self._delivery(row, sealer) for row in sorted(rows, key=lambda row: (row["was_due"], row["id"]))]

    async def _due(self, conn: Connection) -> AsyncIterator[list[Row]]:
        """Lanes with something due: all of them, or where that is much, page after page round the circle."""
        first = await fetch(conn, _DUE_FIRST, {"limit": _ROWS_READ, "me": self._me})
        if sum(row["last"] for row in first) < _ROWS_READ:
            yield list(first)
            return
        for _ in range(_PAGES):
            from_the_start = not self._after
            seen = await fetch(conn, _DUE_BY_LANE, {"after": self._after, "limit": _LANES_READ, "me": self._me})
            self._after = seen[-1]["lane"] if len(seen) == _LANES_READ else ""
            yield [row for row in seen if row["due"]]
            if from_the_start and not self._after:
                return

    async def _take(self, conn: Connection, fit: Sequence[_Lane], *, limit: int, lease_s: float) -> list[Row]:
        # Of which this process has something in hand, no other takes anything: only the others must be locked.
        mine = {one.row["lane"] for one in fit if one.row["busy"] and not one.row["closed"]}
        free = [one.row["lane"] for one in fit if one.row["lane"] not in mine]
        if free:
            mine |= {row["lane"] for row in await fetch(conn, _LOCK, [free])}
        closed = [one.row["lane"] for one in fit if one.row["closed"] and one.row["lane"] in mine]
        if closed:
            over = await fetch(conn, _CLOSE, [closed, _CLOSED_AT_ONCE])
            await write_notes(conn, [delivery_note(row) for row in over])
        lanes = [one for one in fit if one.row["lane"] in mine and not one.row["closed"]]
        if not lanes:
            return []
        asked = {
            "lanes": [one.row["lane"] for one in lanes],
            "rooms": [one.most for one in lanes],
            "kinds": [one.kind.value for one in lanes],
            "limits": [one.limit for one in lanes],
            "concurrencies": [one.row["concurrency"] or DEFAULT_CONCURRENCY for one in lanes],
            # Rows that are read are locked: no more of each lane than its share, twice over.
            "turn": max(1, 2 * limit // len(lanes)),
            "lease_s": lease_s,
            "limit": limit,
            "me": self._me,
        }
        return list(await fetch(conn, _CLAIM, asked))

    def _delivery(self, row: Row, sealer: Sealer) -> Delivery:
        secrets = [
            opened for sealed in (row["secret"], *row["old_secrets"]) if (opened := self._open(sealer, sealed, row))
        ]
        return Delivery(
            id=DeliveryId(row["id"]),
            message_id=EventId(row["event_id"]),
            url=row["url"],
            body=row["body"],
            attempt=row["attempt"],
            secret=secrets[0] if secrets else "",
            endpoint_id=None if row["endpoint_id"] is None else EndpointId(row["endpoint_id"]),
            old_secrets=tuple(secrets[1:]),
            lane=row["lane"],
            concurrency=row["concurrency"],
        )

    def _open(self, sealer: Sealer, sealed: str, row: Row) -> str | None:
        try:
            if sealed not in self._opened:
                if len(self._opened) >= _SECRETS_KEPT:
                    self._opened.clear()
                self._opened[sealed] = sealer.open(sealed)
            return self._opened[sealed]
        except Misconfigured as wrong:  # one secret that can't be opened must not keep everybody else's messages
            logger.error("webhook delivery %s can't be signed: %s", row["id"], wrong)  # noqa: TRY400 - no traceback needed
            return None
