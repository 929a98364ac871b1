"""Webhook endpoints of a project, as the stock client's `webhooks` manages them, and which events there are."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.bootstrap import ApiParts
from cope.core.deliveries import DEFAULT_CONCURRENCY, MOST_CONCURRENCY
from cope.core.errors import BadRequest, NotFound
from cope.core.ids import ENDPOINT, EVENT, EndpointId
from cope.core.records import WebhookEndpoint
from cope.core.request_values import as_bool, as_choice, as_int, as_mapping, as_text, as_text_list
from cope.core.webhooks import OLD_SECRET_S, make_secret, message_body, signed_headers
from cope.ports.support import WebhookRequest
from cope.ports.webhooks import EndpointChange
from cope_api.context import clean_id, json_object, limit_of, list_body, only_keys, project_of, raw_body, text_query
from cope_api.failures import json_response
from cope_api.present import endpoint_json

router = APIRouter()
USUAL_TYPES = ("batch.completed", "batch.failed", "batch.expired", "batch.cancelled")
RESPONSE_TYPES = ("response.completed", "response.failed", "response.cancelled", "response.incomplete")
"""Of responses that were asked for with `background`."""
OWN_TYPES = (
    *("budget.alert", "budget.held", "budget.resumed", "budget.overrun"),
    "webhook_endpoint.disabled",
)
"""Ours, for endpoints that name them: the stock client's `webhooks.unwrap` takes them for another type."""
EVENT_TYPES = (*USUAL_TYPES, *RESPONSE_TYPES, *OWN_TYPES)
_PATH = "/v1/webhook_endpoints"
_KEYS = frozenset({"name", "url", "event_types", "cope"})


@router.post(_PATH)
async def create(request: Request) -> Response:
    """A new endpoint; its signing secret is in this answer and never again."""
    parts, project_id, _ = await project_of(request)
    body = json_object(await raw_body(request))
    only_keys(body, _KEYS)
    wanted = _wanted(parts, {"event_types": list(USUAL_TYPES), "name": "webhook", **body, "url": body.get("url")})
    assert wanted.url is not None
    assert wanted.name is not None
    assert wanted.event_types is not None
    now = parts.clock.now()
    made = WebhookEndpoint(
        id=EndpointId(parts.ids.new(ENDPOINT)),
        project_id=project_id,
        name=wanted.name,
        url=wanted.url,
        event_types=wanted.event_types,
        created_at=now,
        updated_at=now,
        secret=make_secret(parts.ids.secret(32)),
        concurrency=wanted.concurrency or DEFAULT_CONCURRENCY,
    )
    return json_response(endpoint_json(await parts.store.create_endpoint(made), with_secret=True))


@router.get(_PATH)
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


@router.get(_PATH + "/{endpoint_id}")
async def retrieve(request: Request, endpoint_id: str) -> Response:
    """One endpoint, without its secret."""
    parts, project_id, _ = await project_of(request)
    return json_response(
        endpoint_json(
            _found(endpoint_id, await parts.store.get_endpoint(project_id, EndpointId(clean_id(endpoint_id))))
        )
    )


@router.post(_PATH + "/{endpoint_id}")
async def update(request: Request, endpoint_id: str) -> Response:
    """Change what is given. A `url`, be it the same, enables a disabled endpoint; so does `cope.disabled` false."""
    parts, project_id, _ = await project_of(request)
    body = json_object(await raw_body(request))
    only_keys(body, _KEYS)
    change = _wanted(parts, body)
    changed = await parts.store.update_endpoint(project_id, EndpointId(clean_id(endpoint_id)), change)
    return json_response(endpoint_json(_found(endpoint_id, changed)))


@router.delete(_PATH + "/{endpoint_id}")
async def delete(request: Request, endpoint_id: str) -> Response:
    """No further delivery is begun."""
    parts, project_id, _ = await project_of(request)
    if not await parts.store.delete_endpoint(project_id, EndpointId(clean_id(endpoint_id))):
        raise _unknown(endpoint_id)
    return json_response({"id": endpoint_id, "object": "webhook_endpoint.deleted", "deleted": True})


