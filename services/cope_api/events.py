"""The event log over HTTP: pages, long polls and server-sent events."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, cast

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from cope.bootstrap import ApiParts
from cope.core import cloud_events
from cope.core.errors import BadRequest, CopeError, Gone
from cope.core.event_log import BEGINNING, END, Bounds, EventPage, offset_of
from cope.core.event_types import EVENT_TYPES, types_of
from cope.core.ids import BatchId, ProjectId
from cope.core.records import Event
from cope_api.context import limit_of, project_of, text_query
from cope_api.event_feed import EventFeed
from cope_api.failures import body_of, json_response

router = APIRouter()
LONGEST_WAIT_S = 60
_SEARCH_S = 5.0
_STREAM_PAGE = 500
_RETRY_MS = 3000
HEARTBEAT_S = 15.0
_CHECK_S = 1.0
_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be read, and from where on."""

    project_id: ProjectId
    after: int
    types: frozenset[str] | None
    batch_id: BatchId | None


@router.get("/v1/event_types")
async def event_types(request: Request) -> Response:
    """Every type, and what it says."""
    await project_of(request)
    items = [{"id": name, "object": "event_type", "description": said} for name, said in EVENT_TYPES.items()]
    return json_response({"object": "list", "data": items, "has_more": False})


@router.get("/v1/events")
async def events(request: Request) -> Response:
    """A page of the log, waited for if asked; or, to whoever accepts `text/event-stream`, all that comes."""
    parts, project_id, _ = await project_of(request)
    streams = _STREAM in request.headers.get("accept", "")
    bounds = await parts.store.event_bounds(project_id)
    told = request.headers.get("last-event-id") if streams else None
    batch_id = text_query(request, "batch_id")
    asked = _Asked(
        project_id,
        _place(text_query(request, "after") if told is None else told, bounds),
        types_of((text_query(request, "types") or "").replace(",", " ").split(), "types"),
        None if batch_id is None else BatchId(batch_id),
    )
    feed = feed_of(request)
    if streams:
        return StreamingResponse(
            _stream(request, feed, asked, bounds),
            media_type=_STREAM,
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )
    if asked.after and bounds.missed(asked.after):
        raise Gone(
            f"Events up to {bounds.start - 1} are no longer kept: the log begins at {bounds.start}. Go on with "
            f"`after={bounds.start - 1}`, knowing that {bounds.missed(asked.after)} were missed.",
            code="events_pruned",
        )
    wait_s = whole_query(request, "wait", default=0, most=LONGEST_WAIT_S)
    limit = limit_of(request, default=100, most=1000)
    page = await poll(request, feed, asked, limit=limit, wait_s=wait_s, bounds=bounds)
    return _page_response(request, page, bounds)


def feed_of(request: Request) -> EventFeed:
    """Who waits for events in this process."""
    return cast("EventFeed", request.app.state.event_feed)


def whole_query(request: Request, name: str, *, default: int, most: int) -> int:
    """A query parameter in [0, most]. Raises `BadRequest`."""
    told = request.query_params.get(name)
    if told is None:
        return default
    if not told.isascii() or not told.isdigit() or int(told[:9]) > most:
        raise BadRequest(f"`{name}` must be a whole number from 0 to {most}.", param=name)
    return int(told)


def place_of(text: str, bounds: Bounds, param: str) -> int:
    """An offset, ``beginning`` or ``end``. Raises `BadRequest` for an offset that the log has not come to."""
    if text == BEGINNING:
        return bounds.start - 1
    if text == END:
        return bounds.head
    offset = offset_of(text, param)
    if offset > bounds.head:
        raise BadRequest(
            f"`{param}` is {offset}, but the log ends at {bounds.head}. (Was the database restored from a backup? Then "
            f"begin again, with `{BEGINNING}` or `{END}`.)",
            param=param,
            code="offset_out_of_range",
        )
    return offset


def _place(text: str | None, bounds: Bounds) -> int:
    return 0 if text is None else place_of(text, bounds, "after")


