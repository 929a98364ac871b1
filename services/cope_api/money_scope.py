"""Whose money a caller may look at, and the query parameters of reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from fastapi import Request

from cope.bootstrap import ApiParts
from cope.core.errors import BadRequest, Forbidden
from cope.core.ids import BatchId, KeyId, ProjectId
from cope.core.records import Project
from cope.ports.ledger import LedgerScope
from cope_api.context import Gate, clean_id, parts_of, project_row

_MOST_IDS = 1000


@dataclass(frozen=True, slots=True)
class Seen:
    """What a report covers, and the zone that its days are told in: the projects' own where they agree, else UTC."""

    parts: ApiParts
    scope: LedgerScope
    time_zone: str
    mixed_zones: bool


async def seen_by(request: Request) -> Seen:
    """The operator sees all projects, or those named; a project's key sees its own. Naming another is `Forbidden`."""
    gate: Gate = request.app.state.gate
    principal = await gate.principal(request)
    parts = parts_of(request)
    named = tuple(ProjectId(clean_id(one)) for one in (*texts(request, "project_ids"), *texts(request, "project_id")))
    keys = tuple(KeyId(clean_id(one)) for one in texts(request, "api_key_ids")) or None
    batch = texts(request, "batch_id")
    batch_id = BatchId(clean_id(batch[0])) if batch else None
    if not principal.is_admin:
        own = principal.project_id
        if own is None or any(one not in {own, "me"} for one in named):
            raise Forbidden("A project's key sees the money of its own project only.")
        project = await project_row(parts, own)
        return Seen(parts, LedgerScope(own, key_ids=keys, batch_id=batch_id), project.time_zone, mixed_zones=False)
    if len(named) == 1:
        project = await project_row(parts, named[0])
        return Seen(parts, LedgerScope(named[0], key_ids=keys, batch_id=batch_id), project.time_zone, mixed_zones=False)
    zones = {p.time_zone for p in await all_projects(parts) if not named or p.id in named}
    scope = LedgerScope(project_ids=named or None, key_ids=keys, batch_id=batch_id)
    return Seen(parts, scope, zones.pop() if len(zones) == 1 else "UTC", mixed_zones=len(zones) > 0)


async def all_projects(parts: ApiParts) -> list[Project]:
    """Every project, archived ones included."""
    found: list[Project] = []
    while True:
        page = await parts.store.list_projects(after=found[-1].id if found else None, limit=1000)
        found += page.items
        if not page.has_more:
            return found


def texts(request: Request, name: str) -> list[str]:
    """A list in the query, as OpenAI's client writes it (``name[]=a&name[]=b``) or with commas."""
    told = [*request.query_params.getlist(f"{name}[]"), *request.query_params.getlist(name)]
    items = [item.strip() for text in told for item in text.split(",") if item.strip()]
    if len(items) > _MOST_IDS or any("\x00" in item for item in items):
        raise BadRequest(f"`{name}` is not valid.", param=name)
    return items


def month_query(request: Request, name: str = "month") -> str | None:
    """A month such as 2026-11."""
    told = request.query_params.get(name)
    return None if told is None else month_text(told, name)


def month_text(told: str, name: str = "month") -> str:
    """A month such as 2026-11, of a year from 2000 to 2999. Raises `BadRequest`."""
    try:
        if len(told) != 7 or not told.isascii() or not "2000" <= told[:4] < "3000":
            raise ValueError(told)
        date.fromisoformat(f"{told}-01")
    except ValueError:
        raise BadRequest(f"`{name}` must be a month such as 2026-11.", param=name) from None
    return told


def month_days(month: str) -> tuple[date, date]:
    """Its first and last day."""
    first = date.fromisoformat(f"{month}-01")
    return first, (first + timedelta(days=32)).replace(day=1) - timedelta(days=1)


def moment_query(request: Request, name: str) -> datetime | None:
    """Unix seconds. Raises `BadRequest`."""
    told = request.query_params.get(name)
    if told is None:
        return None
    if not told.isascii() or not told.isdigit() or len(told) > 10:
        raise BadRequest(f"`{name}` must be Unix seconds.", param=name)
    return datetime.fromtimestamp(int(told), UTC)


def days_of(start: datetime, until: datetime, time_zone: str) -> tuple[date, date]:
    """First and last calendar day, in that zone, of the span [start, until)."""
    zone = ZoneInfo(time_zone)
    return start.astimezone(zone).date(), (until - timedelta(microseconds=1)).astimezone(zone).date()


def span_s(first: date, last: date, time_zone: str) -> tuple[int, int]:
    """Unix seconds of the first moment of `first` and of the first moment after `last`."""
    zone = ZoneInfo(time_zone)
    ends = (first, last + timedelta(days=1))
    begin, end = (int(datetime.combine(day, time(), zone).timestamp()) for day in ends)
    return begin, end


def months_between(first: date, last: date) -> Sequence[date]:
    """The first day of every month that the span touches."""
    months, at = [], first.replace(day=1)
    while at <= last:
        months.append(at)
        at = (at + timedelta(days=32)).replace(day=1)
    return months
