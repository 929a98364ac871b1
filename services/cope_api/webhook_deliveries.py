"""The log of webhook deliveries: what was sent, what came back, and sending it again."""

from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.bootstrap import ApiParts
from cope.core.deliveries import DeliveryFilter, DeliveryRecord, DeliveryState, Redelivery
from cope.core.errors import BadRequest, Conflict, NotFound
from cope.core.ids import DeliveryId, EndpointId, ProjectId
from cope.core.records import WebhookEndpoint
from cope.core.request_values import as_bool, as_choice, as_int, as_text_list
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
_PATH = "/v1/webhook_deliveries"
_AT_ONCE = 1000
_LATEST_S = 253_402_300_799
# `retrying` is not a state of its own: it is what is pending and has failed before.
_SHOWN = ("pending", "delivered", "dead")


@router.get(_PATH)
async def list_all(request: Request) -> Response:
    """The project's deliveries, newest first, those to batches' own addresses among them."""
    parts, project_id, _ = await project_of(request)
    return await _listed(request, parts, project_id, None)


@router.get(_ENDPOINT + "/deliveries")
async def list_of_endpoint(request: Request, endpoint_id: str) -> Response:
    """One endpoint's deliveries, newest first."""
    parts, project_id, _ = await project_of(request)
    endpoint = await _endpoint(parts, project_id, endpoint_id)
    return await _listed(request, parts, project_id, endpoint.id)


@router.get(_PATH + "/{delivery_id}")
async def retrieve(request: Request, delivery_id: str) -> Response:
    """One delivery with its request and every attempt's answer."""
    parts, project_id, _ = await project_of(request)
    return json_response(_whole(await _delivery(parts, project_id, delivery_id)))


@router.post(_PATH + "/{delivery_id}/redeliver")
async def redeliver_one(request: Request, delivery_id: str) -> Response:
    """Send one again, under the id that it had."""
    parts, project_id, _ = await project_of(request)
    only_keys(json_object(await raw_body(request)), frozenset())
    delivery = await _delivery(parts, project_id, delivery_id)
    if delivery.endpoint_id is not None:
        _enabled(await _endpoint(parts, project_id, delivery.endpoint_id))
    again = await parts.store.redeliver(project_id, None, Redelivery(ids=(delivery.id,)))
    if not again:
        raise Conflict(f"Delivery {delivery_id!r} is being sent at this moment.", code="webhook_delivery_under_way")
    await parts.wake.poke("webhooks")
    return json_response(_whole(await _delivery(parts, project_id, delivery_id)))


@router.post(_ENDPOINT + "/redeliver")
async def redeliver(request: Request, endpoint_id: str) -> Response:
    """Send those of `delivery_ids` again, or those made from `since` to before `until` (Unix seconds): with
    `only_failed`, which is the default, only what was given up or waits for another attempt. 1,000 a call; `after` goes
    on behind the last one."""
    parts, project_id, _ = await project_of(request)
    what = _what(json_object(await raw_body(request)))
    endpoint = _enabled(await _endpoint(parts, project_id, endpoint_id))
    again = await parts.store.redeliver(project_id, endpoint.id, what)
    if again:
        await parts.wake.poke("webhooks")
    return json_response(
        {
            "object": "webhook_endpoint.redelivery",
            "webhook_endpoint_id": endpoint.id,
            "count": len(again),
            "delivery_ids": list(again),
            "last_id": again[-1] if again else None,
            "has_more": what.ids is None and len(again) == what.limit,
        }
    )


def _what(body: dict[str, Any]) -> Redelivery:
    only_keys(body, frozenset({"delivery_ids", "since", "until", "only_failed", "after"}))
    if "delivery_ids" in body:
        if len(body) > 1:
            raise BadRequest("Give `delivery_ids` alone, or a time range.", param="delivery_ids")
        ids = as_text_list(body["delivery_ids"], "delivery_ids", fewest=1, most=_AT_ONCE)
        return Redelivery(ids=tuple(DeliveryId(one) for one in ids))
    if "since" not in body:
        raise BadRequest("Give `delivery_ids`, or a time range from `since` (Unix seconds) on.", param="since")
    since, until = _moment(body["since"], "since"), None
    if body.get("until") is not None:
        until = _moment(body["until"], "until")
        if until <= since:
            raise BadRequest("`until` must be later than `since`.", param="until")
    after = body.get("after")
    return Redelivery(
        since=since,
        until=until,
        only_failed=as_bool(body.get("only_failed", True), "only_failed"),
        after=None if after is None else DeliveryId(as_text_list([after], "after", fewest=1, most=1)[0]),
        limit=_AT_ONCE,
    )


