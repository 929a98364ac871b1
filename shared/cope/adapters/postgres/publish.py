"""Events that a project's webhook endpoints can subscribe to, beside those of a batch's end."""

from collections.abc import Sequence

from cope.adapters.postgres.database import Connection, fetch
from cope.adapters.postgres.identity import new_ids
from cope.adapters.postgres.journal import Note, write_notes
from cope.core import ids
from cope.core.webhooks import message_body

_WANTED = """
SELECT n.place, e.id, e.url, extract(epoch FROM now())::bigint AS at
FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS n (project_id, type, place)
JOIN webhook_endpoints e ON e.project_id = n.project_id AND n.type = ANY (e.event_types) AND e.disabled_at IS NULL
ORDER BY n.place, e.id
"""

_DELIVER = """
INSERT INTO deliveries (id, project_id, event_id, endpoint_id, url, body)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])
"""


async def publish(conn: Connection, notes: Sequence[Note]) -> None:
    """Write events, and a delivery of each for every endpoint of its project that asked for its type."""
    if not notes:
        return
    event_ids = await write_notes(conn, notes)
    wanted = await fetch(conn, _WANTED, [[note.project_id for note in notes], [note.type for note in notes]])
    if not wanted:
        return
    places = [row["place"] - 1 for row in wanted]
    await conn.execute(
        _DELIVER,
        [
            new_ids(ids.DELIVERY, len(wanted)),
            [notes[place].project_id for place in places],
            [event_ids[place] for place in places],
            [row["id"] for row in wanted],
            [row["url"] for row in wanted],
            [_message(notes[place], event_ids[place], row["at"]) for place, row in zip(places, wanted, strict=True)],
        ],
    )


def _message(note: Note, event_id: str, at: int) -> str:
    about = {"project_id": note.project_id, "batch_id": note.batch_id}
    return message_body(
        event_id=event_id,
        type_=note.type,
        created_at=at,
        about=note.batch_id or note.project_id,
        data={**about, **note.data},
    )
