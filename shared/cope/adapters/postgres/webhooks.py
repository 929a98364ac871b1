"""Webhook deliveries: a few of each address at a time, leased by moving `due_at`, ended by their outcome."""

from collections.abc import Sequence

from cope.adapters.postgres.database import Connection, Row, fetch
from cope.adapters.postgres.journal import write_notes
from cope.adapters.postgres.sealing import Sealer
from cope.adapters.postgres.webhook_notes import delivery_note, disabled_note
from cope.core.deliveries import AT_ONCE_EACH, AT_ONCE_FAILING, DISABLED_AFTER
from cope.core.ids import DeliveryId, EndpointId, EventId
from cope.core.records import Delivery
from cope.ports.store import WebhookOutcome

_CLAIM_LOCK = 0x686F6F6B

# Each address that has something pending is found by one probe of the index, whatever lies before it in time: ten
# thousand messages for one that is dead hide nobody else's.
_CLAIM = f"""
WITH RECURSIVE addresses AS (
  (SELECT target, endpoint_id FROM deliveries WHERE state = 'pending' ORDER BY target LIMIT 1)
  UNION ALL
  SELECT further.target, further.endpoint_id FROM addresses a CROSS JOIN LATERAL (
    SELECT target, endpoint_id FROM deliveries WHERE state = 'pending' AND target > a.target ORDER BY target LIMIT 1
  ) further
), room AS (
  SELECT a.target, greatest(0, CASE WHEN e.failing_since IS NULL THEN {AT_ONCE_EACH} ELSE {AT_ONCE_FAILING} END - (
    SELECT count(*) FROM deliveries d WHERE d.target = a.target AND d.state = 'pending' AND d.sending_until > now()
  )) AS places
  FROM addresses a LEFT JOIN webhook_endpoints e ON e.id = a.endpoint_id
), due AS (
  SELECT d.id, d.due_at FROM room CROSS JOIN LATERAL (
    SELECT id, due_at FROM deliveries WHERE target = room.target AND state = 'pending' AND due_at <= now()
    ORDER BY due_at, id LIMIT room.places
  ) d ORDER BY d.due_at, d.id LIMIT %(limit)s
), taken AS (
  SELECT id, due_at AS was_due FROM deliveries
  WHERE id IN (SELECT id FROM due) AND state = 'pending' AND due_at <= now() FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE deliveries d SET attempt = d.attempt + 1, due_at = now() + %(lease)s * interval '1 second',
  sending_until = now() + %(lease)s * interval '1 second'
FROM taken LEFT JOIN LATERAL (
  SELECT secret, CASE WHEN previous_until > now() THEN previous_secret END AS older FROM webhook_endpoints e
  JOIN deliveries x ON x.endpoint_id = e.id WHERE x.id = taken.id
) own ON true
WHERE d.id = taken.id
RETURNING d.id, d.event_id, d.url, d.body, d.attempt, d.endpoint_id, taken.was_due, own.older,
  coalesce(own.secret, (SELECT p.webhook_secret FROM projects p WHERE p.id = d.project_id)) AS secret
"""  # noqa: S608 - whole numbers of ours


async def claim_deliveries(conn: Connection, sealer: Sealer, *, limit: int, lease_s: float) -> list[Delivery]:
    """The longest due first, a bounded number to each address. The secret is the endpoint's, else the project's."""
    # Two that claim at once would count the same places as free.
    await conn.execute("SELECT pg_advisory_xact_lock(%s)", [_CLAIM_LOCK])
    rows = await fetch(conn, _CLAIM, {"limit": limit, "lease": lease_s})
    return [_delivery(row, sealer) for row in sorted(rows, key=lambda row: (row["was_due"], row["id"]))]


def _delivery(row: Row, sealer: Sealer) -> Delivery:
    return Delivery(
        id=DeliveryId(row["id"]),
        message_id=EventId(row["event_id"]),
        url=row["url"],
        body=row["body"],
        attempt=row["attempt"],
        secret=sealer.open(row["secret"]),
        older_secret=None if row["older"] is None else sealer.open(row["older"]),
        endpoint_id=None if row["endpoint_id"] is None else EndpointId(row["endpoint_id"]),
    )


