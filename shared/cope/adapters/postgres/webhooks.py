"""Webhook deliveries: leased by moving `due_at`, ended by their outcome."""

from collections.abc import Sequence

from cope.adapters.postgres.database import Connection, fetch
from cope.adapters.postgres.journal import write_notes
from cope.adapters.postgres.sealing import Sealer
from cope.adapters.postgres.webhook_notes import delivery_note, disabled_note
from cope.core.ids import DeliveryId, EndpointId, EventId
from cope.core.records import Delivery
from cope.ports.store import WebhookOutcome


async def claim_deliveries(conn: Connection, sealer: Sealer, *, limit: int, lease_s: float) -> list[Delivery]:
    """The longest due first; `attempt` counts from 1. The secret is the endpoint's, else the project's."""
    rows = await fetch(
        conn,
        """
        UPDATE deliveries d SET attempt = d.attempt + 1, due_at = now() + %s * interval '1 second'
        FROM (SELECT id, due_at AS was_due FROM deliveries WHERE state = 'pending' AND due_at <= now()
              ORDER BY due_at, id LIMIT %s FOR NO KEY UPDATE SKIP LOCKED) due
        WHERE d.id = due.id
        RETURNING d.id, d.event_id, d.url, d.body, d.attempt, d.endpoint_id, due.was_due,
          coalesce((SELECT e.secret FROM webhook_endpoints e WHERE e.id = d.endpoint_id),
                   (SELECT p.webhook_secret FROM projects p WHERE p.id = d.project_id)) AS secret
        """,
        [lease_s, limit],
    )
    return [
        Delivery(
            id=DeliveryId(row["id"]),
            message_id=EventId(row["event_id"]),
            url=row["url"],
            body=row["body"],
            attempt=row["attempt"],
            secret=sealer.open(row["secret"]),
            endpoint_id=None if row["endpoint_id"] is None else EndpointId(row["endpoint_id"]),
        )
        for row in sorted(rows, key=lambda row: (row["was_due"], row["id"]))
    ]


async def finish_deliveries(conn: Connection, outcomes: Sequence[WebhookOutcome]) -> None:
    """Unknown and finished deliveries are passed over."""
    if not outcomes:
        return
    told = await fetch(
        conn,
        """
        UPDATE deliveries d SET
          state = CASE WHEN o.delivered THEN 'delivered' WHEN o.retry_in_s IS NULL THEN 'dead' ELSE 'pending' END,
          due_at = CASE WHEN o.retry_in_s IS NULL THEN d.due_at ELSE now() + o.retry_in_s * interval '1 second' END,
          finished_at = CASE WHEN o.delivered OR o.retry_in_s IS NULL THEN now() END,
          status = o.status, error = o.error, excerpt = o.excerpt
        FROM unnest(%s::text[], %s::bool[], %s::float8[], %s::int[], %s::text[], %s::text[])
          AS o (id, delivered, retry_in_s, status, error, excerpt)
        WHERE d.id = o.id AND d.state = 'pending'
        RETURNING d.project_id, d.state, d.id, d.endpoint_id, d.event_id, d.attempt, d.status, d.error
        """,
        [
            [outcome.delivery_id for outcome in outcomes],
            [outcome.delivered for outcome in outcomes],
            [outcome.retry_in_s for outcome in outcomes],
            [outcome.status for outcome in outcomes],
            [outcome.error for outcome in outcomes],
            [_storable(outcome.excerpt) for outcome in outcomes],
        ],
    )
    await write_notes(conn, [delivery_note(row) for row in told])
    gone = [outcome.delivery_id for outcome in outcomes if outcome.disable_endpoint]
    if gone:
        disabled = await fetch(
            conn,
            """
            UPDATE webhook_endpoints SET disabled_at = now()
            WHERE disabled_at IS NULL AND id IN (SELECT endpoint_id FROM deliveries WHERE id = ANY (%s))
            RETURNING project_id, id
            """,
            [gone],
        )
        await write_notes(conn, [disabled_note(row, "gone") for row in disabled])


def _storable(excerpt: str) -> str:
    # A customer's server may answer anything; Postgres text takes neither NUL nor a lone surrogate.
    return excerpt.replace("\x00", "").encode("utf-8", "replace").decode()
