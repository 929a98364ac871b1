"""A project's API keys, in the shapes of OpenAI's admin client, for the operator: made, shown, rotated, revoked."""

import hashlib
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.bootstrap import ApiParts
from cope.core.errors import BadRequest, NotFound
from cope.core.ids import KEY, KeyId, ProjectId
from cope.core.key_scopes import ALL_SCOPES, KeyScope, parse_scopes, scope_names
from cope.core.records import ApiKey
from cope.core.request_values import as_int, as_mapping, as_text
from cope_api.context import (
    Gate,
    admin_of,
    clean_id,
    json_object,
    list_body,
    only_keys,
    project_row,
    raw_body,
    seconds,
)
from cope_api.failures import json_response

router = APIRouter()
_PROJECT = "/v1/organization/projects/{project_id}"
_KEY = _PROJECT + "/api_keys/{key_id}"
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LONGEST_OVERLAP_S, _USUAL_OVERLAP_S = 7 * 86_400, 86_400
_LONGEST_LIFE_S = 10 * 366 * 86_400


def new_secret_key(random: bytes) -> str:
    """An API key of 32 random bytes, as 43 characters behind a prefix that scanners for leaked secrets can look for."""
    number, out = int.from_bytes(random, "big"), ""
    for _ in range(43):
        number, digit = divmod(number, 62)
        out += _BASE62[digit]
    return f"cope-sk-{out}"


def make_key(
    parts: ApiParts,
    project_id: ProjectId,
    name: str,
    secret: str,
    *,
    scopes: frozenset[KeyScope] = ALL_SCOPES,
    expires_at: datetime | None = None,
) -> ApiKey:
    """A key's row: its hash and last four characters, never the secret."""
    return ApiKey(
        id=KeyId(parts.ids.new(KEY)),
        project_id=project_id,
        name=name,
        hash=_hash(secret),
        hint=secret[-4:],
        created_at=parts.clock.now(),
        scopes=scopes,
        expires_at=expires_at,
    )


@router.post(_PROJECT + "/service_accounts")
async def create_service_account(request: Request, project_id: str) -> Response:
    """A new key of the project, with `cope.scopes` and `cope.expires_at` where it is to be restricted. The secret is in
    this answer and never again."""
    parts = await admin_of(request)
    body = json_object(await raw_body(request))
    only_keys(body, frozenset({"name", "cope"}))
    own = as_mapping(body.get("cope", {}), "cope")
    only_keys(own, frozenset({"scopes", "expires_at"}))
    scopes = parse_scopes(own["scopes"], "cope.scopes") if "scopes" in own else ALL_SCOPES
    expires_at = _expiry(parts, own.get("expires_at"), "cope.expires_at")
    name = as_text(body.get("name", "default"), "name", longest=200)
    project = await project_row(parts, ProjectId(clean_id(project_id)))
    secret = new_secret_key(parts.ids.secret(32))
    made = make_key(parts, project.id, name, secret, scopes=scopes, expires_at=expires_at)
    return json_response(_with_secret(parts, await parts.store.create_key(made), secret))


@router.get(_PROJECT + "/api_keys")
async def list_keys(request: Request, project_id: str) -> Response:
    """The project's keys, revoked ones too, without their secrets."""
    parts = await admin_of(request)
    project = await project_row(parts, ProjectId(clean_id(project_id)))
    keys = await parts.store.list_keys(project.id)
    return json_response(list_body([_key_json(parts, key) for key in keys], has_more=False))


@router.get(_KEY)
async def retrieve_key(request: Request, project_id: str, key_id: str) -> Response:
    """One key, without its secret."""
    parts = await admin_of(request)
    for key in await parts.store.list_keys(ProjectId(clean_id(project_id))):
        if key.id == key_id:
            return json_response(_key_json(parts, key))
    raise _unknown(key_id)


