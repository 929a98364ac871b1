"""`cope reconcile FILE.csv`: settle unconfirmed money by a provider's usage export."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cope_cli.address import find_address
from cope_cli.plain import stream

FAILED, REFUSED = 1, 2
_SAYS = {
    "settled": "unconfirmed, billed: settled at what the provider says",
    "not_billed": "unconfirmed, not in the complete file: settled at 0",
    "equal": "booked as billed",
    "different": "booked otherwise than billed: not changed",
    "corrected": "booked otherwise than billed: corrected",
    "too_recent": "may still be running: reconcile again later",
    "in_flight": "under way: settles by itself",
    "unreadable": "a row of it can't be read: not touched",
    "no_price": "the file tells no cost and its price is not known: not touched",
    "unknown": "an id like ours that nobody here made",
    "changed_meanwhile": "settled by a late answer just now: reconcile again",
}
_SHOWN = 20


def reconcile(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The provider's usage export.")],
    apply: Annotated[bool, typer.Option("--apply", help="Write; without it nothing changes.")] = False,
    differences: Annotated[
        bool, typer.Option("--apply-differences", help="Also correct what is booked otherwise than billed.")
    ] = False,
    complete_from: Annotated[
        str | None, typer.Option(help="The file holds every call since then: 2026-11-01T00:00:00Z.")
    ] = None,
    complete_until: Annotated[str | None, typer.Option(help="… until then. What is missing was not billed.")] = None,
    unknown_to: Annotated[
        str | None, typer.Option(help="Project in which calls are counted that nobody here made: after a restore.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Compare the books with a provider's usage export (operator): cope reconcile usage.csv, then again with --apply.

    Columns, in any order: request_id (what we sent as X-Client-Request-Id), provider_id, prompt_tokens, cached_tokens,
    completion_tokens, cost_usd. Exit code 1: something is left for a person to look at.
    """
    query = {"apply": str(apply).lower(), "apply_differences": str(differences).lower()}
    if complete_from is not None:
        query["complete_from"] = complete_from
    if unknown_to is not None:
        query["unknown_to"] = unknown_to
    if complete_until is not None:
        query["complete_until"] = complete_until
    address = find_address(*context.obj)
    try:
        with file.open("rb") as body:
            answer = b"".join(stream(address, "/organization/reconcile", query, admin=True, body=body))
    except FileNotFoundError:
        sys.stderr.write(f"cope: there is no file {file}\n")
        raise typer.Exit(REFUSED) from None
    found: dict[str, Any] = json.loads(answer)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    else:
        _show(Console(highlight=False), found)
    if found["open"]:
        raise typer.Exit(FAILED)


def _show(console: Console, found: dict[str, Any]) -> None:
    told = found["file"]
    console.print(
        f"{told['rows']} rows read, {told['repeated']} of them twice, {told['unreadable']} unreadable, "
        f"{told['without_request_id']} without request id"
    )
    for bad in found["unreadable"][:_SHOWN]:
        console.print(f"line {bad['line']}: {bad['message']}", markup=False, soft_wrap=True)
    table = Table("outcome", "steps", "calls", "billed USD", "what it means")
    for verdict, sums in found["summary"].items():
        table.add_row(verdict, str(sums["attempts"]), str(sums["calls"]), sums["billed_usd"], _SAYS.get(verdict, ""))
    others = found["others"]
    if others["calls"]:
        table.add_row("others", "", str(others["calls"]), others["billed_usd"], "somebody else's calls on this key")
    console.print(table)
    unknown = found["unknown"]
    if unknown["counted_calls"]:
        console.print(f"{unknown['counted_calls']} unknown calls are counted: {unknown['counted_usd']} USD")
    for row in [row for row in found["rows"] if row["verdict"] == "different"][:_SHOWN]:
        console.print(
            f"{row['request_id']}: billed {row['billed_nanousd']}, booked {row['booked_nanousd']} nano-dollars",
            soft_wrap=True,
        )
    if not found["applied"]:
        console.print("Nothing was written. With --apply, it is.")
