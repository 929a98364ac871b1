"""Caps of projects, keys and batches: OpenAI's spend limit for the project, the same shape for the narrower ones."""

from collections.abc import Mapping

from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.bootstrap import ApiParts
from cope.core.budget import PROJECT_SCOPE
from cope.core.errors import BadRequest, Forbidden, NotFound
from cope.core.ids import BatchId, ProjectId
from cope.core.money import NanoUSD
from cope.core.request_values import as_int, as_mapping, as_usd
from cope_api.context import (
    Gate,
    admin_of,
    clean_id,
    json_object,
    only_keys,
    parts_of,
    project_of,
    project_row,
    raw_body,
)
from cope_api.failures import json_response
from cope_api.present import spend_limit_json

router = APIRouter()
NANO_PER_CENT = 10_000_000
_PROJECT = "/v1/organization/projects/{project_id}"


async def seer(request: Request, project_id: str) -> tuple[ApiParts, ProjectId]:
    """The operator, or the project's own key (to which `me` is its project). A key of another project learns nothing,
    not even that there is one."""
    gate: Gate = request.app.state.gate
    principal = await gate.principal(request)
    wanted = ProjectId(clean_id(project_id))
    if not principal.is_admin and project_id == "me" and principal.project_id is not None:
        wanted = principal.project_id
    elif not principal.is_admin and principal.project_id != wanted:
        raise Forbidden("This needs the admin key, or a key of that project.")
    parts = parts_of(request)
    await project_row(parts, wanted)
    return parts, wanted


@router.get(_PROJECT + "/spend_limit")
async def get_spend_limit(request: Request, project_id: str) -> Response:
    """The month's cap and what is spent, reserved and unconfirmed. `me` names the calling key's own project."""
    parts, wanted = await seer(request, project_id)
    return json_response(spend_limit_json(await parts.store.get_budget(wanted)))


@router.post(_PROJECT + "/spend_limit")
async def set_spend_limit(request: Request, project_id: str) -> Response:
    """A new cap from now on; held work resumes by itself."""
    return await _set(request, project_id, PROJECT_SCOPE)


@router.delete(_PROJECT + "/spend_limit")
async def remove_spend_limit(request: Request, project_id: str) -> Response:
    """No cap: the one way to say unlimited."""
    return await _remove(request, project_id, PROJECT_SCOPE)


@router.get(_PROJECT + "/api_keys/{key_id}/spend_limit")
async def get_key_limit(request: Request, project_id: str, key_id: str) -> Response:
    """The key's own cap in this month, and what its calls have spent."""
    parts, wanted = await seer(request, project_id)
    return json_response(spend_limit_json(await parts.store.get_budget(wanted, scope=_key(key_id))))


@router.post(_PROJECT + "/api_keys/{key_id}/spend_limit")
async def set_key_limit(request: Request, project_id: str, key_id: str) -> Response:
    """A new cap of one key, beside the project's: both must cover a call."""
    return await _set(request, project_id, _key(key_id))


@router.delete(_PROJECT + "/api_keys/{key_id}/spend_limit")
async def remove_key_limit(request: Request, project_id: str, key_id: str) -> Response:
    """The key has no cap of its own any more."""
    return await _remove(request, project_id, _key(key_id))


@router.get("/v1/batches/{batch_id}/spend_limit")
async def get_batch_limit(request: Request, batch_id: str) -> Response:
    """What the batch may spend over its whole life, and what it has."""
    parts, project_id, _ = await project_of(request)
    return json_response(spend_limit_json(await parts.store.get_budget(project_id, scope=_batch(batch_id))))


@router.post("/v1/batches/{batch_id}/spend_limit")
async def set_batch_limit(request: Request, batch_id: str) -> Response:
    """A new `max_cost_usd` of the batch; its held lines resume by themselves, as far as it goes."""
    parts, project_id, _ = await project_of(request)
    body = json_object(await raw_body(request))
    only_keys(body, frozenset({"max_cost_usd"}))
    if "max_cost_usd" not in body:
        raise BadRequest('`max_cost_usd` is missing: an amount of dollars such as "5".', param="max_cost_usd")
    cap = as_usd(body["max_cost_usd"], "max_cost_usd")
    return json_response(spend_limit_json(await parts.store.set_cap(project_id, cap, scope=_batch(batch_id))))


@router.delete("/v1/batches/{batch_id}/spend_limit")
async def remove_batch_limit(request: Request, batch_id: str) -> Response:
    """The batch has no cap of its own any more: its key's and its project's remain."""
    parts, project_id, _ = await project_of(request)
    await parts.store.set_cap(project_id, None, scope=_batch(batch_id))
    return json_response({"object": "batch.spend_limit.deleted", "deleted": True})


async def _set(request: Request, project_id: str, scope: str) -> Response:
    parts = await admin_of(request)
    cap = _cap_in(json_object(await raw_body(request)))
    project = await project_row(parts, ProjectId(clean_id(project_id)))
    return json_response(spend_limit_json(await parts.store.set_cap(project.id, cap, scope=scope)))


async def _remove(request: Request, project_id: str, scope: str) -> Response:
    parts = await admin_of(request)
    project = await project_row(parts, ProjectId(clean_id(project_id)))
    await parts.store.set_cap(project.id, None, scope=scope)
    return json_response({"object": "project.spend_limit.deleted", "deleted": True})


def _cap_in(body: Mapping[str, object]) -> NanoUSD:
    """Whole cents as OpenAI's client sends them, or an exact amount as `cope.cap_usd`."""
    only_keys(body, frozenset({"threshold_amount", "currency", "interval", "cope"}))
    if body.get("currency", "USD") != "USD" or body.get("interval", "month") != "month":
        raise BadRequest("Caps are in USD and per month.", param="currency")
    if "cope" in body:
        exact = as_mapping(body["cope"], "cope")
        if exact.keys() != {"cap_usd"} or "threshold_amount" in body:
            raise BadRequest("Give `threshold_amount` in cents, or `cope.cap_usd` alone.", param="cope")
        return as_usd(exact["cap_usd"], "cope.cap_usd")
    return NanoUSD(as_int(body.get("threshold_amount"), "threshold_amount", low=0, high=9 * 10**11) * NANO_PER_CENT)


def _key(key_id: str) -> str:
    if not key_id.startswith("key_"):
        raise NotFound(f"There is no key {key_id!r}.")
    return clean_id(key_id)


def _batch(batch_id: str) -> str:
    if not batch_id.startswith("batch_"):
        raise NotFound(f"There is no batch {batch_id!r}.")
    return BatchId(clean_id(batch_id))
