"""A restored store, for the operator: what it waits for, and letting it go on."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.core.errors import BadRequest
from cope.core.restored import RestoreNotice
from cope_api.context import admin_of, json_object, only_keys, raw_body, seconds
from cope_api.failures import json_response

router = APIRouter()


@router.get("/v1/organization/restore")
async def restore_notice(request: Request) -> Response:
    """Whether this store was restored from a backup and waits to be reconciled."""
    parts = await admin_of(request)
    return json_response(_shown(await parts.store.restore_notice()))


@router.post("/v1/organization/restore/release")
async def release(request: Request) -> Response:
    """Let the projects go on: refused before a complete usage export was applied, unless `unreconciled` is true."""
    parts = await admin_of(request)
    raw = await raw_body(request)
    body = json_object(raw) if raw else {}
    only_keys(body, frozenset({"unreconciled"}))
    unreconciled = body.get("unreconciled", False)
    if not isinstance(unreconciled, bool):
        raise BadRequest("`unreconciled` must be true or false.", param="unreconciled")
    notice = await parts.store.release_restore(unreconciled=unreconciled)
    for queue in ("small", "large"):
        await parts.wake.poke(queue)
    return json_response({**_shown(notice), "released": notice is not None})


def _shown(notice: RestoreNotice | None) -> dict[str, Any]:
    if notice is None:
        return {"object": "cope.restore", "restored": False}
    return {
        "object": "cope.restore",
        "restored": True,
        "backup_at": seconds(notice.backup_at),
        "restored_at": seconds(notice.restored_at),
        "reconciled_at": seconds(notice.reconciled_at),
        "paused_projects": list(notice.held),
    }
