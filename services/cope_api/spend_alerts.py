"""Spend alerts of a project, in the shape of OpenAI's admin client: `…/projects/{id}/spend_alerts`.

Beside cents, ours in `cope`: `percent` of the cap, `projected` overrun, `threshold_usd` to the nano-dollar. No e-mail
is sent: an alert is the event `budget.alert`, in the feed and for webhook endpoints that asked for it, and says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from cope.core.alerts import HIGHEST_PERCENT, AlertKind, SpendAlert
from cope.core.errors import BadRequest, NotFound
from cope.core.ids import ALERT, AlertId, ProjectId
from cope.core.money import NanoUSD, format_usd
from cope.core.records import Budget
from cope.core.request_values import as_choice, as_int, as_mapping, as_text, as_text_list, as_usd
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
from cope_api.spend_limits import NANO_PER_CENT, seer

router = APIRouter()
_PATH = "/v1/organization/projects/{project_id}/spend_alerts"
_KEYS = frozenset({"threshold_amount", "currency", "interval", "notification_channel", "cope"})
_DELIVERED_AS = ["webhook", "event"]
_NOTE = (
    "No e-mail is sent. The event budget.alert is in the project's feed and goes to its webhook endpoints whose "
    "event_types name it."
)


@dataclass(frozen=True, slots=True)
class _Wanted:
    kind: AlertKind
    threshold: int | None
    recipients: tuple[str, ...]
    subject_prefix: str | None


@router.post(_PATH)
async def create(request: Request, project_id: str) -> Response:
    """A new alert. It fires with the next sweep if it is crossed already."""
    parts = await admin_of(request)
    wanted = _wanted(json_object(await raw_body(request)))
    project = await project_row(parts, ProjectId(clean_id(project_id)))
    made = await parts.store.create_alert(
        SpendAlert(
            id=AlertId(parts.ids.new(ALERT)),
            project_id=project.id,
            kind=wanted.kind,
            threshold=wanted.threshold,
            recipients=wanted.recipients,
            subject_prefix=wanted.subject_prefix,
            created_at=parts.clock.now(),
        )
    )
    return json_response(alert_json(made, await parts.store.get_budget(project.id)))


@router.get(_PATH)
async def list_alerts(request: Request, project_id: str) -> Response:
    """The project's alerts, oldest first unless `order=desc`. The project's own key may look too."""
    parts, wanted = await seer(request, project_id)
    alerts = list(await parts.store.list_alerts(wanted))
    if as_choice(text_query(request, "order") or "asc", "order", ("asc", "desc")) == "desc":
        alerts.reverse()
    places = {alert.id: place for place, alert in enumerate(alerts)}
    first = places.get(AlertId(text_query(request, "after") or ""), -1) + 1
    last = places.get(AlertId(text_query(request, "before") or ""), len(alerts))
    limit = limit_of(request, default=20, most=100)
    page, budget = alerts[first:last][:limit], await parts.store.get_budget(wanted)
    items = [alert_json(alert, budget) for alert in page]
    return json_response(list_body(items, has_more=last - first > limit))


@router.get(_PATH + "/{alert_id}")
async def retrieve(request: Request, project_id: str, alert_id: str) -> Response:
    """One alert."""
    parts, wanted = await seer(request, project_id)
    for alert in await parts.store.list_alerts(wanted):
        if alert.id == alert_id:
            return json_response(alert_json(alert, await parts.store.get_budget(wanted)))
    raise _unknown(alert_id)


@router.post(_PATH + "/{alert_id}")
async def update(request: Request, project_id: str, alert_id: str) -> Response:
    """Replace an alert. With another threshold it may fire again this month."""
    parts = await admin_of(request)
    wanted = _wanted(json_object(await raw_body(request)))
    project = await project_row(parts, ProjectId(clean_id(project_id)))
    changed = await parts.store.update_alert(
        project.id,
        AlertId(clean_id(alert_id)),
        kind=wanted.kind,
        threshold=wanted.threshold,
        recipients=wanted.recipients,
        subject_prefix=wanted.subject_prefix,
    )
    if changed is None:
        raise _unknown(alert_id)
    return json_response(alert_json(changed, await parts.store.get_budget(project.id)))


@router.delete(_PATH + "/{alert_id}")
async def delete(request: Request, project_id: str, alert_id: str) -> Response:
    """It fires no more."""
    parts = await admin_of(request)
    project = await project_row(parts, ProjectId(clean_id(project_id)))
    if not await parts.store.delete_alert(project.id, AlertId(clean_id(alert_id))):
        raise _unknown(alert_id)
    return json_response({"id": alert_id, "object": "project.spend_alert.deleted", "deleted": True})


def alert_json(alert: SpendAlert, budget: Budget) -> dict[str, Any]:
    """OpenAI's project spend alert in whole cents, and the exact sum at which it fires under the present cap beside
    it (null where it needs a cap and there is none)."""
    limit = alert.limit(budget.cap)
    fired = alert.fired_month == budget.month
    return {
        "id": alert.id,
        "object": "project.spend_alert",
        "threshold_amount": 0 if limit is None else limit // NANO_PER_CENT,
        "currency": "USD",
        "interval": "month",
        "notification_channel": {
            "type": "email",
            "recipients": list(alert.recipients),
            "subject_prefix": alert.subject_prefix,
        },
        "cope": {
            "kind": alert.kind.value,
            "percent": alert.threshold if alert.kind is AlertKind.PERCENT else None,
            "threshold_usd": None if limit is None else format_usd(limit),
            "state": "fired" if fired else "armed",
            "fired_at": seconds(alert.fired_at),
            "delivered_as": _DELIVERED_AS,
            "note": _NOTE,
        },
    }


def _wanted(body: Mapping[str, object]) -> _Wanted:
    only_keys(body, _KEYS)
    if body.get("currency", "USD") != "USD" or body.get("interval", "month") != "month":
        raise BadRequest("Alerts are in USD and per month.", param="currency")
    kind, threshold = _threshold(body)
    recipients, prefix = _channel(body.get("notification_channel"))
    return _Wanted(kind, threshold, recipients, prefix)


def _threshold(body: Mapping[str, object]) -> tuple[AlertKind, int | None]:
    own = as_mapping(body.get("cope", {}), "cope")
    only_keys(own, frozenset({"percent", "projected", "threshold_usd"}))
    if not own:
        cents = as_int(body.get("threshold_amount"), "threshold_amount", low=1, high=9 * 10**11)
        return AlertKind.AMOUNT, cents * NANO_PER_CENT
    # The stock client can't leave `threshold_amount` out: 0 says that `cope` decides.
    left_out = as_int(body.get("threshold_amount", 0), "threshold_amount", low=0, high=9 * 10**11)
    if len(own) > 1 or left_out:
        raise BadRequest(
            "Give `threshold_amount` in cents, or one of `cope.percent`, `cope.projected` and `cope.threshold_usd` "
            "with `threshold_amount` 0 or left out.",
            param="cope",
        )
    if "percent" in own:
        return AlertKind.PERCENT, as_int(own["percent"], "cope.percent", low=1, high=HIGHEST_PERCENT)
    if "projected" in own:
        if own["projected"] is not True:
            raise BadRequest("`cope.projected` must be true, or left out.", param="cope.projected")
        return AlertKind.PROJECTED, None
    exact: NanoUSD = as_usd(own["threshold_usd"], "cope.threshold_usd")
    if exact == 0:
        raise BadRequest("`cope.threshold_usd` must be above 0.", param="cope.threshold_usd")
    return AlertKind.AMOUNT, exact


def _channel(value: object) -> tuple[tuple[str, ...], str | None]:
    """Recipients and subject prefix: kept and given back, so that a client finds what it has set."""
    if value is None:
        return (), None
    channel, where = as_mapping(value, "notification_channel"), "notification_channel"
    only_keys(channel, frozenset({"type", "recipients", "subject_prefix"}))
    if channel.get("type") != "email":
        raise BadRequest(
            "`notification_channel.type` must be email. For webhooks make an endpoint with POST /v1/webhook_endpoints "
            'and the event type "budget.alert".',
            param=f"{where}.type",
        )
    recipients = as_text_list(channel.get("recipients", []), f"{where}.recipients", fewest=0, most=100)
    for place, address in enumerate(recipients):
        if len(address) > 320 or not address.isprintable() or "@" not in address[1:-1]:
            raise BadRequest(
                f"`{where}.recipients[{place}]` is no e-mail address.", param=f"{where}.recipients[{place}]"
            )
    prefix = channel.get("subject_prefix")
    return recipients, None if prefix is None else as_text(prefix, f"{where}.subject_prefix", longest=200)


def _unknown(alert_id: str) -> NotFound:
    return NotFound(f"There is no spend alert {alert_id!r}.")
