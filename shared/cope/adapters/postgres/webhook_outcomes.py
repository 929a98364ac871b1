"""What became of attempts at webhook deliveries, and of the endpoints that they were made at."""

from collections.abc import Sequence

from cope.adapters.postgres.database import Connection, Row, fetch
from cope.adapters.postgres.journal import write_notes
from cope.adapters.postgres.publish import publish
from cope.adapters.postgres.webhook_notes import delivery_note, disabled_note
from cope.core.deliveries import KEPT_ATTEMPTS, Disabled
from cope.core.records import Delivery
from cope.core.webhooks import to_be_disabled
from cope.ports.store import WebhookOutcome

# A failure of an attempt that lost its lease is not recorded: a later one is under way, or was. A success always is.
# The state is written so that no index of pending rows fits: rows are looked up by id, however few the planner thinks
# are pending.
_RECORD = f"""
UPDATE deliveries d SET
  state = CASE WHEN o.delivered THEN 'delivered' WHEN o.retry_in_s IS NULL THEN 'dead' ELSE 'pending' END,
  due_at = CASE WHEN o.retry_in_s IS NULL THEN d.due_at ELSE now() + o.retry_in_s * interval '1 second' END,
  finished_at = CASE WHEN o.delivered OR o.retry_in_s IS NULL THEN now() END,
  sending_until = NULL, sending_by = NULL, status = o.status, error = o.error, excerpt = o.excerpt,
  log = CASE WHEN jsonb_array_length(d.log) >= {KEPT_ATTEMPTS} THEN d.log - 0 ELSE d.log END || jsonb_build_object(
    'n', d.attempt, 'ms', (extract(epoch FROM clock_timestamp()) * 1000)::bigint, 'took', o.took_ms,
    'status', o.status, 'error', o.error, 'excerpt', o.excerpt)
FROM unnest(%b::text[], %b::bool[], %b::float8[], %b::int[], %b::text[], %b::text[], %b::int[], %b::int[])
  AS o (id, delivered, retry_in_s, status, error, excerpt, attempt, took_ms)
WHERE d.id = o.id AND d.state || '' = 'pending' AND (o.delivered OR o.attempt IS NULL OR o.attempt = d.attempt)
RETURNING d.project_id, d.state, d.id, d.endpoint_id, d.event_id, d.attempt, d.status, d.error, d.lane
"""  # noqa: S608

_LOCK = """
SELECT lane, failing_since, failed_at, now() AS now FROM webhook_troubles WHERE lane = ANY (%s) ORDER BY lane FOR UPDATE
"""

_FAILED = """
INSERT INTO webhook_troubles AS t (lane, project_id, failures, failing_since, failed_at, blocked_until, status, error)
SELECT f.lane, f.project_id, f.failures, now(), now(), now() + f.block_s * interval '1 second', f.status, f.error
FROM unnest(%s::text[], %s::text[], %s::int[], %s::float8[], %s::int[], %s::text[])
  AS f (lane, project_id, failures, block_s, status, error)
ORDER BY f.lane
ON CONFLICT (lane) DO UPDATE SET failures = t.failures + excluded.failures, failed_at = now(),
  blocked_until = greatest(t.blocked_until, excluded.blocked_until), status = excluded.status, error = excluded.error
"""

# What a batch's own address came to is of no use for long: nobody enables it again.
_FORGET = """
DELETE FROM webhook_troubles WHERE failed_at < now() - interval '30 days' AND strpos(lane, ' ') > 0
"""

_DISABLE = """
UPDATE webhook_endpoints SET disabled_at = now(), disabled_reason = %s
WHERE disabled_at IS NULL AND id = ANY (%s) RETURNING project_id, id
"""


_GIVE_BACK = """
UPDATE deliveries d SET due_at = now(), sending_until = NULL, sending_by = NULL, attempt = d.attempt - 1
FROM unnest(%s::text[], %s::int[]) AS g (id, attempt)
WHERE d.id = g.id AND d.attempt = g.attempt AND d.state = 'pending' AND d.sending_until IS NOT NULL
"""


async def give_back_deliveries(conn: Connection, deliveries: Sequence[Delivery]) -> None:
    """Those whose lease was lost are passed over."""
    await conn.execute(_GIVE_BACK, [[one.id for one in deliveries], [one.attempt for one in deliveries]])


async def finish_deliveries(conn: Connection, outcomes: Sequence[WebhookOutcome]) -> None:
    """Unknown and finished deliveries are passed over."""
    told = await fetch(
        conn,
        _RECORD,
        [
            [outcome.delivery_id for outcome in outcomes],
            [outcome.delivered for outcome in outcomes],
            [outcome.retry_in_s for outcome in outcomes],
            [outcome.status for outcome in outcomes],
            [_storable(outcome.error) for outcome in outcomes],
            [_storable(outcome.excerpt) for outcome in outcomes],
            [outcome.attempt for outcome in outcomes],
            [outcome.took_ms for outcome in outcomes],
        ],
    )
    await write_notes(conn, [delivery_note(row) for row in told])
    by_id = {outcome.delivery_id: outcome for outcome in outcomes}
    lanes: dict[str, list[tuple[Row, WebhookOutcome]]] = {}
    for row in told:
        lanes.setdefault(row["lane"], []).append((row, by_id[row["id"]]))
    if lanes:
        await _judge_lanes(conn, lanes)


async def _judge_lanes(conn: Connection, lanes: dict[str, list[tuple[Row, WebhookOutcome]]]) -> None:
    """A success ends a lane's trouble; failures begin or go on with it, and may disable an endpoint."""
    well = sorted(lane for lane, rows in lanes.items() if any(outcome.delivered for _, outcome in rows))
    if well:
        await conn.execute("DELETE FROM webhook_troubles WHERE lane = ANY (%s)", [well])
    gone = [lane for lane, rows in lanes.items() if any(outcome.disable_endpoint for _, outcome in rows)]
    ill = {lane: rows for lane, rows in sorted(lanes.items()) if lane not in well}
    before: dict[str, Row] = {}
    if ill:
        before = {row["lane"]: row for row in await fetch(conn, _LOCK, [list(ill)])}
        await conn.execute(_FAILED, _failures(ill))
        await conn.execute(_FORGET)
    failing = [
        lane
        for lane, row in before.items()
        if lane in ill
        and to_be_disabled(failing_since=row["failing_since"], failed_at=row["failed_at"], now=row["now"])
    ]
    for reason, which in ((Disabled.GONE, gone), (Disabled.FAILING, failing)):
        if which:
            disabled = await fetch(conn, _DISABLE, [reason.value, which])
            await publish(conn, [disabled_note(row, reason.value) for row in disabled])


def _failures(ill: dict[str, list[tuple[Row, WebhookOutcome]]]) -> list[list[object]]:
    columns: list[list[object]] = [[] for _ in range(6)]
    for lane, rows in ill.items():
        row, last = rows[-1]
        blocks = [outcome.block_s for _, outcome in rows if outcome.block_s is not None]
        values = (lane, row["project_id"], len(rows), max(blocks, default=None), last.status, _storable(last.error))
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return columns


def _storable(text: str | None) -> str | None:
    # A customer's server may answer anything; Postgres text takes neither NUL nor a lone surrogate.
    return None if text is None else text.replace("\x00", "").encode("utf-8", "replace").decode()
