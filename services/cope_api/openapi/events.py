"""The event log, its consumer groups, and messages that were given up."""

from cope.core.event_types import EVENT_TYPES
from cope_api.openapi.batches import PAGE
from cope_api.openapi.operation import op
from cope_api.openapi.shapes import (
    DELETED,
    ID,
    SECONDS,
    Schema,
    anything,
    array,
    closed,
    const,
    either,
    flag,
    listed,
    named,
    nullable,
    one_of,
    record,
    text,
    whole,
)

_OFFSET = text("An offset of the log, in decimal.", like=r"^[0-9]+$")
EVENT = named(
    "Event",
    record(
        {
            "specversion": const("1.0"),
            "id": ID,
            "source": text(),
            "type": text(),
            "time": text("RFC 3339."),
            "data": anything(),
        },
        "A CloudEvents envelope.",
        optional={"subject": text(), "datacontenttype": text(), "offset": _OFFSET, "partitionkey": text()},
    ),
)
CONSUMER = named(
    "EventConsumer",
    record(
        {
            "id": text("The group's name."),
            "object": const("event_consumer"),
            "committed": _OFFSET,
            "head": _OFFSET,
            "start": _OFFSET,
            "lag": whole("Events that are not committed yet.", low=0),
            "types": nullable(array(text())),
            "generation": whole(low=0),
            "member": nullable(text()),
            "member_until": nullable(SECONDS),
            "created_at": SECONDS,
            "committed_at": SECONDS,
        }
    ),
)
LETTER = named(
    "EventDeadLetter",
    record(
        {
            "id": ID,
            "object": const("event_dead_letter"),
            "event_id": ID,
            "endpoint_id": nullable(ID),
            "url": text(),
            "attempts": whole(low=0),
            "status": nullable(whole()),
            "error": nullable(text()),
            "excerpt": text(),
            "body": text(),
            "created_at": SECONDS,
            "dead_at": nullable(SECONDS),
        },
        "A webhook message that was given up.",
    ),
)
_REPLAYED = record(
    {"object": const("event_dead_letters.replayed"), "ids": array(ID), "count": whole(low=0)},
)
_READ: dict[str, Schema] = {
    "after": text("An offset, `beginning` or `end`: what comes after it is read. Default: the beginning.", low=1),
    "limit": whole("Default 100.", low=1, high=1000),
    "types": text("Names, or families such as `batch.*`, with commas between them.", low=1),
    "batch_id": text(low=1, high=64),
    "wait": whole("Seconds to wait for an event where there is none. Default 0.", low=0, high=60),
}
_PLACE = text("An offset, `beginning` or `end`.", low=1, high=20)
_GROUP = "/v1/event_consumers/{group}"

OPERATIONS = {
    "GET /v1/event_types": op(
        "Events",
        record(
            {
                "object": const("list"),
                "data": array(
                    record({"id": one_of(sorted(EVENT_TYPES)), "object": const("event_type"), "description": text()})
                ),
                "has_more": const(value=False),
            }
        ),
    ),
    "GET /v1/events": op(
        "Events",
        record(
            {
                "object": const("list"),
                "data": array(EVENT),
                "first_id": nullable(text()),
                "last_id": nullable(text()),
                "has_more": flag(),
                "next_after": _OFFSET,
                "start": _OFFSET,
                "head": _OFFSET,
            }
        ),
        query=_READ,
        headers={"last-event-id": text("With `text/event-stream`: go on behind it.")},
        also={
            "text/event-stream": text("`id` is the offset, `event` the type, `data` the envelope."),
            "application/cloudevents-batch+json": array(EVENT),
        },
        errors=(410,),
    ),
    "GET /v1/event_consumers": op(
        "Events",
        record({"object": const("list"), "data": array(CONSUMER), "has_more": const(value=False)}),
    ),
    f"PUT {_GROUP}": op(
        "Events",
        CONSUMER,
        body=closed(
            {},
            optional={
                "start": text("Where a new group begins: an offset, `beginning` or `end`.", low=1, high=20),
                "types": nullable(array(text(low=1), high=100)),
            },
        ),
        body_needed=False,
        errors=(409, 422),
    ),
    f"GET {_GROUP}": op("Events", CONSUMER),
    f"DELETE {_GROUP}": op(
        "Events", record({"id": text(), "object": const("event_consumer.deleted"), "deleted": DELETED})
    ),
    f"GET {_GROUP}/records": op(
        "Events",
        record(
            {
                "object": const("event_records"),
                "group": text(),
                "generation": whole(low=0),
                "data": array(EVENT),
                "has_more": flag(),
                "next_offset": _OFFSET,
                "committed": _OFFSET,
                "head": _OFFSET,
                "gap": nullable(record({"from": _OFFSET, "to": _OFFSET}, "Events that are no longer kept.")),
            }
        ),
        query={
            "max": whole("Default 100.", low=1, high=1000),
            "wait": _READ["wait"],
            "after": _READ["after"],
            "member": text("Whose the group is meanwhile.", low=1, high=100),
            "session": whole("Seconds that it stays so. Default 30.", low=1, high=300),
        },
        errors=(409, 422),
    ),
    f"POST {_GROUP}/offsets": op(
        "Events",
        CONSUMER,
        body=closed({"offset": _OFFSET}, optional={"generation": nullable(whole(low=0, high=2**31 - 1))}),
        errors=(409, 422),
    ),
    f"POST {_GROUP}/positions": op(
        "Events",
        CONSUMER,
        body=either(
            closed({"offset": _PLACE}),
            closed({"timestamp": either(text("With its zone.", low=1), whole("Unix seconds.", low=0, high=2**33 - 1))}),
        ),
        errors=(409, 422),
    ),
    "GET /v1/event_dead_letters": op("Events", listed(LETTER), query={**PAGE, "endpoint_id": text(low=1, high=64)}),
    "GET /v1/event_dead_letters/{delivery_id}": op("Events", LETTER),
    "POST /v1/event_dead_letters/replay": op(
        "Events",
        _REPLAYED,
        body=either(
            closed({"ids": array(text(low=1), low=1, high=1000)}),
            closed({"endpoint_id": text(low=1, high=64)}),
            closed({"all": const(value=True)}),
        ),
        errors=(422,),
    ),
    "POST /v1/event_dead_letters/{delivery_id}/replay": op("Events", _REPLAYED, errors=(422,)),
}
