"""Webhook endpoints of a project: create, list, retrieve, delete, and which events there are."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.core.errors import BadRequest, NotFound
from cope.core.ids import ENDPOINT, EndpointId
from cope.core.records import WebhookEndpoint
from cope.core.request_values import as_text, as_text_list
from cope.core.webhooks import make_secret
from cope_api.context import clean_id, json_object, limit_of, list_body, only_keys, project_of, raw_body, text_query
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
    url = as_text(body.get("url"), "url", longest=2000)
    reason = parts.webhooks.refuse_reason(url)
    if reason is not None:
        raise BadRequest(f"`url` can't be used: {reason}.", param="url")
    types = as_text_list(body.get("event_types", list(USUAL_TYPES)), "event_types", fewest=1, most=32)
    for one in types:
        if one not in EVENT_TYPES:
            raise BadRequest(f"`event_types` may hold {', '.join(EVENT_TYPES)}.", param="event_types")
    now = parts.clock.now()
    made = await parts.store.create_endpoint(
        WebhookEndpoint(
            id=EndpointId(parts.ids.new(ENDPOINT)),
            project_id=project_id,
            name=as_text(body.get("name", "webhook"), "name", longest=200),
            url=url,
            event_types=tuple(dict.fromkeys(types)),
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
