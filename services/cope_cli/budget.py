"""`cope budget`: what a project, one of its keys or a batch may spend, and has."""

import json
import sys
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import typer
from openai import OpenAI
from rich.console import Console

from cope_cli.address import Address, find_address

REFUSED = 2


def budget(
    context: typer.Context,
    project: Annotated[str, typer.Option(help="A project's id; `me` is the key's own.")] = "me",
    key: Annotated[str | None, typer.Option(help="One of its keys: what that key may spend of it.")] = None,
    batch: Annotated[str | None, typer.Option(help="A batch: what it may spend over its whole life.")] = None,
    cap: Annotated[str | None, typer.Option("--set", help="New cap in USD (operator, but for a batch).")] = None,
    unlimited: Annotated[bool, typer.Option("--unlimited", help="No cap of its own.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Show this month's cap and spend, or change the cap: cope budget --project proj_01… --set 50"""
    if cap is not None and unlimited:
        _refuse("give --set or --unlimited, not both")
    if batch is not None and (key is not None or project != "me"):
        _refuse("give --batch alone: a batch knows its project and key")
    address = find_address(*context.obj)
    path = _path(project, key, batch)
    client = _client(address, operator=batch is None and (cap is not None or unlimited))
    if unlimited:
        client.delete(path, cast_to=object)
    elif cap is not None:
        amount = _amount(cap)
        body = {"cope": {"cap_usd": amount}} if batch is None else {"max_cost_usd": amount}
        client.post(path, body=body, cast_to=object)
    found: Any = client.get(path, cast_to=object)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    else:
        Console(highlight=False).print(_line(found["cope"]), soft_wrap=True)


def _path(project: str, key: str | None, batch: str | None) -> str:
    if batch is not None:
        return f"/batches/{batch}/spend_limit"
    own = "" if key is None else f"/api_keys/{key}"
    return f"/organization/projects/{project}{own}/spend_limit"


def _client(address: Address, *, operator: bool) -> OpenAI:
    return address.client(admin=operator)


def _line(told: dict[str, Any]) -> str:
    cap = "no cap" if told["cap_usd"] is None else f"cap ${told['cap_usd']}"
    return (
        f"{told['month'] or 'whole life'}: {cap} · spent ${told['spent_usd']} · reserved ${told['reserved_usd']} · "
        f"unconfirmed ${told['unconfirmed_usd']} · overrun ${told['overrun_usd']}"
    )


def _amount(text: str) -> str:
    """The amount as plain decimal text, so that `1e1` or `+5` are no riddle to the service."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0 or amount != round(amount, 9):
        _refuse(f"--set {text}: an amount of dollars with at most nine decimals")
    return f"{amount:f}"


def _refuse(message: str) -> None:
    sys.stderr.write(f"cope: {message}\n")
    raise typer.Exit(REFUSED)
