"""Projects and keys, in the shapes of OpenAI's admin client, for the operator."""

import hashlib
import zoneinfo
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.bootstrap import ApiParts
from cope.core.errors import BadRequest, NotFound
from cope.core.ids import KEY, PROJECT, KeyId, ProjectId
from cope.core.records import ApiKey, Project
from cope.core.request import parse_kind
from cope.core.request_values import as_text
from cope.core.webhooks import make_secret
from cope_api.audits import apply_settings, audit_settings
from cope_api.context import (
    admin_of,
    clean_id,
    json_object,
    limit_of,
    list_body,
    only_keys,
    project_row,
    raw_body,
    seconds,
    text_query,
)
from cope_api.failures import json_response
from cope_api.present import project_json
from cope_api.retention import apply_keep_days, keep_days_of

router = APIRouter()
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PROJECT_KEYS = frozenset({"name", "cope", "external_key_id", "geography"})
_PROJECT_COPE_KEYS = frozenset({"time_zone", "default_kind", "paused", "pause_unparsable", "audit", "keep_days"})


def new_secret_key(random: bytes) -> str:
    """An API key of 32 random bytes, as 43 characters."""
    number, out = int.from_bytes(random, "big"), ""
    for _ in range(43):
        number, digit = divmod(number, 62)
        out += _BASE62[digit]
    return f"cope-sk-{out}"


@router.post("/v1/organization/projects")
async def create_project(request: Request) -> Response:
    """A new project, capped at COPE_DEFAULT_CAP_USD. Its webhook secret is shown here and never again."""
    parts = await admin_of(request)
    body = json_object(await raw_body(request))
    only_keys(body, _PROJECT_KEYS)
    changes = _cope_changes(body)
    audit = audit_settings(body.get("cope") or {}, None)
    keep_days_of(body.get("cope") or {})
    project = Project(
        id=ProjectId(parts.ids.new(PROJECT)),
        name=as_text(body.get("name"), "name", longest=200),
        created_at=parts.clock.now(),
        time_zone=changes.get("time_zone") or "UTC",
        cap=parts.settings.default_cap,
        default_kind=changes.get("default_kind") or "math",
        paused=changes.get("paused", False),
        pause_unparsable=changes.get("pause_unparsable", True),
    )
    secret = make_secret(parts.ids.secret(32))
    made = await apply_settings(parts, await parts.store.create_project(project, secret), audit)
    made = await apply_keep_days(parts, made, body.get("cope") or {})
    answer = project_json(made)
    answer["cope"]["webhook_secret"] = secret
    return json_response(answer)


def _cope_changes(body: dict[str, Any]) -> dict[str, Any]:
    cope = body.get("cope") or {}
    if not isinstance(cope, dict):
        raise BadRequest("`cope` must be an object.", param="cope")
    only_keys(cope, _PROJECT_COPE_KEYS)
    changes: dict[str, Any] = {}
    if "time_zone" in cope:
        zone = as_text(cope["time_zone"], "cope.time_zone", longest=64)
        if zone not in zoneinfo.available_timezones():
            raise BadRequest("`cope.time_zone` must be an IANA name such as Europe/Berlin.", param="cope.time_zone")
        changes["time_zone"] = zone
    if "default_kind" in cope:
        changes["default_kind"] = parse_kind(cope["default_kind"], "cope.default_kind").value
    for key in ("paused", "pause_unparsable"):
        if key in cope:
            if not isinstance(cope[key], bool):
                raise BadRequest(f"`cope.{key}` must be true or false.", param=f"cope.{key}")
            changes[key] = cope[key]
    return changes


@router.get("/v1/organization/projects")
async def list_projects(request: Request) -> Response:
    """All projects."""
    parts = await admin_of(request)
    after = text_query(request, "after")
    page = await parts.store.list_projects(
        after=None if after is None else ProjectId(after), limit=limit_of(request, default=20, most=100)
    )
    return json_response(list_body([project_json(project) for project in page.items], page.has_more))