@router.post(_PATH + "/{endpoint_id}/rotate_secret")
async def rotate_secret(request: Request, endpoint_id: str) -> Response:
    """A new secret, in this answer and never again. With `keep_old_secret_active_for_24_hours` messages are signed by
    the old one too for a day; else it is worth nothing from now on."""
    parts, project_id, _ = await project_of(request)
    body, name = json_object(await raw_body(request)), "keep_old_secret_active_for_24_hours"
    only_keys(body, frozenset({name}))
    keep = as_bool(body.get(name, False), name)
    rotated = await parts.store.rotate_endpoint_secret(
        project_id,
        EndpointId(clean_id(endpoint_id)),
        make_secret(parts.ids.secret(32)),
        keep_old_s=OLD_SECRET_S if keep else None,
    )
    return json_response(endpoint_json(_found(endpoint_id, rotated), with_secret=True))


@router.post(_PATH + "/{endpoint_id}/test")
async def send_sample(request: Request, endpoint_id: str) -> Response:
    """Send a sample now, once. Whatever status the receiver answers is told; no answer is an error. Neither is in the
    log of deliveries, nor counts for or against the endpoint."""
    parts, project_id, _ = await project_of(request)
    body = json_object(await raw_body(request))
    only_keys(body, frozenset({"event_type"}))
    type_ = as_choice(body.get("event_type"), "event_type", EVENT_TYPES)
    endpoint = _found(endpoint_id, await parts.store.get_endpoint(project_id, EndpointId(clean_id(endpoint_id))))
    event_id, now = parts.ids.new(EVENT), int(parts.clock.now().timestamp())
    about = endpoint.id if type_ == "webhook_endpoint.disabled" else f"{type_.split('.')[0]}_sample"
    message = message_body(event_id=event_id, type_=type_, created_at=now, about=about, data={}).encode()
    headers = signed_headers((endpoint.secret,), message_id=event_id, timestamp=now, body=message)
    reply = await parts.webhooks.send(WebhookRequest(endpoint.url, message, headers))
    if reply.status is None:
        raise BadRequest(f"The endpoint did not answer: {reply.error}", code="webhook_endpoint_unreachable")
    return json_response(
        {
            "object": "webhook_endpoint.test",
            "event_type": type_,
            "status_code": reply.status,
            "success": True,
            "webhook_endpoint_id": endpoint.id,
            "cope": {"took_ms": reply.took_ms, "response_excerpt": reply.excerpt},
        }
    )


@router.get("/v1/webhook_event_types")
async def event_types(request: Request) -> Response:
    """The events an endpoint can ask for."""
    await project_of(request)
    return json_response({"object": "list", "data": list(EVENT_TYPES)})


def _wanted(parts: ApiParts, body: Mapping[str, object]) -> EndpointChange:
    """What is given of an endpoint, checked."""
    own = as_mapping(body.get("cope", {}), "cope")
    for key in own:
        if key not in {"concurrency", "disabled"}:
            raise BadRequest(f"Unknown key `cope.{key}`. Known: concurrency, disabled.", param=f"cope.{key}")
    disabled = as_bool(own["disabled"], "cope.disabled") if "disabled" in own else None
    return EndpointChange(
        name=as_text(body["name"], "name", longest=200) if "name" in body else None,
        url=_url(parts, body["url"]) if "url" in body else None,
        event_types=_types(body["event_types"]) if "event_types" in body else None,
        concurrency=as_int(own["concurrency"], "cope.concurrency", low=1, high=MOST_CONCURRENCY)
        if "concurrency" in own
        else None,
        disabled=False if disabled is None and "url" in body else disabled,
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


def _found(endpoint_id: str, endpoint: WebhookEndpoint | None) -> WebhookEndpoint:
    if endpoint is None:
        raise _unknown(endpoint_id)
    return endpoint


def _unknown(endpoint_id: str) -> NotFound:
    return NotFound(f"There is no webhook endpoint {endpoint_id!r}.")
