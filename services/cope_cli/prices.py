"""`cope prices`: what is in force, the history of one id, adding a row, and what a row would change (all: operator).

Amounts are decimal text in USD per million tokens from the keyboard to the database: never floats.
"""

import getpass
import json
import socket
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from openai import OpenAI
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cope_cli.address import find_address

_PATH = "/organization/prices"

prices = typer.Typer(
    add_completion=False,
    help="Show, add and compare the prices of paid models (operator).",
    invoke_without_command=True,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Model = Annotated[
    str, typer.Argument(help="A price id: the provider's name of the model, unless configured otherwise.")
]
Amount = Annotated[str, typer.Option(help="USD per million tokens, such as 2.50.")]
CachedAmount = Annotated[str | None, typer.Option(help="USD per million cached input tokens; as --input if left out.")]
TierOption = Annotated[str, typer.Option(help="standard, or batch: calls through the provider's Batch API.")]
Source = Annotated[str, typer.Option(help="Where the amounts were read: an address or a text.")]
Effective = Annotated[
    str | None, typer.Option(help="When it takes effect, such as 2026-12-01T00:00:00Z; now if left out.")
]
Until = Annotated[str | None, typer.Option(help="When it lapses; never if left out.")]
Version = Annotated[str | None, typer.Option(help="Names the row; the day if left out.")]
Days = Annotated[int, typer.Option(help="How many days of settled calls a dry run looks back.")]


@prices.callback()
def in_force(
    context: typer.Context,
    at: Annotated[str | None, typer.Option(help="The prices at another moment, such as 2026-12-01.")] = None,
    as_json: Json = False,
) -> None:
    """List the prices in force, or show, add and compare rows: cope prices add gpt-x --input 2.50 --output 10.00 …"""
    if context.invoked_subcommand is None:
        _list(context, {} if at is None else {"at": at}, as_json=as_json)


@prices.command(name="list")
def list_command(
    context: typer.Context,
    at: Annotated[str | None, typer.Option(help="The prices at another moment, such as 2026-12-01.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every version of every price.")] = False,
    as_json: Json = False,
) -> None:
    """List the prices in force, or with --all every version."""
    _list(context, {"versions": "all" if every else "in_force", **({} if at is None else {"at": at})}, as_json=as_json)


@prices.command()
def show(context: typer.Context, price_id: str, as_json: Json = False) -> None:
    """Show every version of one price, newest first: cope prices show gpt-4o-2024-08-06"""
    _list(context, {"price_id": price_id, "versions": "all"}, as_json=as_json)


@prices.command()
def add(
    context: typer.Context,
    model: Model,
    input_: Annotated[str, typer.Option("--input", help="USD per million tokens, such as 2.50.")],
    output: Amount,
    source: Source,
    cached_input: CachedAmount = None,
    tier: TierOption = "standard",
    effective: Effective = None,
    until: Until = None,
    version: Version = None,
    force: Annotated[bool, typer.Option("--force", help="Add it in spite of objections; needs --reason.")] = False,
    reason: Annotated[str, typer.Option(help="Why; stored with the row.")] = "",
    by: Annotated[str | None, typer.Option(help="Who adds it; this user and host if left out.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would change.")] = False,
    days: Days = 30,
    as_json: Json = False,
) -> None:
    """Add a price: cope prices add gpt-x --input 2.50 --cached-input 1.25 --output 10.00 --source https://…"""
    row = _row(model, tier, input_, cached_input, output, source, effective, until, version)
    if dry_run:
        _diff(context, row, days, as_json=as_json)
        return
    told = {"force": force, "reason": reason, "added_by": by or _me()}
    answer = _client(context).post(_PATH, body={**row, **told}, cast_to=object)
    if as_json:
        _print_json(answer)
        return
    for added in answer["data"]:  # type: ignore[index]
        name = f"{added['price_id']} ({added['tier']}) version {added['version']}"
        _say(f"added {name}: {_amounts(added)}, {_dates(added)}")


@prices.command()
def diff(
    context: typer.Context,
    model: Model,
    input_: Annotated[str, typer.Option("--input", help="USD per million tokens, such as 2.50.")],
    output: Amount,
    source: Source = "dry run",
    cached_input: CachedAmount = None,
    tier: TierOption = "standard",
    effective: Effective = None,
    until: Until = None,
    days: Days = 30,
    as_json: Json = False,
) -> None:
    """Say what a price would have changed in the last days: cope prices diff gpt-x --input 3.00 --output 12.00"""
    row = _row(model, tier, input_, cached_input, output, source, effective, until, None)
    _diff(context, row, days, as_json=as_json)


def _row(
    model: str,
    tier: str,
    input_: str,
    cached_input: str | None,
    output: str,
    source: str,
    effective: str | None,
    until: str | None,
    version: str | None,
) -> dict[str, object]:
    row = {
        "price_id": model,
        "tier": tier,
        "input": input_,
        "cached_input": cached_input,
        "output": output,
        "source": source,
        "effective_at": effective,
        "effective_until": until,
        "version": version,
    }
    return {name: value for name, value in row.items() if value is not None}


def _list(context: typer.Context, query: dict[str, str], *, as_json: bool) -> None:
    page: Any = _client(context).get(_PATH, cast_to=object, options={"params": query})
    if as_json:
        _print_json(page)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("id", overflow="fold")
    for name in ("tier", "version", "input", "cached", "output", "effective", "status"):
        table.add_column(name, no_wrap=True, justify="right" if name in {"input", "cached", "output"} else "left")
    table.add_column("source", overflow="fold", min_width=20)
    for row in page["data"]:
        per = row["per_million_tokens"]
        table.add_row(
            escape(row["price_id"]),
            row["tier"],
            escape(row["version"]),
            per["input"],
            per["cached_input"],
            per["output"],
            _day(row["effective_at"]),
            row["status"].replace("_", " "),
            escape(row["source"]),
        )
    console = _console()
    console.print(table)
    console.print("USD per million tokens")


def _diff(context: typer.Context, row: dict[str, object], days: int, *, as_json: bool) -> None:
    answer: Any = _client(context).post(_PATH, body={**row, "dry_run": True, "days": days}, cast_to=object)
    if as_json:
        _print_json(answer)
        return
    for change in answer["data"]:
        _say_change(change)


def _say_change(change: dict[str, Any]) -> None:
    new, old, settled, reserve = change["price"], change["replaces"], change["settled"], change["typical_reserve"]
    _say(f"{new['price_id']} ({new['tier']}) version {new['version']}, {_dates(new)}; nothing was added")
    for name, amount in new["per_million_tokens"].items():
        was = "none" if old is None else f"${old['per_million_tokens'][name]}"
        _say(f"  {name.replace('_', ' '):13} {was} → ${amount} per million tokens")
    _say(
        f"  last {settled['days']} days: {settled['calls']} calls in {settled['attempts']} attempts, "
        f"${settled['spent_usd']} spent, ${settled['repriced_usd']} at this price "
        f"({_signed(settled['difference_usd'])})"
    )
    if settled["without_usage"]["attempts"]:
        _say(f"  and {settled['without_usage']['attempts']} attempts without usage, which no price changes")
    before = "none" if reserve["before_usd"] is None else f"${reserve['before_usd']}"
    _say(
        f"  a call of {reserve['prompt_tokens']} prompt tokens and at most {reserve['output_limit']} more reserves "
        f"{before} → ${reserve['after_usd']}"
    )
    for objection in change["objections"]:
        _say(f"  refused without --force: {objection['message']}")


def _amounts(row: dict[str, Any]) -> str:
    per = row["per_million_tokens"]
    return f"input ${per['input']}, cached input ${per['cached_input']}, output ${per['output']} per million tokens"


def _dates(row: dict[str, Any]) -> str:
    until = "" if row["effective_until"] is None else f" until {_moment(row['effective_until'])}"
    return f"from {_moment(row['effective_at'])}{until}"


def _moment(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _day(seconds: int) -> str:
    return _moment(seconds).removesuffix("T00:00:00Z")


def _signed(amount: str) -> str:
    return f"-${amount[1:]}" if amount.startswith("-") else f"+${amount}"


def _me() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _client(context: typer.Context) -> OpenAI:
    return find_address(*context.obj).client(admin=True)


def _console() -> Console:
    # What is piped somewhere is not cut to 80 columns.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 240)


def _say(line: str) -> None:
    _console().print(line, markup=False, soft_wrap=True)


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