_FINISH = """
WITH ended AS (
  UPDATE deliveries d SET
    state = CASE WHEN o.delivered THEN 'delivered' WHEN o.retry_in_s IS NULL THEN 'dead' ELSE 'pending' END,
    due_at = CASE WHEN o.retry_in_s IS NULL THEN d.due_at ELSE now() + o.retry_in_s * interval '1 second' END,
    finished_at = CASE WHEN o.delivered OR o.retry_in_s IS NULL THEN now() END, sending_until = NULL,
    status = o.status, error = o.error, excerpt = o.excerpt
  FROM unnest(%s::text[], %s::bool[], %s::float8[], %s::int[], %s::text[], %s::text[], %s::int[])
    AS o (id, delivered, retry_in_s, status, error, excerpt, took_ms)
  WHERE d.id = o.id AND d.state = 'pending'
  RETURNING d.project_id, d.state, d.id, d.endpoint_id, d.event_id, d.attempt, d.status, d.error, d.excerpt, o.took_ms
), logged AS (
  INSERT INTO delivery_attempts (delivery_id, project_id, attempt, took_ms, status, error, excerpt)
  SELECT id, project_id, attempt, took_ms, status, error, excerpt FROM ended
)
SELECT * FROM ended ORDER BY id
"""

# A success in the same group as failures ends the failing: the order of answers within it is nobody's.
_HEALTH = """
UPDATE webhook_endpoints e SET failing_since = CASE WHEN o.delivered THEN NULL ELSE coalesce(e.failing_since, now()) END
FROM (SELECT endpoint_id, bool_or(delivered) AS delivered
      FROM unnest(%s::text[], %s::bool[]) AS u (endpoint_id, delivered) GROUP BY endpoint_id) o
WHERE e.id = o.endpoint_id AND (e.failing_since IS NULL) <> o.delivered
"""

_DISABLE = """
UPDATE webhook_endpoints SET disabled_at = now(),
  disabled_reason = CASE WHEN id = ANY (%(gone)s) THEN 'gone' ELSE 'failing' END
WHERE disabled_at IS NULL
  AND (id = ANY (%(gone)s) OR (id = ANY (%(failed)s) AND failing_since <= now() - %(after)s))
RETURNING project_id, id, disabled_reason
"""

_GIVE_UP = """
UPDATE deliveries SET state = 'dead', finished_at = now(), sending_until = NULL,
  error = coalesce(error, 'the endpoint is disabled')
WHERE endpoint_id = ANY (%s) AND state = 'pending'
"""


async def finish_deliveries(conn: Connection, outcomes: Sequence[WebhookOutcome]) -> None:
    """Unknown and finished deliveries are passed over."""
    if not outcomes:
        return
    ended = await fetch(
        conn,
        _FINISH,
        [
            [outcome.delivery_id for outcome in outcomes],
            [outcome.delivered for outcome in outcomes],
            [outcome.retry_in_s for outcome in outcomes],
            [outcome.status for outcome in outcomes],
            [None if outcome.error is None else _storable(outcome.error) for outcome in outcomes],
            [_storable(outcome.excerpt) for outcome in outcomes],
            [outcome.took_ms for outcome in outcomes],
        ],
    )
    notes = [delivery_note(row) for row in ended]
    of = {row["id"]: row["endpoint_id"] for row in ended if row["endpoint_id"] is not None}
    mine = [(of[outcome.delivery_id], outcome) for outcome in outcomes if outcome.delivery_id in of]
    if mine:
        await conn.execute(_HEALTH, [[id_ for id_, _ in mine], [outcome.delivered for _, outcome in mine]])
        gone = sorted({id_ for id_, outcome in mine if outcome.disable_endpoint})
        failed = sorted({id_ for id_, outcome in mine if not outcome.delivered})
        disabled = await fetch(conn, _DISABLE, {"gone": gone, "failed": failed, "after": DISABLED_AFTER})
        if disabled:
            await conn.execute(_GIVE_UP, [[row["id"] for row in disabled]])
        notes += [disabled_note(row, row["disabled_reason"]) for row in disabled]
    await write_notes(conn, notes)


def _storable(excerpt: str) -> str:
    # A customer's server may answer anything; Postgres text takes neither NUL nor a lone surrogate.
    return excerpt.replace("\x00", "").encode("utf-8", "replace").decode()