@router.get("/v1/organization/projects/{project_id}")
async def get_project(request: Request, project_id: str) -> Response:
    """One project."""
    parts = await admin_of(request)
    return json_response(project_json(await project_row(parts, ProjectId(clean_id(project_id)))))


@router.post("/v1/organization/projects/{project_id}")
async def update_project(request: Request, project_id: str) -> Response:
    """Rename a project, or change its time zone, default kind, pause or shadow audit."""
    parts = await admin_of(request)
    body = json_object(await raw_body(request))
    only_keys(body, _PROJECT_KEYS)
    name = None if "name" not in body else as_text(body["name"], "name", longest=200)
    changes = _cope_changes(body)
    project = await project_row(parts, ProjectId(clean_id(project_id)))
    audit = audit_settings(body.get("cope") or {}, project)
    keep_days_of(body.get("cope") or {})  # refused before anything is changed
    updated = await parts.store.update_project(project.id, name=name, **changes)
    updated = await apply_keep_days(parts, updated or project, body.get("cope") or {})
    return json_response(project_json(await apply_settings(parts, updated, audit)))


@router.post("/v1/organization/projects/{project_id}/archive")
async def archive_project(request: Request, project_id: str) -> Response:
    """No further work of this project is claimed."""
    parts = await admin_of(request)
    updated = await parts.store.update_project(ProjectId(clean_id(project_id)), archived=True)
    if updated is None:
        raise NotFound(f"There is no project {project_id!r}.")
    return json_response(project_json(updated))


@router.post("/v1/organization/projects/{project_id}/service_accounts")
async def create_service_account(request: Request, project_id: str) -> Response:
    """A new key of the project. The secret is in this answer and never again."""
    parts = await admin_of(request)
    body = json_object(await raw_body(request))
    only_keys(body, frozenset({"name"}))
    project = await project_row(parts, ProjectId(clean_id(project_id)))
    name = as_text(body.get("name", "default"), "name", longest=200)
    secret = new_secret_key(parts.ids.secret(32))
    key = await parts.store.create_key(make_key(parts, project.id, name, secret))
    created = seconds(key.created_at)
    return json_response(
        {
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
        }
    )


def make_key(parts: ApiParts, project_id: ProjectId, name: str, secret: str) -> ApiKey:
    """A key's row: its hash and last four characters, never the secret."""
    return ApiKey(
        id=KeyId(parts.ids.new(KEY)),
        project_id=project_id,
        name=name,
        hash=hashlib.sha256(secret.encode()).digest(),
        hint=secret[-4:],
        created_at=parts.clock.now(),
    )


def _key_json(key: ApiKey) -> dict[str, Any]:
    return {
        "object": "organization.project.api_key",
        "id": key.id,
        "name": key.name,
        "redacted_value": f"cope-sk-…{key.hint}",
        "created_at": seconds(key.created_at),
        "last_used_at": seconds(key.last_used_at),
        "owner": {"type": "service_account", "service_account": {"id": key.id, "name": key.name}},
    }


@router.get("/v1/organization/projects/{project_id}/api_keys")
async def list_keys(request: Request, project_id: str) -> Response:
    """The project's live keys, without their secrets."""
    parts = await admin_of(request)
    keys = await parts.store.list_keys(ProjectId(clean_id(project_id)))
    return json_response(list_body([_key_json(key) for key in keys], has_more=False))


@router.delete("/v1/organization/projects/{project_id}/api_keys/{key_id}")
async def revoke_key(request: Request, project_id: str, key_id: str) -> Response:
    """Revoke a key; it stops working within five seconds."""
    parts = await admin_of(request)
    if not await parts.store.revoke_key(ProjectId(clean_id(project_id)), KeyId(clean_id(key_id))):
        raise NotFound(f"There is no key {key_id!r}.")
    return json_response({"object": "organization.project.api_key.deleted", "id": key_id, "deleted": True})
