"""Webhook endpoints of a project: create, list, change, rotate, test, delete, and which events there are."""

from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.bootstrap import ApiParts
from cope.core.errors import BadRequest, NotFound
from cope.core.ids import ENDPOINT, EVENT, DeliveryId, EndpointId, EventId
from cope.core.records import Delivery, WebhookEndpoint
from cope.core.request_values import as_text, as_text_list
from cope.core.webhooks import make_secret
from cope.usecases.deliver_webhooks import signed_request
from cope_api.context import (
    clean_id,
    json_object,
    limit_of,
    list_body,
    only_keys,
    project_of,
    raw_body,
    seconds,
    text_query,
)
from cope_api.failures import json_response
from cope_api.present import endpoint_json

router = APIRouter()
USUAL_TYPES = ("batch.completed", "batch.failed", "batch.expired", "batch.cancelled")
RESPONSE_TYPES = ("response.completed", "response.failed", "response.cancelled", "response.incomplete")
"""Of responses that were asked for with `background`."""
OWN_TYPES = ("budget.alert", "budget.held", "budget.resumed", "budget.overrun")
"""Ours, for endpoints that name them: the stock client's `webhooks.unwrap` takes them for another type."""
EVENT_TYPES = (*USUAL_TYPES, *RESPONSE_TYPES, *OWN_TYPES)


@router.post("/v1/webhook_endpoints")
async def create(request: Request) -> Response:
    """A new endpoint; its signing secret is in this answer and never again."""
    parts, project_id, _ = await project_of(request)
    body = json_object(await raw_body(request))
    only_keys(body, frozenset({"name", "url", "event_types"}))
    url, types = _url(parts, body.get("url")), _types(body.get("event_types", list(USUAL_TYPES)))
    now = parts.clock.now()
    made = await parts.store.create_endpoint(
        WebhookEndpoint(
            id=EndpointId(parts.ids.new(ENDPOINT)),
            project_id=project_id,
            name=as_text(body.get("name", "webhook"), "name", longest=200),
            url=url,
            event_types=types,
            created_at=now,
            updated_at=now,
            secret=make_secret(parts.ids.secret(32)),
        )
    )
    return json_response(endpoint_json(made, with_secret=True))


@router.get("/v1/webhook_endpoints")
async def list_endpoints(request: Request) -> Response:
    """The project's endpoints."""
    parts, project_id, _ = await project_of(request)
    after = text_query(request, "after")
    page = await parts.store.list_endpoints(
        project_id,
        after=None if after is None else EndpointId(after),
        limit=limit_of(request, default=20, most=100),
    )
    items: list[dict[str, Any]] = [endpoint_json(endpoint) for endpoint in page.items]
    return json_response(list_body(items, page.has_more))


@router.get("/v1/webhook_endpoints/{endpoint_id}")
async def retrieve(request: Request, endpoint_id: str) -> Response:
    """One endpoint, without its secret."""
    parts, project_id, _ = await project_of(request)
    endpoint = await parts.store.get_endpoint(project_id, EndpointId(clean_id(endpoint_id)))
    if endpoint is None:
        raise NotFound(f"There is no webhook endpoint {endpoint_id!r}.")
    return json_response(endpoint_json(endpoint))


@router.post("/v1/webhook_endpoints/{endpoint_id}")
async def update(request: Request, endpoint_id: str) -> Response:
    """Change what is given. An endpoint that was disabled is enabled again, whatever is changed."""
    parts, project_id, _ = await project_of(request)
    body = json_object(await raw_body(request))
    only_keys(body, frozenset({"name", "url", "event_types"}))
    changed = await parts.store.update_endpoint(
        project_id,
        EndpointId(clean_id(endpoint_id)),
        name=as_text(body["name"], "name", longest=200) if "name" in body else None,
        url=_url(parts, body["url"]) if "url" in body else None,
        event_types=_types(body["event_types"]) if "event_types" in body else None,
    )
    if changed is None:
        raise NotFound(f"There is no webhook endpoint {endpoint_id!r}.")
    return json_response(endpoint_json(changed))


