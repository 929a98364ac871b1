"""What is kept and what goes next: `GET /v1/organization/retention`, the gauges, a project's own days."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.bootstrap import ApiParts
from cope.core.errors import Gone, NotFound
from cope.core.records import Batch, Project
from cope.core.request_values import as_int
from cope_api.context import admin_of
from cope_api.failures import json_response

router = APIRouter()
_LONGEST_DAYS = 36_500
_COUNTS = {
    "files": "Files there are.",
    "stored_bytes": "Bytes in the file store.",
    "shared_bytes": "Bytes that files of equal content save by sharing.",
    "freed_blobs": "Names whose bytes nobody reads and upkeep has yet to delete.",
    "due_files": "Files over their time.",
    "waiting_files": "Files over their time that a batch has yet to read.",
    "due_batches": "Batches whose tasks the next pass prunes.",
    "due_tasks": "Tasks of these.",
    "due_live": "Live calls over their time.",
    "due_deliveries": "Webhook deliveries over their time.",
    "doubted_batches": "Batches over their time, kept because money of theirs is in doubt.",
}


@router.get("/v1/organization/retention")
async def report(request: Request) -> Response:
    """What upkeep found when it looked last, within ten minutes: what is stored, how old it is, and what goes when.
    Nothing is changed by asking."""
    parts = await admin_of(request)
    text = await parts.store.retention_report()
    if text is None:
        raise NotFound("Upkeep has not looked yet: is a worker of the queue `upkeep` running?", code="no_report_yet")
    return json_response({"object": "cope.retention", **orjson.loads(text)})


def refuse_pruned(batch: Batch) -> None:
    """Raises `Gone` for a batch whose tasks are no longer kept."""
    if batch.pruned_at is not None:
        raise Gone(
            f"The tasks of batch {batch.id!r}, with their results and samples, were deleted on "
            f"{batch.pruned_at:%Y-%m-%d} when their time had come. Its counts and costs are kept, and its output file "
            "for as long as its own `expires_at` says.",
            code="batch_pruned",
        )


async def storage_json(parts: ApiParts, project: Project) -> dict[str, Any]:
    """What the project stores and may store, and how long its things are kept (null: for ever)."""
    stored, settings = await parts.store.stored(project.id), parts.settings
    return {
        "files": stored.files,
        "bytes": stored.bytes,
        "max_bytes": settings.max_project_bytes,
        "max_file_bytes": settings.max_file_bytes,
        "keep_days": {
            "files": settings.keep_files_days or None,
            "batches": project.keep_days or settings.keep_tasks_days or None,
            "live": project.keep_days or settings.keep_live_days or None,
            "events": settings.keep_events_days or None,
            "deliveries": settings.keep_deliveries_days or None,
        },
    }


def keep_days_of(cope: Mapping[str, Any]) -> int | None:
    """A project's own days: 1 to 36,500; null is as the settings say. Raises `BadRequest`."""
    if cope.get("keep_days") is None:
        return None
    return as_int(cope["keep_days"], "cope.keep_days", low=1, high=_LONGEST_DAYS)


async def apply_keep_days(parts: ApiParts, project: Project, cope: Mapping[str, Any]) -> Project:
    """Set what was asked for, if anything was."""
    if "keep_days" not in cope:
        return project
    return await parts.store.set_keep_days(project.id, keep_days_of(cope)) or project


def retention_gauges(text: str | None, *, now_s: float) -> Iterable[str]:
    """Of the last report; none before there is one."""
    if text is None:
        return
    found: dict[str, Any] = orjson.loads(text)
    for name, about in _COUNTS.items():
        yield from (f"# HELP cope_{_named(name)} {about}", f"# TYPE cope_{_named(name)} gauge")
        yield f"cope_{_named(name)} {found[name]}"
    ages = {kind: found[f"oldest_{kind}_at"] for kind in ("file", "batch", "live")}
    yield "# HELP cope_retention_oldest_age_seconds Since the oldest that is kept came (files) or ended."
    yield "# TYPE cope_retention_oldest_age_seconds gauge"
    for kind, at in ages.items():
        yield f'cope_retention_oldest_age_seconds{{kind="{kind}"}} {_age(at, now_s)}'
    yield "# HELP cope_retention_held_partitions Partitions over their time that hold what must be kept."
    yield "# TYPE cope_retention_held_partitions gauge"
    yield f"cope_retention_held_partitions {sum(part['held'] for part in found['partitions'])}"
    yield "# HELP cope_retention_report_age_seconds How old these figures are."
    yield "# TYPE cope_retention_report_age_seconds gauge"
    yield f"cope_retention_report_age_seconds {_age(found['at'], now_s)}"


def _named(name: str) -> str:
    return f"retention_{name}" if name.startswith(("due", "waiting", "doubted", "freed")) else f"files_{name}"


def _age(at: str | None, now_s: float) -> int:
    return 0 if at is None else max(0, int(now_s - datetime.fromisoformat(at).timestamp()))
