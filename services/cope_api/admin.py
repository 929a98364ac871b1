"""Projects, in the shapes of OpenAI's admin client, for the operator."""

import zoneinfo
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.core.errors import BadRequest, NotFound
from cope.core.ids import PROJECT, ProjectId
from cope.core.records import Project
from cope.core.request import parse_kind
from cope.core.request_values import as_mapping, as_text
from cope.core.webhooks import make_secret
from cope_api.audits import apply_settings, audit_settings
from cope_api.context import (
    Gate,
    admin_of,
    clean_id,
    json_object,
    limit_of,
    list_body,
    only_keys,
    project_row,
    raw_body,
    text_query,
)
from cope_api.failures import json_response
from cope_api.present import project_json
from cope_api.retention import apply_keep_days, keep_days_of

router = APIRouter()
_PROJECT_KEYS = frozenset({"name", "cope", "external_key_id", "geography"})
_PROJECT_COPE_KEYS = frozenset({"time_zone", "default_kind", "paused", "pause_unparsable", "audit", "keep_days"})


@router.post("/v1/organization/projects")
async def create_project(request: Request) -> Response:
    """A new project, capped at COPE_DEFAULT_CAP_USD. Its webhook secret is shown here and never again."""
    parts = await admin_of(request)
    body = json_object(await raw_body(request))
    only_keys(body, _PROJECT_KEYS)
    changes = _cope_changes(body)
    audit = audit_settings(_cope_of(body), None)
    keep_days_of(_cope_of(body))
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
    made = await apply_keep_days(parts, made, _cope_of(body))
    answer = project_json(made)
    answer["cope"]["webhook_secret"] = secret
    return json_response(answer)


def _cope_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    return {} if body.get("cope") is None else as_mapping(body["cope"], "cope")


def _cope_changes(body: dict[str, Any]) -> dict[str, Any]:
    cope = _cope_of(body)
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
    audit = audit_settings(_cope_of(body), project)
    keep_days_of(_cope_of(body))  # refused before anything is changed
    updated = await parts.store.update_project(project.id, name=name, **changes)
    updated = await apply_keep_days(parts, updated or project, _cope_of(body))
    return json_response(project_json(await apply_settings(parts, updated, audit)))


@router.post("/v1/organization/projects/{project_id}/archive")
async def archive_project(request: Request, project_id: str) -> Response:
    """No further work of this project is claimed, and its keys work no more."""
    parts = await admin_of(request)
    updated = await parts.store.update_project(ProjectId(clean_id(project_id)), archived=True)
    if updated is None:
        raise NotFound(f"There is no project {project_id!r}.")
    gate: Gate = request.app.state.gate
    gate.forget()
    return json_response(project_json(updated))