async def _listed(request: Request, parts: ApiParts, project_id: ProjectId, endpoint_id: EndpointId | None) -> Response:
    status, after = text_query(request, "status"), text_query(request, "after")
    which = DeliveryFilter(
        endpoint_id=endpoint_id,
        state=None if status is None else DeliveryState(as_choice(status, "status", _SHOWN)),
        since=_moment_query(request, "since"),
        until=_moment_query(request, "until"),
    )
    limit = limit_of(request, default=20, most=100)
    found = await parts.store.list_deliveries(
        project_id, which, after=None if after is None else DeliveryId(after), limit=limit + 1
    )
    return json_response(list_body([_brief(one) for one in found[:limit]], has_more=len(found) > limit))


async def _delivery(parts: ApiParts, project_id: ProjectId, delivery_id: str) -> DeliveryRecord:
    found = await parts.store.get_delivery(project_id, DeliveryId(clean_id(delivery_id)))
    if found is None:
        raise NotFound(f"There is no webhook delivery {delivery_id!r}.")
    return found


async def _endpoint(parts: ApiParts, project_id: ProjectId, endpoint_id: str) -> WebhookEndpoint:
    endpoint = await parts.store.get_endpoint(project_id, EndpointId(clean_id(endpoint_id)))
    if endpoint is None:
        raise NotFound(f"There is no webhook endpoint {endpoint_id!r}.")
    return endpoint


def _enabled(endpoint: WebhookEndpoint) -> WebhookEndpoint:
    if endpoint.disabled_at is not None:
        raise Conflict(
            f"Webhook endpoint {endpoint.id!r} is disabled ({endpoint.disabled_reason}): enable it first, with POST "
            f'/v1/webhook_endpoints/{endpoint.id} and {{"cope": {{"disabled": false}}}}.',
            code="webhook_endpoint_disabled",
        )
    return endpoint


def _moment(value: object, param: str) -> datetime:
    return datetime.fromtimestamp(as_int(value, param, low=0, high=_LATEST_S), UTC)


def _moment_query(request: Request, name: str) -> datetime | None:
    told = text_query(request, name)
    if told is None:
        return None
    if not told.isascii() or not told.isdigit():
        raise BadRequest(f"`{name}` must be Unix seconds.", param=name)
    return _moment(int(told[:16]), name)


def _brief(one: DeliveryRecord) -> dict[str, Any]:
    last = one.attempts[-1] if one.attempts else None
    return {
        "id": one.id,
        "object": "webhook_delivery",
        "webhook_endpoint_id": one.endpoint_id,
        "event_id": one.event_id,
        "event_type": orjson.loads(one.body)["type"],
        "url": one.url,
        "status": one.state.value,
        "attempts": len(one.attempts),
        "created_at": seconds(one.created_at),
        "finished_at": seconds(one.finished_at),
        "next_attempt_at": seconds(one.next_at),
        "last_attempt": None
        if last is None
        else {
            "at": seconds(last.ended_at),
            "status_code": last.status,
            "error": last.error,
            "latency_ms": last.took_ms,
        },
    }


def _whole(one: DeliveryRecord) -> dict[str, Any]:
    """Without the signature: it would be good for five minutes."""
    return {
        **_brief(one),
        "request": {
            "method": "POST",
            "headers": {"content-type": "application/json", "webhook-id": one.event_id},
            "body": one.body,
        },
        "attempt_log": [
            {
                "attempt": tried.number,
                "at": seconds(tried.ended_at),
                "latency_ms": tried.took_ms,
                "status_code": tried.status,
                "error": tried.error,
                "response_excerpt": tried.excerpt,
            }
            for tried in one.attempts
        ],
    }