@router.post(_KEY + "/rotate")
async def rotate_key(request: Request, project_id: str, key_id: str) -> Response:
    """A new secret for the same key, shown here and never again. The present one dies after `overlap_seconds` (a day
    unless said, 0: at once). Where two work already, the newer one is replaced. Id, scopes and caps stay; the expiry
    too, unless `expires_at` is given."""
    parts = await admin_of(request)
    body = json_object(await raw_body(request))
    only_keys(body, frozenset({"overlap_seconds", "expires_at"}))
    overlap_s = as_int(body.get("overlap_seconds", _USUAL_OVERLAP_S), "overlap_seconds", low=0, high=_LONGEST_OVERLAP_S)
    expires_at = _expiry(parts, body.get("expires_at"), "expires_at")
    secret = new_secret_key(parts.ids.secret(32))
    rotated = await parts.store.rotate_key(
        ProjectId(clean_id(project_id)),
        KeyId(clean_id(key_id)),
        new_hash=_hash(secret),
        hint=secret[-4:],
        overlap_s=overlap_s,
        expires_at=expires_at,
    )
    if rotated is None:
        raise _unknown(key_id)
    _gate(request).forget()
    return json_response(_with_secret(parts, rotated, secret))


@router.delete(_KEY)
async def revoke_key(request: Request, project_id: str, key_id: str) -> Response:
    """Revoke a key, both its secrets while it rotates. It works nowhere any more within a second."""
    parts = await admin_of(request)
    if not await parts.store.revoke_key(ProjectId(clean_id(project_id)), KeyId(clean_id(key_id))):
        raise _unknown(key_id)
    _gate(request).forget()
    return json_response({"object": "organization.project.api_key.deleted", "id": key_id, "deleted": True})


def _hash(secret: str) -> bytes:
    # Fast on purpose: a secret of 256 random bits can't be guessed, whatever the hash costs.
    return hashlib.sha256(secret.encode()).digest()


def _gate(request: Request) -> Gate:
    gate: Gate = request.app.state.gate
    return gate


def _expiry(parts: ApiParts, value: object, param: str) -> datetime | None:
    if value is None:
        return None
    now = int(parts.clock.now().timestamp())
    if not isinstance(value, int) or isinstance(value, bool) or not now < value <= now + _LONGEST_LIFE_S:
        raise BadRequest(f"`{param}` must be Unix seconds in the future, within ten years.", param=param)
    return datetime.fromtimestamp(value, UTC)


def _unknown(key_id: str) -> NotFound:
    return NotFound(f"There is no key {key_id!r} in this project, or it is revoked or expired.")


def _with_secret(parts: ApiParts, key: ApiKey, secret: str) -> dict[str, Any]:
    created = seconds(key.created_at)
    return {
        "object": "organization.project.service_account",
        "id": key.id,
        "name": key.name,
        "role": "member",
        "created_at": created,
        "api_key": {
            "object": "organization.project.service_account.api_key",
            "value": secret,
            "name": key.name,
            "created_at": created,
            "id": key.id,
        },
        "cope": _own_json(parts, key),
    }


def _key_json(parts: ApiParts, key: ApiKey) -> dict[str, Any]:
    return {
        "object": "organization.project.api_key",
        "id": key.id,
        "name": key.name,
        "redacted_value": f"cope-sk-…{key.hint}",
        "created_at": seconds(key.created_at),
        "last_used_at": seconds(key.last_used_at),
        "owner": {"type": "service_account", "service_account": {"id": key.id, "name": key.name}},
        "cope": _own_json(parts, key),
    }


def _own_json(parts: ApiParts, key: ApiKey) -> dict[str, Any]:
    now = parts.clock.now()
    overlaps = key.previous_until is not None and now < key.previous_until
    expired = key.expires_at is not None and key.expires_at <= now
    return {
        "status": "revoked" if key.revoked_at is not None else "expired" if expired else "active",
        "scopes": scope_names(key.scopes),
        "expires_at": seconds(key.expires_at),
        "revoked_at": seconds(key.revoked_at),
        "rotated_at": seconds(key.rotated_at),
        "previous_secret_until": seconds(key.previous_until) if overlaps else None,
    }
