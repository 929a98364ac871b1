"""`cope audit`: how often the large model disagrees with answers that were not escalated."""

import json
import sys
from typing import Annotated, Any
from urllib.parse import urlencode

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cope_cli.address import find_address

_MOST_PAIRS = 100


def audit(
    context: typer.Context,
    batch: Annotated[str | None, typer.Argument(help="One batch; without it, a month of the project.")] = None,
    project: Annotated[str, typer.Option(help="A project's id; `me` is the key's own.")] = "me",
    month: Annotated[str | None, typer.Option(help="Such as 2026-11; the present one by default.")] = None,
    pairs: Annotated[bool, typer.Option("--disagreed", help="List the disagreeing answers instead.")] = False,
    share: Annotated[str | None, typer.Option("--set", help="New share, such as 0.02; 0 is off (operator).")] = None,
    cap: Annotated[str | None, typer.Option(help="New monthly cap of the audits in USD (operator).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """How often is the small model wrong? For example: cope audit --project proj_01… --set 0.02 --cap 1.00"""
    address = find_address(*context.obj)
    changed = {name: value for name, value in (("share", share), ("cap_usd", cap)) if value is not None}
    if changed:
        body = {"cope": {"audit": changed}}
        address.client(admin=True).post(f"/organization/projects/{project}", body=body, cast_to=object)
    client, console = address.client(admin=bool(changed)), Console(highlight=False)
    found: Any
    if pairs:
        asked = {"state": "disagreed", "limit": _MOST_PAIRS} | ({} if batch is None else {"batch_id": batch})
        found = client.get(f"/audits?{urlencode(asked)}", cast_to=object)
    elif batch is not None:
        found = client.get(f"/batches/{batch}", cast_to=object)
        found = found["cope"].get("audit")
    else:
        query = "" if month is None else f"?{urlencode({'month': month})}"
        found = client.get(f"/organization/projects/{project}/audit{query}", cast_to=object)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    elif pairs:
        console.print(_pairs(found["data"]))
        if found["has_more"]:
            console.print(f"The first {_MOST_PAIRS} are shown.")
    elif found is None:
        console.print("No answer of this batch was accepted while audits were on.")
    else:
        _report(console, found)


def _report(console: Console, found: dict[str, Any]) -> None:
    if "month" in found:
        cap = "no cap of its own" if found["cap_usd"] is None else f"cap ${found['cap_usd']}"
        console.print(f"{found['month']}: share {found['share']} · {cap} · spent ${found['spent_usd']}")
    table = Table("stage", "confidence", "accepted", "audited", "agreed", "disagreed", "unread", "dropped", "95 %")
    for part in found["strata"]:
        table.add_row(str(part["stage"]), part["confidence"], *_figures(part))
    if found["strata"]:
        table.add_row("all", "", *_figures(found), style="bold")
        console.print(table)
    console.print(found["summary"], soft_wrap=True)
    for note in found["notes"]:
        console.print(note, soft_wrap=True)


def _figures(part: dict[str, Any]) -> list[str]:
    names = ("accepted", "audited", "agreed", "disagreed", "unparsable", "dropped")
    estimate = part["estimate"]
    interval = "no estimate" if estimate is None else f"{estimate['low']:.1%} to {estimate['high']:.1%}"
    return [*(f"{part[name]:,}" for name in names), interval]


def _pairs(audits: list[dict[str, Any]]) -> Table:
    table = Table("task", "line", "confidence", "small model", "large model")
    for one in audits:
        large = one["large"]["answer"] if one["large"] else ""
        where = f"{one['confidence']} in stage {one['stage']}"
        table.add_row(
            one["task_id"], escape(one["custom_id"] or ""), where, escape(one["small"]["answer"]), escape(large)
        )
    return table