@router.post("/v1/webhook_endpoints/{endpoint_id}/rotate_secret")
async def rotate_secret(request: Request, endpoint_id: str) -> Response:
    """A new signing secret, in this answer and never again. With `keep_old_secret_active_for_24_hours` every message
    carries both signatures for a day."""
    parts, project_id, _ = await project_of(request)
    raw = await raw_body(request)
    body = json_object(raw) if raw else {}
    only_keys(body, frozenset({"keep_old_secret_active_for_24_hours"}))
    keep = body.get("keep_old_secret_active_for_24_hours", False)
    if not isinstance(keep, bool):
        raise BadRequest(
            "`keep_old_secret_active_for_24_hours` must be true or false.", param="keep_old_secret_active_for_24_hours"
        )
    secret = make_secret(parts.ids.secret(32))
    changed = await parts.store.rotate_secret(project_id, EndpointId(clean_id(endpoint_id)), secret, keep_old=keep)
    if changed is None:
        raise NotFound(f"There is no webhook endpoint {endpoint_id!r}.")
    return json_response(endpoint_json(changed, with_secret=True))


@router.post("/v1/webhook_endpoints/{endpoint_id}/test")
async def send_test(request: Request, endpoint_id: str) -> Response:
    """Send one signed message of this type at once, and say what was answered. It is no event and leaves no trace."""
    parts, project_id, _ = await project_of(request)
    body = json_object(await raw_body(request))
    only_keys(body, frozenset({"event_type"}))
    (type_,) = _types([body.get("event_type")])
    endpoint = await parts.store.get_endpoint(project_id, EndpointId(clean_id(endpoint_id)))
    if endpoint is None:
        raise NotFound(f"There is no webhook endpoint {endpoint_id!r}.")
    now, message_id = parts.clock.now(), EventId(parts.ids.new(EVENT))
    about = {"id": f"{type_.partition('.')[0]}_test"}
    message = {"id": message_id, "object": "event", "created_at": seconds(now), "type": type_, "data": about}
    test = Delivery(
        id=DeliveryId(message_id),
        message_id=message_id,
        url=endpoint.url,
        body=orjson.dumps(message).decode(),
        attempt=1,
        secret=endpoint.secret,
        endpoint_id=endpoint.id,
    )
    reply = await parts.webhooks.send(signed_request(test, now=now))
    return json_response(
        {
            "object": "webhook_endpoint.test",
            "webhook_endpoint_id": endpoint.id,
            "event_type": type_,
            "status_code": reply.status,
            "success": reply.status is not None and 200 <= reply.status < 300,
            "cope": {"error": reply.error, "response_excerpt": reply.excerpt},
        }
    )


def _url(parts: ApiParts, value: object) -> str:
    url = as_text(value, "url", longest=2000)
    reason = parts.webhooks.refuse_reason(url)
    if reason is not None:
        raise BadRequest(f"`url` can't be used: {reason}.", param="url")
    return url


def _types(value: object) -> tuple[str, ...]:
    types = as_text_list(value, "event_types", fewest=1, most=32)
    for one in types:
        if one not in EVENT_TYPES:
            raise BadRequest(f"`event_types` may hold {', '.join(EVENT_TYPES)}.", param="event_types")
    return tuple(dict.fromkeys(types))


@router.delete("/v1/webhook_endpoints/{endpoint_id}")
async def delete(request: Request, endpoint_id: str) -> Response:
    """No further delivery is begun."""
    parts, project_id, _ = await project_of(request)
    if not await parts.store.delete_endpoint(project_id, EndpointId(clean_id(endpoint_id))):
        raise NotFound(f"There is no webhook endpoint {endpoint_id!r}.")
    return json_response({"id": endpoint_id, "object": "webhook_endpoint.deleted", "deleted": True})


@router.get("/v1/webhook_event_types")
async def event_types(request: Request) -> Response:
    """The events an endpoint can ask for."""
    await project_of(request)
    return json_response({"object": "list", "data": list(EVENT_TYPES)})
