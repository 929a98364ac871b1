"""Events, written unsequenced, and the webhook deliveries that a batch's end makes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from cope.adapters.postgres.database import Connection, fetch
from cope.adapters.postgres.identity import new_id, new_ids
from cope.core import ids
from cope.core.webhooks import message_body


@dataclass(frozen=True, slots=True)
class Note:
    """An event to write. `data` without its None values becomes the event's JSON."""

    project_id: str
    type: str
    batch_id: str | None = None
    task_id: str | None = None
    data: Mapping[str, str | int | None] = field(default_factory=dict)


async def write_notes(conn: Connection, notes: Sequence[Note]) -> list[str]:
    """Write events in this order; the sequencer gives them their offsets later. Returns their ids."""
    if not notes:
        return []
    event_ids = new_ids(ids.EVENT, len(notes))
    await conn.execute(
        """
        INSERT INTO events (id, project_id, batch_id, task_id, type, data)
        SELECT id, project_id, batch_id, task_id, type, data
        FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[]) WITH ORDINALITY
          AS n (id, project_id, batch_id, task_id, type, data, place)
        ORDER BY place
        """,
        [
            event_ids,
            [note.project_id for note in notes],
            [note.batch_id for note in notes],
            [note.task_id for note in notes],
            [note.type for note in notes],
            [_json(note.data) for note in notes],
        ],
    )
    return event_ids


async def note_and_deliver(conn: Connection, *, project_id: str, batch_id: str, status: str, url: str | None) -> None:
    """The event of a batch's end, and a delivery for each endpoint that asked for it and for the batch's own `url`.

    Secrets stay where they are sealed: a delivery looks its own up when it is claimed.
    """
    type_ = f"batch.{status}"
    (event_id,) = await write_notes(conn, [Note(project_id, type_, batch_id, data={"id": batch_id})])
    wanted = await fetch(
        conn,
        """
        SELECT id, url, extract(epoch FROM now())::bigint AS at FROM webhook_endpoints
        WHERE project_id = %s AND %s = ANY (event_types) AND disabled_at IS NULL
        UNION ALL SELECT NULL, %s::text, extract(epoch FROM now())::bigint WHERE %s::text IS NOT NULL
        """,
        [project_id, type_, url, url],
    )
    for address in wanted:
        message = message_body(event_id=event_id, type_=type_, created_at=address["at"], about=batch_id, data={})
        await conn.execute(
            "INSERT INTO deliveries (id, project_id, event_id, endpoint_id, url, body) VALUES (%s, %s, %s, %s, %s, %s)",
            [
                new_id(ids.DELIVERY),
                project_id,
                event_id,
                address["id"],
                address["url"],
                message,
            ],
        )


def _json(data: Mapping[str, str | int | None]) -> str:
    return orjson.dumps({key: value for key, value in data.items() if value is not None}).decode()
