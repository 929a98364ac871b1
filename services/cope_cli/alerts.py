"""`cope alerts`, `cope limits`, `cope hold` and `cope resume`: told in time, and stopped by hand."""

import json
import re
import sys
from typing import Annotated, Any

import typer
from openai import OpenAI

from cope_cli.address import find_address
from cope_cli.lines import BadInput
from cope_cli.show import summary

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (alerts, limits, hold, resume):
        app.command()(command)
    app.command(name="pause")(hold)


def alerts(
    context: typer.Context,
    project: Annotated[str, typer.Option(help="A project's id; `me` is the key's own (to look only).")] = "me",
    create: Annotated[
        list[str] | None, typer.Option(help="80% of the cap, 25.00 dollars, or projected; may be repeated (operator).")
    ] = None,
    delete: Annotated[str | None, typer.Option(help="Id of an alert to delete (operator).")] = None,
    as_json: Json = False,
) -> None:
    """List, make or delete spend alerts: cope alerts --project proj_01… --create 50% --create 80% --create projected"""
    admin, path = bool(create or delete), f"/organization/projects/{project}/spend_alerts"
    client = _client(context, admin=admin)
    bodies = [_threshold(text) for text in create or ()]
    for body in bodies:
        client.post(path, body=body, cast_to=object)
    if delete is not None:
        client.delete(f"{path}/{delete}", cast_to=object)
    page: Any = client.get(f"{path}?limit=100", cast_to=object)
    if as_json:
        _print_json(page)
        return
    for alert in page["data"]:
        own = alert["cope"]
        at = "no cap" if own["threshold_usd"] is None else f"${own['threshold_usd']}"
        what = {"percent": f"{own['percent']} % of the cap", "projected": "projected overrun", "amount": "amount"}
        sys.stdout.write(f"{alert['id']}  {what[own['kind']]}  {at}  {own['state']}\n")
    if not page["data"]:
        sys.stdout.write("no alerts\n")


def _threshold(text: str) -> dict[str, Any]:
    """The body that makes this alert. Raises `BadInput`."""
    channel = {"type": "email", "recipients": []}
    if text == "projected":
        return {"cope": {"projected": True}, "notification_channel": channel}
    if re.fullmatch(r"[0-9]{1,4}%", text):
        return {"cope": {"percent": int(text[:-1])}, "notification_channel": channel}
    if re.fullmatch(r"\$?[0-9]+(\.[0-9]{1,9})?", text):
        return {"cope": {"threshold_usd": text.removeprefix("$")}, "notification_channel": channel}
    raise BadInput(f"--create {text}: 80% (of the cap), 25.00 (dollars) or projected")


def limits(context: typer.Context, as_json: Json = False) -> None:
    """Show what this key's project, the key itself and its batches may still spend."""
    found: Any = _client(context).get("/limits", cast_to=object)
    if as_json:
        _print_json(found)
        return
    for one in found["budgets"]:
        cap = "no cap" if one["cap_usd"] is None else f"cap ${one['cap_usd']} · left ${one['headroom_usd']}"
        sys.stdout.write(
            f"{one['scope']} {one['id']}: {cap} · used ${one['used_usd']} · reserved ${one['reserved_usd']} · "
            f"unconfirmed ${one['unconfirmed_usd']}\n"
        )
    for quota in found["provider"]:
        told = {"rpm": "requests_per_minute", "tpm": "tokens_per_minute", "at once": "concurrent_requests"}
        known = [f"{quota[field]} {name}" for name, field in told.items() if quota[field] is not None]
        sys.stdout.write(f"provider {quota['model']}: {' · '.join(known) or 'no limits known'}\n")


def hold(context: typer.Context, target: str, as_json: Json = False) -> None:
    """Pause a project (operator) or one batch by hand (`hold` is the same): cope pause batch_01… Nothing is lost."""
    _stop_or_go(context, target, paused=True, as_json=as_json)


def resume(context: typer.Context, target: str, as_json: Json = False) -> None:
    """Go on with a held project (operator) or batch, or with one whose first answers could not be read."""
    _stop_or_go(context, target, paused=False, as_json=as_json)


def _stop_or_go(context: typer.Context, target: str, *, paused: bool, as_json: bool) -> None:
    if target.startswith("batch_"):
        path = f"/batches/{target}/{'hold' if paused else 'resume'}"
        found: Any = _client(context).post(path, cast_to=dict[str, Any])
        text = summary(found)
    elif target.startswith("proj_"):
        body = {"cope": {"paused": paused}}
        found = _client(context, admin=True).post(f"/organization/projects/{target}", body=body, cast_to=object)
        text = f"{target} {'is held' if found['cope']['paused'] else 'goes on'}"
    else:
        raise BadInput(f"{target} is neither a batch (batch_…) nor a project (proj_…)")
    if as_json:
        _print_json(found)
    else:
        sys.stdout.write(text + "\n")


def _client(context: typer.Context, *, admin: bool = False) -> OpenAI:
    return find_address(*context.obj).client(admin=admin)


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
