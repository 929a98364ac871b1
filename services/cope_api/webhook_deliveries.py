"""What became of webhook messages: the log of deliveries, and sending them again."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.core.deliveries import Again, DeliveryRecord, DeliveryState
from cope.core.errors import BadRequest, NotFound
from cope.core.ids import DeliveryId, EndpointId, ProjectId
from cope.core.request_values import as_int, as_text_list
from cope.ports.store import ApiStore
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

router = APIRouter()
_ENDPOINT = "/v1/webhook_endpoints/{endpoint_id}"
_LATEST = 253_402_300_799


@router.get(_ENDPOINT + "/deliveries")
async def list_of_endpoint(request: Request, endpoint_id: str) -> Response:
    """An endpoint's deliveries, newest first; `status` is pending, delivered or dead."""
    parts, project_id, _ = await project_of(request)
    one = await endpoint_or_404(parts.store, project_id, endpoint_id)
    return await _listed(request, parts.store, project_id, one)


@router.get("/v1/webhook_deliveries")
async def list_all(request: Request) -> Response:
    """The project's deliveries, newest first, those to a batch's own `webhook_url` among them."""
    parts, project_id, _ = await project_of(request)
    return await _listed(request, parts.store, project_id, None)


async def _listed(request: Request, store: ApiStore, project_id: ProjectId, endpoint_id: EndpointId | None) -> Response:
    state, after = text_query(request, "status"), text_query(request, "after")
    if state is not None and state not in tuple(DeliveryState):
        raise BadRequest(f"`status` must be one of {', '.join(DeliveryState)}.", param="status")
    limit = limit_of(request, default=20, most=100)
    found = await store.list_deliveries(
        project_id,
        endpoint_id=endpoint_id,
        state=None if state is None else DeliveryState(state),
        after=None if after is None else DeliveryId(after),
        limit=limit + 1,
    )
    return json_response(list_body([_shown(one) for one in found[:limit]], len(found) > limit))


@router.get("/v1/webhook_deliveries/{delivery_id}")
async def retrieve(request: Request, delivery_id: str) -> Response:
    """One delivery: what was sent, and every attempt with the head of its answer."""
    parts, project_id, _ = await project_of(request)
    one = await parts.store.get_delivery(project_id, DeliveryId(clean_id(delivery_id)))
    if one is None:
        raise NotFound(f"There is no webhook delivery {delivery_id!r}.")
    attempts = [
        {
            "attempt": tried.attempt,
            "at": seconds(tried.at),
            "took_ms": tried.took_ms,
            "status_code": tried.status,
            "error": tried.error,
            "response_excerpt": tried.excerpt,
        }
        for tried in one.log
    ]
    return json_response({**_shown(one), "request_body": one.body, "attempts": attempts})


@router.post(_ENDPOINT + "/redeliver")
async def redeliver(request: Request, endpoint_id: str) -> Response:
    """Send again: `delivery_ids`, or everything made from `since` until `until` (Unix seconds) that failed, or with
    `only_failed` false all of it. Message ids stay; what is pending already stays as it is. At most 10,000 a call."""
    parts, project_id, _ = await project_of(request)
    body = json_object(await raw_body(request))
    only_keys(body, frozenset({"delivery_ids", "since", "until", "only_failed"}))
    only_failed = body.get("only_failed", "delivery_ids" not in body)
    if not isinstance(only_failed, bool):
        raise BadRequest("`only_failed` must be true or false.", param="only_failed")
    ids = None
    if "delivery_ids" in body:
        if "since" in body or "until" in body:
            raise BadRequest("Give `delivery_ids`, or `since` and `until`, not both.", param="since")
        ids = tuple(DeliveryId(one) for one in as_text_list(body["delivery_ids"], "delivery_ids", fewest=1, most=1000))
    elif "since" not in body:
        raise BadRequest("Give `delivery_ids`, or `since` (Unix seconds) and perhaps `until`.", param="since")
    since, until = _moment(body, "since"), _moment(body, "until")
    if since is not None and until is not None and since >= until:
        raise BadRequest("`until` must be later than `since`.", param="until")
    one = await endpoint_or_404(parts.store, project_id, endpoint_id)
    count = await parts.store.send_again(project_id, one, Again(ids, since, until, only_failed))
    if count:
        await parts.wake.poke("webhooks")
    return json_response({"object": "webhook_endpoint.redelivery", "webhook_endpoint_id": one, "count": count})


def _moment(body: dict[str, Any], name: str) -> datetime | None:
    return None if name not in body else datetime.fromtimestamp(as_int(body[name], name, low=0, high=_LATEST), UTC)


async def endpoint_or_404(store: ApiStore, project_id: ProjectId, endpoint_id: str) -> EndpointId:
    """The id of an endpoint that this project has. Raises `NotFound`."""
    one = EndpointId(clean_id(endpoint_id))
    if await store.get_endpoint(project_id, one) is None:
        raise NotFound(f"There is no webhook endpoint {endpoint_id!r}.")
    return one


def _shown(one: DeliveryRecord) -> dict[str, Any]:
    return {
        "id": one.id,
        "object": "webhook_delivery",
        "event_id": one.event_id,
        "webhook_endpoint_id": one.endpoint_id,
        "url": one.url,
        "status": one.state.value,
        "attempt_count": one.attempts,
        "next_attempt_at": seconds(one.due_at),
        "created_at": seconds(one.created_at),
        "finished_at": seconds(one.finished_at),
        "last_status_code": one.status,
        "last_error": one.error,
    }
