"""What the event log is told of webhooks. Endpoints can't ask for these events: each would make another."""

from cope.adapters.postgres.database import Row
from cope.adapters.postgres.journal import Note

_TOLD_AS = {"delivered": "delivered", "pending": "retrying", "dead": "dead"}


def delivery_note(row: Row) -> Note:
    """One attempt at a delivery and what it came to."""
    data = {name: row[name] for name in ("id", "endpoint_id", "event_id", "attempt", "status", "error")}
    return Note(row["project_id"], f"webhook_delivery.{_TOLD_AS[row['state']]}", data=data)


def disabled_note(row: Row, reason: str) -> Note:
    """An endpoint that is told nothing more. `reason` is one word: ``gone`` is its own 410."""
    return Note(row["project_id"], "webhook_endpoint.disabled", data={"id": row["id"], "reason": reason})
