"""Consumer groups: places in the event log that the service keeps for its readers."""

import re
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.core.errors import BadRequest
from cope.core.event_log import Bounds, Consumer, offset_of
from cope.core.event_refusals import busy, unknown
from cope.core.event_types import types_of
from cope.core.request_values import as_int, as_text, as_text_list
from cope_api.context import json_object, only_keys, project_of, raw_body, seconds, text_query
from cope_api.events import LONGEST_WAIT_S, asked_for, event_json, feed_of, place_of, poll, whole_query
from cope_api.failures import json_response

router = APIRouter()
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MOST = 1000
_SESSION_S, _LONGEST_SESSION_S = 30, 300


@router.put("/v1/event_consumers/{group}")
async def put(request: Request, group: str) -> Response:
    """Make a group, or change the filter of one; its place stays. `start` is where a new one begins."""
    parts, project_id, _ = await project_of(request)
    body = json_object(await raw_body(request))
    only_keys(body, frozenset({"start", "types"}))
    if not _NAME.fullmatch(group):
        raise BadRequest("A group's name has 1 to 100 letters, digits, dots, dashes and underscores.", param="group")
    bounds = await parts.store.event_bounds(project_id)
    start = as_text(body.get("start", "beginning"), "start", longest=20)
    types = body.get("types")
    named = () if types is None else as_text_list(types, "types", fewest=0, most=100)
    made = await parts.store.put_consumer(
        project_id, group, types=types_of(named, "types"), committed=place_of(start, bounds, "start")
    )
    return json_response(_consumer_json(made))


@router.get("/v1/event_consumers")
async def list_groups(request: Request) -> Response:
    """All of the project's, by name."""
    parts, project_id, _ = await project_of(request)
    items = [_consumer_json(one) for one in await parts.store.list_consumers(project_id)]
    return json_response({"object": "list", "data": items, "has_more": False})


@router.get("/v1/event_consumers/{group}")
async def retrieve(request: Request, group: str) -> Response:
    """Where it stands: committed, head and lag."""
    _, consumer = await _consumer(request, group)
    return json_response(_consumer_json(consumer))


@router.delete("/v1/event_consumers/{group}")
async def delete(request: Request, group: str) -> Response:
    """Its place is forgotten; the log is not touched."""
    parts, project_id, _ = await project_of(request)
    if not await parts.store.delete_consumer(project_id, _known(group)):
        raise unknown(group)
    return json_response({"id": group, "object": "event_consumer.deleted", "deleted": True})


@router.get("/v1/event_consumers/{group}/records")
async def records(request: Request, group: str) -> Response:
    """What comes after the committed offset (or after `after`, to read ahead). With `member`, the group is that
    member's for `session` seconds from each reading on."""
    parts, project_id, _ = await project_of(request)
    member = text_query(request, "member")
    session_s = whole_query(request, "session", default=_SESSION_S, most=_LONGEST_SESSION_S)
    most = whole_query(request, "max", default=100, most=_MOST)
    wait_s = whole_query(request, "wait", default=0, most=LONGEST_WAIT_S)
    if most < 1:
        raise BadRequest(f"`max` must be a whole number from 1 to {_MOST}.", param="max")
    if member is not None and (not member or session_s < wait_s + 1):
        raise BadRequest(
            "`member` is a name, and its `session` must last longer than `wait`: else it ends while it is waiting.",
            param="session" if member else "member",
        )
    if member is None:
        _, consumer = await _consumer(request, group)
        if consumer.member is not None:
            raise busy(consumer)  # what is read now could not be committed
    else:
        consumer = await parts.store.join_consumer(project_id, _known(group), member=member, session_s=session_s)
    bounds = Bounds(consumer.start, consumer.head)
    ahead = text_query(request, "after")
    after = max(consumer.committed, place_of(ahead, bounds, "after")) if ahead is not None else consumer.committed
    gap = {"from": str(after + 1), "to": str(bounds.start - 1)} if bounds.missed(after) else None
    asked = asked_for(project_id, max(after, bounds.start - 1), consumer.types)
    page = await poll(request, feed_of(request), asked, limit=most, wait_s=wait_s, bounds=bounds)
    return json_response(
        {
            "object": "event_records",
            "group": consumer.name,
            "generation": consumer.generation,
            "data": [event_json(event) for event in page.events],
            "has_more": page.has_more,
            "next_offset": str(page.reached),
            "committed": str(consumer.committed),
            "head": str(max(page.head, bounds.head)),
            "gap": gap,
        }
    )


@router.post("/v1/event_consumers/{group}/offsets")
async def commit(request: Request, group: str) -> Response:
    """The group is done up to `offset`: give the `next_offset` of what was read, and its `generation`."""
    parts, project_id, _ = await project_of(request)
    body = json_object(await raw_body(request))
    only_keys(body, frozenset({"offset", "generation"}))
    generation = body.get("generation")
    done = await parts.store.commit_offset(
        project_id,
        _known(group),
        offset=offset_of(as_text(body.get("offset"), "offset", longest=20), "offset"),
        generation=None if generation is None else as_int(generation, "generation", low=0, high=2**31 - 1),
    )
    return json_response(_consumer_json(done))


@router.post("/v1/event_consumers/{group}/positions")
async def seek(request: Request, group: str) -> Response:
    """Put the group elsewhere, on purpose: to an `offset` (the next record is the one after it; also ``beginning`` and
    ``end``) or a `timestamp` (the next record is the first that was logged then or later)."""
    parts, project_id, _ = await project_of(request)
    body = json_object(await raw_body(request))
    only_keys(body, frozenset({"offset", "timestamp"}))
    if len(body) != 1:
        raise BadRequest("Give `offset` or `timestamp`, and not both.", param="offset")
    if "offset" in body:
        bounds = await parts.store.event_bounds(project_id)
        place = place_of(as_text(body["offset"], "offset", longest=20), bounds, "offset")
    else:
        place = await parts.store.offset_at(project_id, _moment(body["timestamp"]))
    return json_response(_consumer_json(await parts.store.seek_consumer(project_id, _known(group), committed=place)))


async def _consumer(request: Request, group: str) -> tuple[Any, Consumer]:
    parts, project_id, _ = await project_of(request)
    consumer = await parts.store.get_consumer(project_id, _known(group))
    if consumer is None:
        raise unknown(group)
    return parts, consumer


def _known(group: str) -> str:
    """A name that a group may have; no other is looked up."""
    if not _NAME.fullmatch(group):
        raise unknown(group[:100])
    return group


def _moment(value: object) -> datetime:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**33:
        return datetime.fromtimestamp(value, UTC)
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise BadRequest(
            '`timestamp` is written "2026-11-25T08:00:00Z", with its zone, or as whole Unix seconds.', param="timestamp"
        )
    return moment


def _consumer_json(consumer: Consumer) -> dict[str, Any]:
    return {
        "id": consumer.name,
        "object": "event_consumer",
        "committed": str(consumer.committed),
        "head": str(consumer.head),
        "start": str(consumer.start),
        "lag": consumer.lag,
        "types": None if consumer.types is None else sorted(consumer.types),
        "generation": consumer.generation,
        "member": consumer.member,
        "member_until": seconds(consumer.member_until),
        "created_at": seconds(consumer.created_at),
        "committed_at": seconds(consumer.committed_at),
    }
