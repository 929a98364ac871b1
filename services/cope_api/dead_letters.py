"""Webhook messages that were given up: looked at, and sent again."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.core.errors import BadRequest, Conflict, NotFound
from cope.core.event_log import DeadLetter
from cope.core.ids import DeliveryId, EndpointId
from cope.core.request_values import as_text, as_text_list
from cope_api.context import clean_id, json_object, limit_of, list_body, only_keys, project_of, raw_body, seconds
from cope_api.context import text_query as text
from cope_api.failures import json_response

router = APIRouter()
_PATH = "/v1/event_dead_letters"


@router.get(_PATH)
async def list_letters(request: Request) -> Response:
    """Oldest first."""
    parts, project_id, _ = await project_of(request)
    after, endpoint = text(request, "after"), text(request, "endpoint_id")
    limit = limit_of(request, default=20, most=100)
    found = await parts.store.list_dead_letters(
        project_id,
        endpoint_id=None if endpoint is None else EndpointId(endpoint),
        after=None if after is None else DeliveryId(after),
        limit=limit + 1,
    )
    return json_response(list_body([_letter_json(one) for one in found[:limit]], has_more=len(found) > limit))


@router.get(_PATH + "/{delivery_id}")
async def retrieve(request: Request, delivery_id: str) -> Response:
    """One of them."""
    parts, project_id, _ = await project_of(request)
    letter = await parts.store.get_dead_letter(project_id, DeliveryId(clean_id(delivery_id)))
    if letter is None:
        raise NotFound(f"There is no dead letter {delivery_id!r}.")
    return json_response(_letter_json(letter))


@router.post(_PATH + "/replay")
async def replay(request: Request) -> Response:
    """Send those of `ids` again, or all of `endpoint_id`, or with ``"all": true`` everybody's: up to 1,000 a call."""
    parts, project_id, _ = await project_of(request)
    body = json_object(await raw_body(request))
    only_keys(body, frozenset({"ids", "endpoint_id", "all"}))
    if len(body) != 1 or body.get("all", True) is not True:
        raise BadRequest('Give one of `ids`, `endpoint_id` and `"all": true`.', param="ids")
    ids = endpoint = None
    if "ids" in body:
        ids = [DeliveryId(one) for one in as_text_list(body["ids"], "ids", fewest=1, most=1000)]
    if "endpoint_id" in body:
        endpoint = EndpointId(as_text(body["endpoint_id"], "endpoint_id", longest=64))
    again = await parts.store.replay_dead_letters(project_id, ids=ids, endpoint_id=endpoint)
    if again:
        await parts.wake.poke("webhooks")
    return json_response({"object": "event_dead_letters.replayed", "ids": list(again), "count": len(again)})


@router.post(_PATH + "/{delivery_id}/replay")
async def replay_one(request: Request, delivery_id: str) -> Response:
    """Send one again, under the message id that it had."""
    parts, project_id, _ = await project_of(request)
    one = DeliveryId(clean_id(delivery_id))
    again = await parts.store.replay_dead_letters(project_id, ids=[one], endpoint_id=None)
    if again:
        await parts.wake.poke("webhooks")
        return json_response({"object": "event_dead_letters.replayed", "ids": list(again), "count": 1})
    if await parts.store.get_dead_letter(project_id, one) is not None:
        raise Conflict(
            "Its endpoint is deleted or disabled: there is nobody to send it to.", code="webhook_endpoint_unavailable"
        )
    raise NotFound(f"There is no dead letter {delivery_id!r}: it was never given up, or is being sent again.")


def _letter_json(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "object": "event_dead_letter",
        "event_id": letter.event_id,
        "endpoint_id": letter.endpoint_id,
        "url": letter.url,
        "attempts": letter.attempts,
        "status": letter.status,
        "error": letter.error,
        "excerpt": letter.excerpt,
        "body": letter.body,
        "created_at": seconds(letter.created_at),
        "dead_at": seconds(letter.finished_at),
    }