async def poll(
    request: Request, feed: EventFeed, asked: _Asked, *, limit: int, wait_s: float, bounds: Bounds
) -> EventPage:
    """The first page that holds something; what there is after `wait_s` seconds, or once the caller is gone."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    after = asked.after
    with feed.reading(asked.project_id, bounds.head):
        while True:
            page = await feed.read(
                asked.project_id, after=after, limit=limit, types=asked.types, batch_id=asked.batch_id
            )
            after, spent = page.reached, loop.time() - began
            if page.events or (page.has_more and spent >= _SEARCH_S) or (not page.has_more and spent >= wait_s):
                return page
            if not page.has_more:
                await feed.wait(asked.project_id, after, min(wait_s - spent, _CHECK_S))
                if await request.is_disconnected():
                    return page


def asked_for(project_id: ProjectId, after: int, types: frozenset[str] | None) -> _Asked:
    """As `poll` wants it."""
    return _Asked(project_id, after, types, None)


def event_json(event: Event) -> dict[str, Any]:
    """The CloudEvents envelope."""
    return cloud_events.envelope(event, orjson.Fragment(event.data))


def _page_response(request: Request, page: EventPage, bounds: Bounds) -> Response:
    found = [event_json(event) for event in page.events]
    if cloud_events.BATCH in request.headers.get("accept", ""):
        headers = {"x-next-after": str(page.reached), "x-has-more": str(page.has_more).lower()}
        return Response(orjson.dumps(found), 200, headers, f"{cloud_events.BATCH}; charset=utf-8")
    return json_response(
        {
            "object": "list",
            "data": found,
            "first_id": found[0]["id"] if found else None,
            "last_id": found[-1]["id"] if found else None,
            "has_more": page.has_more,
            "next_after": str(page.reached),
            "start": str(bounds.start),
            "head": str(max(page.head, bounds.head)),
        }
    )


async def _stream(request: Request, feed: EventFeed, asked: _Asked, bounds: Bounds) -> AsyncIterator[bytes]:
    """From the place asked for, without end. The key is looked at again with each heartbeat: one that was revoked
    ends its streams."""
    after, loop = asked.after, asyncio.get_running_loop()
    yield f"retry: {_RETRY_MS}\n\n".encode()
    if after and bounds.missed(after):
        yield _gap(after, bounds)
    after = max(after, bounds.start - 1)
    checked = loop.time()
    with feed.reading(asked.project_id, bounds.head):
        while True:
            page = await feed.read(
                asked.project_id, after=after, limit=_STREAM_PAGE, types=asked.types, batch_id=asked.batch_id
            )
            if page.start - 1 > after:  # pruned while it was being read
                yield _gap(after, Bounds(page.start, page.head))
            if page.events:
                yield _frames(page.events)
            elif page.reached > after:
                # A client that comes back need not look through what its filter left out.
                yield f"id: {page.reached}\n\n".encode()
            after = page.reached
            if not page.has_more:
                await feed.wait(asked.project_id, after, max(0.0, checked + HEARTBEAT_S - loop.time()))
            if loop.time() - checked >= HEARTBEAT_S:
                checked = loop.time()
                try:
                    await project_of(request)
                except CopeError as refused:
                    yield _frame(None, "error", body_of(refused.message, status=401, code=refused.code))
                    return
                yield b": nothing new\n\n"


def _frames(found: Iterable[Event]) -> bytes:
    return b"".join(_frame(event.offset, event.type, event_json(event)) for event in found)


def _gap(after: int, bounds: Bounds) -> bytes:
    """Said once, in the place of the events that are no longer kept."""
    said = {"from": str(after + 1), "to": str(bounds.start - 1), "start": str(bounds.start)}
    return _frame(bounds.start - 1, "cope.gap", said)


def _frame(offset: int | None, type_: str, body: dict[str, Any]) -> bytes:
    head = "" if offset is None else f"id: {offset}\n"
    return f"{head}event: {type_}\ndata: ".encode() + orjson.dumps(body) + b"\n\n"


async def open_feed(parts: ApiParts, stack: contextlib.AsyncExitStack) -> EventFeed:
    """The feed, running until the stack is closed."""
    feed = EventFeed(parts)
    task = asyncio.create_task(feed.run())

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)
    return feed
